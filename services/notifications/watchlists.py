"""Watchlists: a user's symbols, kept with the user, followed by every edge that holds one of their streams."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from pydantic_core import from_json, to_json

from shared.broker.port import Broker, Message
from shared.contracts import subjects
from shared.errors import BadInput, Conflict

UPDATE_ATTEMPTS = 8

OnChange = Callable[[str, frozenset[str]], None]
"""Called with a user and their whole watchlist, on every edge, when it has changed."""


class Watchlists:
    """Reads and changes watchlists."""

    def __init__(self, broker: Broker, *, on_change: OnChange, max_symbols: int) -> None:
        self._broker, self._on_change, self._max_symbols = broker, on_change, max_symbols

    async def start(self) -> None:
        """Follow the changes that any edge makes."""
        await self._broker.subscribe(subjects.bucket_changes(subjects.WATCHLISTS), self._changed)

    async def get(self, user: str) -> frozenset[str]:
        """Return a user's watchlist."""
        entry = await self._broker.get(subjects.WATCHLISTS, user)
        return _symbols(entry.value) if entry else frozenset()

    async def change(self, user: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> frozenset[str]:
        """Change a user's watchlist and return it.

        Raises:
            BadInput: it would hold too many symbols.
            Conflict: it changes too fast from elsewhere.
        """
        for _attempt in range(UPDATE_ATTEMPTS):
            entry = await self._broker.get(subjects.WATCHLISTS, user)
            before = _symbols(entry.value) if entry else frozenset()
            after = (before | set(add)) - set(remove)
            if after == before:
                return before
            if len(after) > self._max_symbols:
                raise BadInput(f"a watchlist holds at most {self._max_symbols} symbols")
            try:
                value, expect = to_json({"symbols": sorted(after)}), entry.revision if entry else 0
                await self._broker.put(subjects.WATCHLISTS, user, value=value, expect=expect)
            except Conflict:
                await asyncio.sleep(0)
                continue
            self._on_change(user, after)
            return after
        raise Conflict("the watchlist changes too fast; try again")

    def _changed(self, message: Message) -> None:
        user = subjects.tokens_after(message.subject, 3)[0]
        self._on_change(user, frozenset() if message.gone else _symbols(message.data))


def _symbols(value: bytes) -> frozenset[str]:
    return frozenset(from_json(value)["symbols"])
