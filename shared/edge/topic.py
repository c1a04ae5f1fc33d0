"""A topic: one stored subject with local listeners, and the cursor that misses nothing of it.

Pure: messages in, messages in order out. The hub does the reading. The rules, and why (ADR 0003):

* The live repeat of a stored message is at most once, so a topic trusts only the chain: a live message says which
  sequence came before it on the subject (`last_seq`). `last_seq > seq` means that something is missing; lower or equal
  means it is next. Lower is no gap: after a purge or an expiry there is simply less behind it.
* What is ahead of a gap waits, at most MAX_WAITING messages; the hub fills the gap from the stream.
* A message at or below the cursor was seen already. If it is newer in time than what was seen, the stream has been made
  anew, and its numbers mean something else: `suspect_epoch` asks the hub to look.
"""

from __future__ import annotations

from collections import deque

from shared.broker.port import Message, Page
from shared.contracts.cursor import Position
from shared.edge.event import Event
from shared.edge.listener import Listener

MAX_RING_EVENTS = 256
MAX_RING_BYTES = 256 * 1024
MAX_WAITING = 1_000


class Topic:
    """The state of one subject at this edge.

    Attributes:
        seq: all of the subject up to here has been emitted, or was there before this edge listened.
        filling: a fill is under way; live messages wait for its end.
        suspect_epoch: a live message contradicts what is known of the stream's life.
        idle_since_s: when the last listener left, on the monotonic clock; None while there is one.
    """

    __slots__ = (
        "_floor",
        "_newest_ms",
        "_ring",
        "_ring_bytes",
        "_waiting",
        "epoch",
        "filling",
        "idle_since_s",
        "listeners",
        "seq",
        "stream",
        "subject",
        "suspect_epoch",
        "was_live",
    )

    def __init__(self, stream: str, subject: str, position: Position) -> None:
        self.stream, self.subject = stream, subject
        self.listeners: dict[Listener, None] = {}
        self.idle_since_s: float | None = None
        self.restart(position)

    def restart(self, position: Position) -> None:
        """Begin at `position`, with nothing remembered."""
        self.epoch, self.seq = position.epoch, position.seq
        self.filling = self.suspect_epoch = self.was_live = False
        self._newest_ms = 0
        self._floor = position.seq
        # Most topics are quiet, and there is one for each user: what only traffic needs is made when it comes.
        self._ring: deque[Event] | None = None
        self._ring_bytes = 0
        self._waiting: dict[int, Message] | None = None

    @property
    def position(self) -> Position:
        """Where a reader stands that has received all that was emitted."""
        return Position(self.epoch, self.seq)

    @property
    def needs_fill(self) -> bool:
        """Whether something is missing that nobody fetches yet."""
        return bool(self._waiting) and not self.filling

    def receive(self, message: Message) -> list[Message]:
        """Take a live message; return what is in order now."""
        self.was_live = True
        if message.seq <= self.seq:
            self.suspect_epoch = self.suspect_epoch or message.time_ms > self._newest_ms > 0
            return []
        if not self.filling and message.last_seq <= self.seq:
            return [self._advance(message)]
        if self._waiting is None:
            self._waiting = {}
        if len(self._waiting) < MAX_WAITING:
            self._waiting[message.seq] = message
        return []

    def fill(self, page: Page) -> list[Message]:
        """Take what was read from the stream after the cursor; return what is in order now, live ones included."""
        ready = [self._advance(message) for message in page.messages if message.seq > self.seq]
        if not page.more:
            ready += self._drain_waiting()
        return ready

    @property
    def gap_remains(self) -> bool:
        """Whether a live message still waits for one before it: the replica that was read is behind."""
        return any(seq > self.seq for seq in self._waiting or ())

    # -- the ring of recent events ------------------------------------------------------------------------------------

    def remember(self, event: Event) -> None:
        """Keep an emitted event for hot replay."""
        if self._ring is None:
            self._ring = deque()
        self._ring.append(event)
        self._ring_bytes += len(event.body)
        while len(self._ring) > MAX_RING_EVENTS or self._ring_bytes > MAX_RING_BYTES:
            oldest = self._ring.popleft()
            self._floor, self._ring_bytes = oldest.seq, self._ring_bytes - len(oldest.body)

    def recent(self, after_seq: int) -> list[Event] | None:
        """Return the events after `after_seq`; None if the ring does not reach that far back."""
        if after_seq < self._floor:
            return None
        return [event for event in self._ring or () if event.seq > after_seq]

    # -- private ------------------------------------------------------------------------------------------------------

    def _advance(self, message: Message) -> Message:
        self.seq = message.seq
        self._newest_ms = max(self._newest_ms, message.time_ms)
        return message

    def _drain_waiting(self) -> list[Message]:
        ready: list[Message] = []
        waiting = self._waiting or {}
        for seq in sorted(waiting):
            message = waiting[seq]
            if seq > self.seq and message.last_seq > self.seq:
                break
            del waiting[seq]
            if seq > self.seq:
                ready.append(self._advance(message))
        return ready
