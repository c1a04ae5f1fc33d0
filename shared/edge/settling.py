"""After a link to the broker broke: write again what the broker may have lost, and read nothing before all have.

A cluster whose nodes have all restarted has forgotten what it held in memory (ADR 10). Who reads it at once takes what
the other edges have not written again yet for gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from shared.broker.port import Broker
from shared.tasks import TaskKeeper

WRITE_AGAIN_S = 1.0
SETTLE_S = 5.0
"""By then after this edge has written again, so have the others."""

Write = Callable[[], Awaitable[bool]]
"""Writes what is missing; returns False if that could not be done."""


class Settling:
    """Whether what this edge and the others write has been there for a while."""

    def __init__(self, broker: Broker, tasks: TaskKeeper, write: Write) -> None:
        self._broker, self._tasks, self._write = broker, tasks, write
        self._settled = asyncio.Event()
        self._settled.set()
        self._busy = False
        self._breaks = 0

    def start(self) -> None:
        """Follow the link."""
        self._broker.on_disconnect(self._disconnected)
        self._broker.on_reconnect(self._reconnected)

    async def wait(self) -> None:
        """Return when what is read says what there is."""
        await self._settled.wait()

    # -- private ------------------------------------------------------------------------------------------------------

    def _disconnected(self) -> None:
        self._breaks += 1
        self._settled.clear()

    def _reconnected(self) -> None:
        if not self._busy:
            self._busy = True
            self._tasks.spawn(self._settle(), "settle")

    async def _settle(self) -> None:
        breaks = -1
        try:
            while breaks != self._breaks:
                breaks = self._breaks
                while not await self._write():  # noqa: ASYNC110  # it is asked, it does not tell
                    await asyncio.sleep(WRITE_AGAIN_S)
                await asyncio.sleep(SETTLE_S)
        finally:
            self._busy = False
            self._settled.set()
