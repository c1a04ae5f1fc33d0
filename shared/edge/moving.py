"""Moving clients to other edges, at a pace: all of them at a stop, some of them when an edge has too many."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from shared.clock import monotonic_s
from shared.edge.sessions import Session, Sessions
from shared.errors import Conflict
from shared.tasks import TaskKeeper

MAX_PAUSE_S = 0.1
"""Between two who are asked at a stop: an edge with few clients stops sooner."""

WRITTEN_S = 0.1
RECONNECT_SPREAD_MS = 2_000
"""Each is told to wait a time of its own, up to this, before it comes back: no storm."""


class Mover:
    """Asks sessions to leave, evenly over time and in random order."""

    def __init__(self, sessions: Sessions, tasks: TaskKeeper) -> None:
        self._sessions, self._tasks = sessions, tasks
        self._shedding: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    async def drain(self, over_s: float) -> None:
        """Ask all to leave over `over_s` at most, and at its end those who have come meanwhile, to the wrong place."""
        self._sessions.draining = True
        leaving = set(self._sessions)
        await ask_to_leave([*leaving], min(over_s, MAX_PAUSE_S * len(leaving)))
        if late := set(self._sessions) - leaving:
            await ask_to_leave([*late], 0.0)

    def shed(self, count: int, *, per_s: float) -> None:
        """Begin to ask `count` of them to leave, `per_s` in a second.

        Raises:
            Conflict: the last shedding is not over.
        """
        if self._shedding is not None and not self._shedding.done():
            raise Conflict("clients are being shed already")
        leaving = random.sample(list(self._sessions), count)
        self._shedding = self._tasks.spawn(ask_to_leave(leaving, count / per_s), "shed")


async def ask_to_leave(leaving: Sequence[Session], over_s: float) -> None:
    """Ask these to leave, in random order and evenly over `over_s`, each to come back at a moment of its own."""
    began_s = monotonic_s()
    for number, session in enumerate(random.sample(leaving, len(leaving))):
        due_s = began_s + over_s * number / len(leaving)
        await asyncio.sleep(max(0.0, due_s - monotonic_s()))
        session.ask_to_leave(random.randrange(RECONNECT_SPREAD_MS))
    # What was just queued still has to be written.
    await asyncio.sleep(WRITTEN_S)
