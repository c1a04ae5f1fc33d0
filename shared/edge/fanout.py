"""The fan-out: an event to every listener of a topic, a large audience in slices, so that nobody else waits for it.

Handing over an event costs about a system call, so five thousand listeners would hold the loop for sixty milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Hashable

from shared.clock import Clock, monotonic_s
from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Outlet
from shared.edge.wire.writer import deliver_to_each

SLICE = 64
TURN_S = 0.003
"""How long large audiences may hold the loop; with the slice that is begun last it stays under 5 ms."""
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
        begin, left = self.reached, self.left
        self.reached += SLICE
        outlets = self.outlets[begin : self.reached]
        if left:
            outlets = [outlet for outlet in outlets if outlet not in left]
        deliver_to_each(outlets, self.event)
        return self.reached >= len(self.outlets)


class FanOut:
    """Hands events over, in order for each lane: a topic, or a line with all its subjects.

    Once an event has more outlets than a slice, its lane has a queue of events, each with the outlets that it has yet
    to reach. The lanes take turns, slice by slice. A full queue is worked off at once: the loop then stalls, and the
    broker holds back for us, which loses nothing.
    """

    def __init__(self, clock: Clock = monotonic_s) -> None:
        self._clock = clock
        self._queues: dict[Hashable, deque[_Queued]] = {}

    def send(self, lane: Hashable, event: Event, outlets: Collection[Outlet]) -> None:
        """Hand `event` to `outlets`, after all that its lane has been given before."""
        queue = self._queues.get(lane)
        if queue is None and len(outlets) <= SLICE:
            deliver_to_each(list(outlets), event)
            return
        if queue is None:
            if not self._queues:
                asyncio.get_running_loop().call_soon(self._take_turns)
            queue = self._queues[lane] = deque()
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

    def _take_turns(self) -> None:
        """Work off a slice of each lane in turn until the time is over; then let the loop look around."""
        end_s = self._clock() + TURN_S
        while self._queues:
            lane, queue = next(iter(self._queues.items()))
            if queue:
                self._work(queue)
            del self._queues[lane]
            if queue:
                self._queues[lane] = queue  # behind the others
            if self._clock() >= end_s:
                break
        if self._queues:
            asyncio.get_running_loop().call_soon(self._take_turns)

    @staticmethod
    def _work(queue: deque[_Queued]) -> None:
        """Hand the oldest event to the next slice of its listeners."""
        if queue[0].reach_more():
            queue.popleft()
