"""A line: a stream that this edge reads whole, in the stream's order, and what it has read of late. Pure.

A stream numbers what it stores without a hole, so the message before number n is number n-1, whatever its subject. All
of the stream up to the line's cursor has been handed over: one number is the place of every client (ADR 0015).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from shared.broker.port import Message
from shared.contracts.cursor import Position
from shared.edge.continuity.chain import Chain
from shared.edge.delivery.event import Event

MAX_RING_MESSAGES = 1_000
MAX_RING_BYTES = 1 << 20


class Kept:
    """A message that was in order; `event` is what it became, None until somebody here is told of it."""

    __slots__ = ("event", "message")

    def __init__(self, message: Message) -> None:
        self.message = message
        self.event: Event | None = None


class Line(Chain):
    """The chain of a whole stream, and the ring of its recent messages."""

    __slots__ = ("_cursor", "_floor", "_remembered", "_ring", "_ring_bytes")

    def restart(self, position: Position) -> None:
        """Begin at `position`, with nothing remembered."""
        super().restart(position)
        self._floor = self._remembered = position.seq
        self._ring: deque[Kept] = deque()
        self._ring_bytes = 0
        self._cursor = ""

    @property
    def cursor(self) -> str:
        """The cursor's text, one object for all clients that stand here."""
        if not self._cursor:
            self._cursor = str(self.position)
        return self._cursor

    def receive(self, message: Message) -> list[Message]:
        """Take a live message; return what is in order now."""
        message.last_seq = message.seq - 1
        return super().receive(message)

    def remember(self, message: Message) -> Kept:
        """Keep a message that is in order for hot replay."""
        self._cursor = ""
        if message.seq > self._remembered + 1:  # whoever was before that must ask the stream what it has dropped
            self._ring.clear()
            self._ring_bytes, self._floor = 0, message.seq - 1
        self._remembered = message.seq
        kept = Kept(message)
        self._ring.append(kept)
        self._ring_bytes += len(message.data)
        while len(self._ring) > MAX_RING_MESSAGES or self._ring_bytes > MAX_RING_BYTES:
            oldest = self._ring.popleft().message
            self._floor, self._ring_bytes = oldest.seq, self._ring_bytes - len(oldest.data)
        return kept

    def hole(self, messages: list[Message]) -> tuple[int, int] | None:
        """Return what is missing before and among `messages` in order, from after the first number to the second.

        The stream has it no more: its limits, or an operator, took it before this edge had read it.
        """
        before, start, end = self._remembered, -1, -1
        for message in messages:
            if message.seq > before + 1:
                start, end = before if start < 0 else start, message.seq - 1
            before = message.seq
        return None if start < 0 else (start, end)

    def recent(self, after_seq: int) -> list[Kept] | None:
        """Return what came after `after_seq`, in order; None if the ring does not reach that far back."""
        if after_seq < self._floor:
            return None
        found = list(self._back_to(after_seq))
        found.reverse()
        return found

    def _back_to(self, seq: int) -> Iterator[Kept]:
        for kept in reversed(self._ring):
            if kept.message.seq <= seq:
                return
            yield kept
