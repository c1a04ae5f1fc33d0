"""Turns: how many connections may begin in one round of the event loop, so that a herd does not stop those who are in.

Whoever comes costs an authentication and a first answer, half a millisecond; a thousand at once would be served before
the loop looks at anything else. In turns, the same work takes the same time, and messages pass in between.
"""

from __future__ import annotations

import asyncio
from collections import deque

PER_ROUND = 8


class Turns:
    """Lets PER_ROUND through in each round, first come first served; alone, nobody waits."""

    def __init__(self, per_round: int = PER_ROUND) -> None:
        self._per_round = self._left = per_round
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def wait(self) -> None:
        """Return when it is the caller's turn."""
        if self._left == 0:
            turn = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
            return
        if self._left == self._per_round:
            asyncio.get_running_loop().call_soon(self._next_round)
        self._left -= 1

    def _next_round(self) -> None:
        self._left = self._per_round
        while self._left and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():  # it was given up
                turn.set_result(None)
                self._left -= 1
        if self._left < self._per_round:
            asyncio.get_running_loop().call_soon(self._next_round)
