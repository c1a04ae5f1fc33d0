"""The three answers to a client that reads slower than it is written to (ADR 0007)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from shared.edge.delivery.event import Event, Overflow, make_event


@dataclass(frozen=True, slots=True)
class OverflowLimits:
    """Bounds of one connection's backlog.

    Attributes:
        lossless_bytes: over this the connection must be closed; it resumes with its cursor.
        droppable_events: with this many events waiting, events of class DROP are not taken any more; neither is one
            that would bring what waits over half of `lossless_bytes`: the rest is for what must not be lost.
        stuck_s: over this without taking anything a stream's client counts as gone; a WebSocket's is asked instead.
        latest_keys: values of class LATEST kept, one for each key; a new key over it is dropped.
        count_too_slow: told of each connection that goes over `lossless_bytes`.
    """

    lossless_bytes: int = 1 << 20
    droppable_events: int = 64
    latest_keys: int = 5_000
    stuck_s: float = 30.0
    count_too_slow: Callable[[], None] = lambda: None


class Backlog:
    """What one connection has yet to be sent. Pure: someone else writes.

    Attributes:
        pending_bytes: of the events in the queue: those of class LOSSLESS, and those of class DROP that were taken.
    """

    __slots__ = ("_dropped", "_latest", "_limits", "_queue", "pending_bytes")

    def __init__(self, limits: OverflowLimits) -> None:
        self._limits = limits
        self._queue: deque[Event] = deque()
        self._latest: dict[str, Event] = {}
        self._dropped: dict[str, int] = {}  # no Counter: to make one costs as much as the rest
        self.pending_bytes = 0

    def __bool__(self) -> bool:
        return bool(self._queue or self._latest or self._dropped)

    def put(self, event: Event, begun_bytes: int = 0) -> bool:
        """Take an event by its class; False if the connection is over its bound and must be closed.

        Args:
            begun_bytes: what waits outside, ahead of all that is here.
        """
        if event.overflow is Overflow.LATEST:
            self._put_latest(event)
            return True
        if event.overflow is Overflow.DROP and not self._has_room_for(len(event.body) + begun_bytes):
            self._drop(event)
            return True
        self._queue.append(event)
        self.pending_bytes += len(event.body)
        return self.pending_bytes + begun_bytes <= self._limits.lossless_bytes

    def take(self, max_bytes: float = inf) -> list[Event]:
        """Return what waits, oldest first, then the latest values, then what was dropped; and forget it.

        Args:
            max_bytes: take from the queue until that is reached, and the rest only once the queue is empty.
        """
        events, taken_bytes = [], 0
        while self._queue and taken_bytes < max_bytes:
            events.append(self._queue.popleft())
            taken_bytes += len(events[-1].body)
        self.pending_bytes -= taken_bytes
        if not self._queue:
            events += self._latest.values()
            events += [make_event("dropped", {"kind": kind, "count": count}) for kind, count in self._dropped.items()]
            self._latest.clear()
            self._dropped.clear()
        return events

    def _has_room_for(self, more_bytes: int) -> bool:
        fits = self.pending_bytes + more_bytes <= self._limits.lossless_bytes // 2
        return fits and len(self._queue) < self._limits.droppable_events

    def _put_latest(self, event: Event) -> None:
        if event.key in self._latest or len(self._latest) < self._limits.latest_keys:
            self._latest[event.key] = event
        else:
            self._drop(event)

    def _drop(self, event: Event) -> None:
        self._dropped[event.type] = self._dropped.get(event.type, 0) + 1
