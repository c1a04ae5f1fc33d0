"""Watchlists: a user's symbols, kept with the user, followed by every edge that holds one of their streams.

A change is told live, which may be lost in silence: each edge reads the watchlists of those it serves again, after
every lost link and every `RECONCILE_S`. Revisions keep what comes late from undoing what came before.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from pydantic import ValidationError

from shared.broker.port import Broker, Message
from shared.contracts import subjects
from shared.contracts.events import Payload
from shared.contracts.ids import Id
from shared.errors import BadInput, Conflict, FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger

UPDATE_ATTEMPTS = 8
RETRY_WITHIN_S = 0.05
RECONCILE_S = 30.0
READ_PAGE = 500
READ_WITHIN_S = 0.01
LATELY = 1_000
"""Changes that are remembered, of whomever: what was read may come from a replica that does not know of them yet."""


class WatchlistRecord(Payload):
    """A watchlist as it is stored."""

    symbols: tuple[Id, ...]


@dataclass(frozen=True, slots=True)
class Watchlist:
    """A user's symbols; a higher `revision` is newer."""

    symbols: frozenset[str]
    revision: int


NO_SYMBOLS: frozenset[str] = frozenset()
NO_WATCHLIST = Watchlist(NO_SYMBOLS, 0)

OnChange = Callable[[str, Watchlist], None]
"""Called with a user and their whole watchlist, on every edge, when it may have changed; not always in order."""


class Watchlists:
    """Reads and changes watchlists.

    Args:
        users: whose watchlists this edge serves now.
    """

    def __init__(
        self, broker: Broker, *, on_change: OnChange, users: Callable[[], Iterable[str]], max_symbols: int
    ) -> None:
        self._broker, self._on_change, self._users, self._max_symbols = broker, on_change, users, max_symbols
        self._to_read: set[str] = set()
        self._lately_changed: dict[str, Watchlist] = {}
        self._wake = asyncio.Event()
        self._tasks = TaskKeeper()
        self._log = get_logger()

    async def start(self) -> None:
        """Follow the changes that any edge makes."""
        await self._broker.subscribe(subjects.bucket_changes(subjects.WATCHLISTS), self._heard)
        self._broker.on_reconnect(self._wake.set)
        self._tasks.keep(self._reconcile_for_ever, "watchlists-reconcile")

    async def close(self) -> None:
        """Follow them no more."""
        await self._tasks.close()

    def follow(self, user: str) -> None:
        """Report a user's watchlist soon: those of all who come within READ_WITHIN_S are read at once."""
        if (changed := self._lately_changed.get(user)) is not None:
            self._on_change(user, changed)
        if not self._to_read:
            self._tasks.spawn(self._read_soon(), "watchlists-read")
        self._to_read.add(user)

    async def get(self, user: str) -> Watchlist:
        """Return a user's watchlist."""
        entry = await self._broker.get(subjects.WATCHLISTS, user)
        return Watchlist(_symbols(entry.value), entry.revision) if entry else NO_WATCHLIST

    async def change(self, user: str, *, add: Collection[str] = (), remove: Collection[str] = ()) -> frozenset[str]:
        """Change a user's watchlist and return its symbols.

        Raises:
            BadInput: it would hold too many symbols.
            Conflict: it changes too fast from elsewhere.
        """
        for _attempt in range(UPDATE_ATTEMPTS):
            before = await self.get(user)
            after = (before.symbols | set(add)) - set(remove)
            if after == before.symbols:
                return after
            if len(after) > self._max_symbols:
                raise BadInput(f"a watchlist holds at most {self._max_symbols} symbols")
            try:
                value = WatchlistRecord(symbols=tuple(sorted(after))).to_json()
                revision = await self._broker.put(subjects.WATCHLISTS, user, value=value, expect=before.revision)
            except Conflict:
                await asyncio.sleep(random.uniform(0, RETRY_WITHIN_S))
                continue
            self._on_change(user, Watchlist(after, revision))
            return after
        raise Conflict("the watchlist changes too fast; try again")

    def _heard(self, message: Message) -> None:
        """Take a change that some edge made."""
        user, watchlist = _read(message)
        self._lately_changed.pop(user, None)
        self._lately_changed[user] = watchlist
        if len(self._lately_changed) > LATELY:
            del self._lately_changed[next(iter(self._lately_changed))]
        self._on_change(user, watchlist)

    async def _read_soon(self) -> None:
        await asyncio.sleep(READ_WITHIN_S)
        users, self._to_read = self._to_read, set()
        try:
            await self._report(users)
        except FanfareError:
            self._wake.set()  # the reconciler reads them, and says what is wrong

    async def _reconcile_for_ever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(RECONCILE_S * random.uniform(0.75, 1.25)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            try:
                await self._report(self._users())
            except FanfareError as error:
                self._log.warning("watchlists_not_read", reason=str(error))

    async def _report(self, users: Iterable[str]) -> None:
        """Read the watchlists of `users`, and report them."""
        stream = subjects.bucket_stream(subjects.WATCHLISTS)
        keys = [subjects.bucket_key(subjects.WATCHLISTS, user) for user in set(users)]
        for start in range(0, len(keys), READ_PAGE):
            for message in await self._broker.read_last(stream, keys[start : start + READ_PAGE]):
                self._on_change(*_read(message))


def _read(message: Message) -> tuple[str, Watchlist]:
    """Return whose watchlist a stored key is, and the watchlist."""
    symbols = NO_SYMBOLS if message.gone else _symbols(message.data)
    return message.subject.rpartition(".")[2], Watchlist(symbols, message.seq)


def _symbols(value: bytes) -> frozenset[str]:
    """Return the symbols of a stored watchlist; none if it is none, which is logged: the next change mends it."""
    try:
        return frozenset(WatchlistRecord.model_validate_json(value).symbols)
    except ValidationError as error:
        get_logger().error("watchlist_invalid", reason=str(error.errors(include_input=False)[0]["msg"]))
        return NO_SYMBOLS
