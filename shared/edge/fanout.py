"""The fan-out: an event to every listener of a topic, a large audience in slices, so that nobody else waits for it.

Handing over an event costs about a system call, so five thousand listeners would hold the loop for sixty milliseconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import islice
from typing import Final

from shared.edge.event import Event
from shared.edge.listener import Listener
from shared.edge.topic import Topic

SLICE = 256
MAX_QUEUED_EVENTS = 1_000
MISSING: Final = object()


class FanOut:
    """Hands events over, in order for each topic.

    A topic with more listeners than a slice has a queue of events, each with the listeners that it has yet to reach. A
    full queue is worked off at once: the loop then stalls, and the broker holds back for us, which loses nothing.
    """

    def __init__(self) -> None:
        self._queues: dict[Topic, deque[tuple[Event, dict[Listener, object]]]] = {}

    def send(self, topic: Topic, event: Event) -> None:
        """Hand `event` to everybody who listens now."""
        queue = self._queues.get(topic)
        if queue is None and len(topic.listeners) <= SLICE:
            for listener in list(topic.listeners):
                listener.deliver(event)
            return
        if queue is None:
            queue = self._queues[topic] = deque()
            asyncio.get_running_loop().call_soon(self._step, topic)
        queue.append((event, dict[Listener, object](topic.listeners)))
        while len(queue) > MAX_QUEUED_EVENTS:
            self._work(queue)

    def forget(self, topic: Topic, listener: Listener) -> None:
        """Hand nothing more of what is queued to a listener that has left: if it comes back, a replay gives it that."""
        for _event, listeners in self._queues.get(topic, ()):
            listeners.pop(listener, None)

    def _step(self, topic: Topic) -> None:
        queue = self._queues[topic]
        self._work(queue)
        if queue:
            asyncio.get_running_loop().call_soon(self._step, topic)
        else:
            del self._queues[topic]

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
