"""The fan-out: an event to every listener of a topic, a large audience in slices, so that nobody else waits for it.

Handing over an event costs about a system call, so five thousand listeners would hold the loop for sixty milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Hashable

from shared.edge.event import Event
from shared.edge.listener import Outlet

SLICE = 256
MAX_QUEUED_EVENTS = 1_000


class _Queued:
    """An event on its way to many: who was there when it came, how many have been reached, and who has left since."""

    __slots__ = ("event", "left", "outlets", "reached")

    def __init__(self, event: Event, outlets: Collection[Outlet]) -> None:
        self.event, self.outlets = event, list(outlets)
        self.reached = 0
        self.left: set[Outlet] = set()

    def reach_more(self) -> bool:
        """Hand the event to the next slice; say whether that was the last."""
        begin, left, event = self.reached, self.left, self.event
        self.reached += SLICE
        for outlet in self.outlets[begin : self.reached]:
            # Looked up each time: one may leave while this very slice is worked off.
            if outlet not in left:
                outlet.deliver(event)
        return self.reached >= len(self.outlets)


class FanOut:
    """Hands events over, in order for each lane: a topic, or a line with all its subjects.

    Once an event has more outlets than a slice, its lane has a queue of events, each with the outlets that it has yet
    to reach. A full queue is worked off at once: the loop then stalls, and the broker holds back for us, which
    loses nothing.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[_Queued]] = {}

    def send(self, lane: Hashable, event: Event, outlets: Collection[Outlet]) -> None:
        """Hand `event` to `outlets`, after all that its lane has been given before."""
        queue = self._queues.get(lane)
        if queue is None and len(outlets) <= SLICE:
            for outlet in list(outlets):
                outlet.deliver(event)
            return
        if queue is None:
            queue = self._queues[lane] = deque()
            asyncio.get_running_loop().call_soon(self._step, lane)
        queue.append(_Queued(event, outlets))
        while len(queue) > MAX_QUEUED_EVENTS:
            self._work(queue)

    def forget(self, lane: Hashable, outlet: Outlet) -> None:
        """Hand nothing more of what is queued to one that has left: if it comes back, a replay gives it that."""
        for queued in self._queues.get(lane, ()):
            queued.left.add(outlet)

    def finish(self, lane: Hashable) -> None:
        """Hand over all that is queued, now."""
        queue = self._queues.get(lane)
        while queue:
            self._work(queue)

    def _step(self, lane: Hashable) -> None:
        queue = self._queues[lane]
        if queue:
            self._work(queue)
        if queue:
            asyncio.get_running_loop().call_soon(self._step, lane)
        else:
            del self._queues[lane]

    @staticmethod
    def _work(queue: deque[_Queued]) -> None:
        """Hand the oldest event to the next slice of its listeners."""
        if queue[0].reach_more():
            queue.popleft()
