"""Rounds of the event loop: how much is done in one of them, by work that must let others in between."""

from __future__ import annotations

import asyncio
from collections import Counter

from shared.clock import monotonic_s
from shared.edge.pauses import TURN_S


class Rounds:
    """Counts the rounds of the running loop from now on, and the pieces of work in each."""

    def __init__(self) -> None:
        self._round = 0
        self._pieces: Counter[int] = Counter()
        self._next()

    def work(self) -> None:
        """Do a piece of work: it takes all the time that there is for one turn."""
        end_s = monotonic_s() + TURN_S
        while monotonic_s() < end_s:
            pass
        self._pieces[self._round] += 1

    @property
    def most_in_one(self) -> int:
        """The most pieces of work that one round of the loop had to wait for."""
        return max(self._pieces.values())

    def _next(self) -> None:
        self._round += 1
        asyncio.get_running_loop().call_soon(self._next)
