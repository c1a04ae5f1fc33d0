"""A connection's outbox on the portable path: what the hub delivers waits here until ASGI's `send` has taken it."""

from __future__ import annotations

import asyncio

from shared.edge.delivery.event import Event
from shared.edge.delivery.overflow import Backlog, OverflowLimits

WRITABLE_BELOW_BYTES = 64 * 1024


class Outbox:
    """A listener with a bounded backlog and one reader.

    Attributes:
        overflowed: the client was too slow for what must not be lost; it is to be closed, and resumes with its cursor.
    """

    __slots__ = ("_backlog", "_changed", "_drained", "_limits", "closed", "overflowed")

    def __init__(self, limits: OverflowLimits) -> None:
        self._limits, self._backlog = limits, Backlog(limits)
        self._changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.closed = self.overflowed = False

    def deliver(self, event: Event) -> None:
        """Take an event by its class of back-pressure."""
        if self.closed or self.overflowed:
            return
        if not self._backlog.put(event):
            self.overflowed = True
            self._backlog.take()  # its cursor brings it again (ADR 7)
            self._limits.count_too_slow()
        if self._backlog.pending_bytes > WRITABLE_BELOW_BYTES:
            self._drained.clear()
        self._changed.set()

    def close(self) -> None:
        """Take nothing more; the reader gets what waits, and then the end."""
        self.closed = True
        self._changed.set()
        self._drained.set()

    async def take(self) -> list[Event]:
        """Return what waits, at least one event; empty when it is closed (or overflowed) and nothing waits any more."""
        while not self._backlog and not self.closed and not self.overflowed:
            self._changed.clear()
            await self._changed.wait()
        events = self._backlog.take()
        self._drained.set()
        return events

    async def writable(self) -> None:
        """Return when most of what was delivered has been taken."""
        await self._drained.wait()
