"""Pauses: long work lets the loop look around every few milliseconds, however much one piece of it takes."""

from __future__ import annotations

import asyncio

from shared.clock import Clock, monotonic_s

TURN_S = 0.003
"""How long work on behalf of some may hold the loop; with the piece that is begun last it stays under 5 ms."""


class Pauses:
    """The pauses of one piece of work, which counts from here."""

    __slots__ = ("_clock", "_due_s")

    def __init__(self, clock: Clock = monotonic_s) -> None:
        self._clock, self._due_s = clock, clock() + TURN_S

    async def when_due(self) -> None:
        """Pause if TURN_S have gone by since the last pause."""
        if self._clock() >= self._due_s:
            await asyncio.sleep(0)
            self._due_s = self._clock() + TURN_S
