"""A topic: one stored subject with local listeners, its chain and the ring of its recent events. Pure."""

from __future__ import annotations

from collections import deque

from shared.contracts.cursor import Position
from shared.edge.continuity.chain import Chain
from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Listener, Outlet

MAX_RING_EVENTS = 256
MAX_RING_BYTES = 256 * 1024


class Topic(Chain):
    """The state of one subject at this edge.

    Attributes:
        floor: the ring holds all that came after this place.
        idle_since_s: when the last listener left, on the monotonic clock; None while there is one.
    """

    __slots__ = ("_ring", "_ring_bytes", "floor", "idle_since_s", "listeners")

    def __init__(self, stream: str, subject: str, position: Position) -> None:
        self.listeners: dict[Listener, Outlet] = {}
        self.idle_since_s: float | None = None
        super().__init__(stream, subject, position)

    def restart(self, position: Position) -> None:
        """Begin at `position`, with nothing remembered."""
        super().restart(position)
        self.floor = position.seq
        # Most topics are quiet: what only traffic needs is made when it comes.
        self._ring: deque[Event] | None = None
        self._ring_bytes = 0

    def skip_to(self, seq: int) -> None:
        """Go on after `seq`; whoever comes from before it must ask the stream, and be told what it has dropped."""
        super().skip_to(seq)
        self.floor, self._ring, self._ring_bytes = self.seq, None, 0

    def remember(self, event: Event) -> None:
        """Keep an emitted event for hot replay."""
        if self._ring is None:
            self._ring = deque()
        self._ring.append(event)
        self._ring_bytes += len(event.body)
        self._let_go()

    def recall(self, events: list[Event], after_seq: int, end_seq: int) -> None:
        """Take back all that came after `after_seq` up to `end_seq`, as far as it joins the ring and has room there."""
        if not after_seq < self.floor <= end_seq:
            return
        older = [event for event in events if event.seq <= self.floor]
        self._ring = deque((*older, *(self._ring or ())))
        self._ring_bytes += sum(len(event.body) for event in older)
        self.floor = after_seq
        self._let_go()

    def recent(self, after_seq: int) -> list[Event] | None:
        """Return the events after `after_seq`; None if the ring does not reach that far back."""
        if after_seq < self.floor:
            return None
        return [event for event in self._ring or () if event.seq > after_seq]

    def _let_go(self) -> None:
        while self._ring and (len(self._ring) > MAX_RING_EVENTS or self._ring_bytes > MAX_RING_BYTES):
            oldest = self._ring.popleft()
            self.floor, self._ring_bytes = oldest.seq, self._ring_bytes - len(oldest.body)
