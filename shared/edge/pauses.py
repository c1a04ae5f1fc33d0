"""Pauses: long work lets the loop look around every few milliseconds, however much one piece of it takes."""

from __future__ import annotations

import asyncio

from shared.clock import Clock, monotonic_s

TURN_S = 0.003
"""How long work on behalf of some may hold the loop; with the piece that is begun last it stays under 5 ms."""


class Turn:
    """A stretch of work, from here on: another piece is begun only if one like the longest so far fits in TURN_S."""

    __slots__ = ("_begun_s", "_clock", "_end_s", "_longest_s")

    def __init__(self, clock: Clock = monotonic_s) -> None:
        self._clock, self._longest_s = clock, 0.0
        self._begun_s: float | None = None
        self._end_s = clock() + TURN_S

    def has_time(self) -> bool:
        """Whether to begin a piece of work; what was begun before is over. There is always time for the first."""
        now_s = self._clock()
        if self._begun_s is not None:
            self._longest_s = max(self._longest_s, now_s - self._begun_s)
            if now_s + self._longest_s > self._end_s:
                return False
        self._begun_s = now_s
        return True


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
