"""The fan-out: an event to every listener of a topic, a large audience in slices, so that nobody else waits for it.

Handing over an event costs about a system call, so five thousand listeners would hold the loop for sixty milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Hashable
from itertools import islice
from typing import Final

from shared.edge.event import Event
from shared.edge.listener import Listener

SLICE = 256
MAX_QUEUED_EVENTS = 1_000
MISSING: Final = object()


class FanOut:
    """Hands events over, in order for each lane: a topic, or a line with all its subjects.

    Once an event has more listeners than a slice, its lane has a queue of events, each with the listeners that it has
    yet to reach. A full queue is worked off at once: the loop then stalls, and the broker holds back for us, which
    loses nothing.
    """

    def __init__(self) -> None:
        self._queues: dict[Hashable, deque[tuple[Event, dict[Listener, object]]]] = {}

    def send(self, lane: Hashable, event: Event, listeners: Collection[Listener]) -> None:
        """Hand `event` to `listeners`, after all that its lane has been given before."""
        queue = self._queues.get(lane)
        if queue is None and len(listeners) <= SLICE:
            for listener in list(listeners):
                listener.deliver(event)
            return
        if queue is None:
            queue = self._queues[lane] = deque()
            asyncio.get_running_loop().call_soon(self._step, lane)
        queue.append((event, dict[Listener, object].fromkeys(listeners)))
        while len(queue) > MAX_QUEUED_EVENTS:
            self._work(queue)

    def forget(self, lane: Hashable, listener: Listener) -> None:
        """Hand nothing more of what is queued to a listener that has left: if it comes back, a replay gives it that."""
        for _event, listeners in self._queues.get(lane, ()):
            listeners.pop(listener, None)

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
    def _work(queue: deque[tuple[Event, dict[Listener, object]]]) -> None:
        """Hand the oldest event to the next slice of its listeners."""
        event, listeners = queue[0]
        for listener in list(islice(listeners, SLICE)):
            # One that left while this slice was worked off is not there any more.
            if listeners.pop(listener, MISSING) is not MISSING:
                listener.deliver(event)
        if not listeners:
            queue.popleft()
