"""A chain: what is stored, in order, out of live repeats that may be lost, doubled or turned around.

Pure: messages in, messages in order out. Somebody else reads what is missing. The rules, and why (ADR 0003):

* The live repeat of a stored message is at most once, so only the chain counts: a live message says which sequence came
  before it (`last_seq`). `last_seq > seq` means that something is missing; lower or equal means it is next. Lower is no
  gap: after a purge or an expiry there is simply less behind it. Only where messages may have been missed (`unsure`),
  they may be what was purged: then it waits, as if it were ahead of a gap, until the stream was asked.
* What is ahead of a gap waits, at most MAX_WAITING messages; the gap is filled from the stream (`filler.py`).
* A message at or below the cursor was seen already. If it is newer in time than what was seen, the stream has been made
  anew, and its numbers mean something else: `suspect_epoch` asks to look.
"""

from __future__ import annotations

from shared.broker.port import Message, Page
from shared.contracts.cursor import Position

MAX_WAITING = 1_000


class Chain:
    """The cursor of this edge on a subject, or on all that match a pattern.

    Attributes:
        seq: all up to here has been emitted, or was there before this edge listened.
        filling: a fill is under way; live messages wait for its end.
        unsure: what came after the cursor may have been missed, and dropped by the stream since: somebody must look.
        suspect_epoch: a live message contradicts what is known of the stream's life.
        was_live: a message came since somebody last set this to False.
    """

    __slots__ = (
        "_newest_ms",
        "_waiting",
        "epoch",
        "filling",
        "seq",
        "stream",
        "subject",
        "suspect_epoch",
        "unsure",
        "was_live",
    )

    def __init__(self, stream: str, subject: str, position: Position) -> None:
        self.stream, self.subject = stream, subject
        self.restart(position)

    def restart(self, position: Position) -> None:
        """Begin at `position`, with nothing remembered."""
        self.epoch, self.seq = position.epoch, position.seq
        self.filling = self.unsure = self.suspect_epoch = self.was_live = False
        self._newest_ms = 0
        self._waiting: dict[int, Message] | None = None

    @property
    def position(self) -> Position:
        """Where a reader stands that has received all that was emitted."""
        return Position(self.epoch, self.seq)

    @property
    def needs_fill(self) -> bool:
        """Whether something is missing that nobody fetches yet."""
        return bool(self._waiting) and not self.filling

    @property
    def gap_remains(self) -> bool:
        """Whether a live message still waits for one before it: the replica that was read is behind."""
        return self.first_waiting > 0

    @property
    def first_waiting(self) -> int:
        """The first live message that waits; 0 if none does."""
        return min((seq for seq in self._waiting or () if seq > self.seq), default=0)

    def receive(self, message: Message) -> list[Message]:
        """Take a live message; return what is in order now."""
        self.was_live = True
        if message.seq <= self.seq:
            self.suspect_epoch = self.suspect_epoch or message.time_ms > self._newest_ms > 0
            return []
        last_seq = message.last_seq
        if not self.filling and (last_seq == self.seq or (last_seq < self.seq and not self.unsure)):
            return [self._advance(message)]
        if self._waiting is None:
            self._waiting = {}
        if len(self._waiting) < MAX_WAITING:
            self._waiting[message.seq] = message
        return []

    def fill(self, page: Page) -> list[Message]:
        """Take what was read from the stream after the cursor; return what is in order now, live ones included."""
        ready = [self._advance(message) for message in self._with_waiting(page.messages) if message.seq > self.seq]
        if not page.more:
            ready += self._drain_waiting()
        return ready

    def skip(self) -> list[Message]:
        """Go on with the first that waits, since what is missing before it is in the stream no more."""
        self.skip_to(self.first_waiting - 1)
        return self._drain_waiting()

    def skip_to(self, seq: int) -> None:
        """Go on after `seq`: what is missing up to there is in the stream no more."""
        self.seq = max(self.seq, seq)

    # -- private ------------------------------------------------------------------------------------------------------

    def _advance(self, message: Message) -> Message:
        self.seq = message.seq
        self._newest_ms = max(self._newest_ms, message.time_ms)
        return message

    def _with_waiting(self, messages: list[Message]) -> list[Message]:
        """Return what was read with what waits among it: the stream may have dropped some of that meanwhile."""
        if not messages or not self._waiting:
            return messages
        reach = messages[-1].seq
        known = {seq: message for seq, message in self._waiting.items() if seq <= reach}
        known.update((message.seq, message) for message in messages)
        return [known[seq] for seq in sorted(known)]

    def _drain_waiting(self) -> list[Message]:
        """Return what waits and is in order now."""
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
