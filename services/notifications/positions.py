"""Where one stream stands on each subject that it follows, and the cursor that says so."""

from __future__ import annotations

from shared.contracts.cursor import Position, Vector, tag
from shared.errors import BadInput


class Positions:
    """A client's places in the stream NOTIFY: its own subject first, its topics by tag (ADR 0005)."""

    def __init__(self, own: str, topics: dict[str, str]) -> None:
        self._own = own
        self._tags = {subject: tag(topic) for topic, subject in topics.items()}
        self._epoch = ""
        self._seqs: dict[str, int] = dict.fromkeys([own, *self._tags], 0)

    def start(self, presented: Vector | None, here: dict[str, Position]) -> dict[str, Position]:
        """Return where to read each subject from: where the client was, or where the subject is now.

        A subject that the client's cursor does not name is new to it, and starts now.
        """
        self._epoch = here[self._own].epoch
        starts = dict(here)
        if presented is not None:
            starts[self._own] = Position(presented.epoch, presented.seq)
            for subject, name in self._tags.items():
                if name in presented.others:
                    starts[subject] = Position(presented.epoch, presented.others[name])
        # A place of another epoch is announced as lost; the cursor goes on from now. One that is ahead of this edge
        # may be right: the client comes from a faster one.
        self._seqs = {
            subject: place.seq if place.epoch == self._epoch else here[subject].seq for subject, place in starts.items()
        }
        return starts

    def move(self, subject: str, seq: int) -> str:
        """Note that all of `subject` up to `seq` was handed over; return the cursor."""
        self._seqs[subject] = seq
        return self.cursor

    def restart(self, subject: str, position: Position) -> None:
        """Go on from `position`; in a stream that was made anew, the other subjects' old places mean nothing."""
        if position.epoch != self._epoch:
            self._epoch = position.epoch
            self._seqs = dict.fromkeys(self._seqs, 0)
        self._seqs[subject] = position.seq

    @property
    def cursor(self) -> str:
        """The cursor that a client presents to go on from here, at any edge; empty before the start.

        Two topics may share a tag (`plumless` and `buckeroo` do): then the place behind both, so that none is lost.
        """
        if not self._epoch:
            return ""
        others: dict[str, int] = {}
        for subject, name in self._tags.items():
            others[name] = min(self._seqs[subject], others.get(name, self._seqs[subject]))
        return str(Vector(self._epoch, self._seqs[self._own], others))


def parse_cursor(text: str | None) -> tuple[Vector | None, bool]:
    """Return a client's cursor, and whether it was readable; it comes from outside, so it may be anything."""
    if not text:
        return None, True
    try:
        return Vector.parse(text), True
    except BadInput:
        return None, False
