"""The checker, pure: records in, verdict out. What it holds the suite to:

* Every stored message of a room reaches each client that follows the room, over whatever connections: or the client is
  told of its loss (`gap` over a range that covers it, or `resync` after it was sent). Stored is what was acked to its
  sender, or seen by anybody.
* Nobody gets a message twice. There is no allowance: a client presents its cursor, so the edge knows what it has. Nor
  is a message stored twice that its sender repeated with the same id of its own.
* Within an epoch numbers rise for each client, and one number means the same message to all: all see one order.
* Nobody gets what they do not follow, or a private room's message without being a member.
* A revoked session gets nothing and has no connection once `REVOKED_WITHIN_S` have passed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.faults.record import ANY_EPOCH, Op, Record

REVOKED_WITHIN_S = 1.0
MAX_EXAMPLES = 5
_NS = 1_000_000_000

Place = tuple[str, int]
"""Epoch and sequence."""


@dataclass
class Verdict:
    """What the records prove.

    Attributes:
        live, replayed: deliveries of messages that were sent while the client was connected, and before.
        announced: messages that a client did not get and was told of.
        lost: messages that a client did not get, in silence.
        doubled: deliveries of what was delivered before, and messages that were stored twice.
        disordered: deliveries of what is older than what came before, and numbers that mean two messages.
        leaked: deliveries to who must not have them, revoked sessions included.
        examples: the first violations, in words.
    """

    acked: int = 0
    live: int = 0
    replayed: int = 0
    announced: int = 0
    lost: int = 0
    doubled: int = 0
    disordered: int = 0
    leaked: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether every promise was kept; an announced loss breaks none."""
        return not (self.lost or self.doubled or self.disordered or self.leaked)

    def blame(self, kind: str, what: str) -> None:
        """Count a violation of one kind, and keep it as an example if there are few."""
        setattr(self, kind, getattr(self, kind) + 1)
        if len(self.examples) < MAX_EXAMPLES:
            self.examples.append(f"{kind}: {what}")


def check(records: Sequence[Record]) -> Verdict:
    """Return what a run's records prove."""
    verdict = Verdict(acked=sum(record.op is Op.ACK for record in records))
    stored = _Stored(records, verdict)
    readers: dict[tuple[str, str], _Reader] = defaultdict(_Reader)
    members = _Members(records)
    for record in records:
        if record.op in _READER_OPS:
            if record.op is Op.GOT and not members.admit(record):
                verdict.blame("leaked", f"{record.client} got {record.id} of the private room {record.room}")
            readers[record.client, record.room].take(record, stored.place(record), verdict)
    for (client, room), reader in readers.items():
        reader.finish(client, stored.of_room[room], verdict)
    _check_revocations(records, verdict)
    return verdict


_READER_OPS = frozenset({Op.ENTER, Op.LEAVE, Op.GOT, Op.GAP, Op.RESYNC})


class _Stored:
    """What is known to be stored: for each room the places, each with its message's id and when it was sent.

    It was stored some time between that and the ack: who is told in between that something may be missing, was told.
    """

    def __init__(self, records: Sequence[Record], verdict: Verdict) -> None:
        self._places: dict[str, Place] = {}
        self._sent_ns: dict[str, int] = {}
        self.of_room: dict[str, dict[Place, tuple[str, int]]] = defaultdict(dict)
        for record in records:
            if record.op is Op.SEND:
                self._sent_ns[record.own_id] = record.at_ns
            if record.op is Op.ACK:
                self._places.setdefault(record.id, (record.epoch, record.seq))
        own: dict[tuple[str, str, str], Place] = {}
        for record in records:
            if record.op in (Op.ACK, Op.GOT):
                self._know(record, verdict)
            if record.op is Op.ACK and record.own_id:
                first = own.setdefault((record.client, record.room, record.own_id), (record.epoch, record.seq))
                if first != (record.epoch, record.seq):
                    verdict.blame(
                        "doubled", f"{record.own_id} of {record.client} is stored at {first} and {record.seq}"
                    )

    def place(self, record: Record) -> Place:
        """Return where a record's message is: as the client was told, or as the sender was."""
        return (record.epoch, record.seq) if record.seq else self._places.get(record.id, (record.epoch, 0))

    def _know(self, record: Record, verdict: Verdict) -> None:
        place = self.place(record)
        if not place[1]:
            return  # a notification whose producer never got an ack: it may come, and nobody is owed it
        sent_ns = self._sent_ns.get(record.own_id, record.at_ns)
        known, _ = self.of_room[record.room].setdefault(place, (record.id, sent_ns))
        if known != record.id:
            verdict.blame("disordered", f"{record.room} {place} is {known} and {record.id}")


class _Members:
    """Who may be in which private room, as of the record last asked about."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._changes = [record for record in records if record.op in (Op.ADMIT, Op.EXPEL)]
        self._private = {record.room for record in self._changes}
        self._until_ns: dict[tuple[str, str], float] = {}

    def admit(self, got: Record) -> bool:
        """Whether this delivery was rightful; ask in the order of time."""
        while self._changes and self._changes[0].at_ns <= got.at_ns:
            change = self._changes.pop(0)
            until = float("inf") if change.op is Op.ADMIT else change.at_ns + REVOKED_WITHIN_S * _NS
            self._until_ns[change.client, change.room] = until
        return got.room not in self._private or got.at_ns <= self._until_ns.get((got.client, got.room), 0)


@dataclass
class _Stay:
    """One time of following a room: from after a place, to the last place that came before leaving."""

    start: Place
    since_ns: int
    end: Place | None = None

    def owes(self, place: Place, sent_ns: int) -> bool:
        """Whether the message at `place` was to be delivered in this stay."""
        if self.end is not None and (place[0] != self.end[0] or place[1] > self.end[1]):
            return False
        return place[1] > self.start[1] if place[0] == self.start[0] else sent_ns > self.since_ns


class _Reader:
    """What one client was given of one room."""

    def __init__(self) -> None:
        self._stays: list[_Stay] = []
        self._here: Place | None = None
        self._seen: set[Place] = set()
        self._gaps: list[tuple[str, int, int]] = []
        self._told: list[tuple[int, Place | None]] = []

    def take(self, record: Record, place: Place, verdict: Verdict) -> None:
        """Go on with one record; `place` is where its message is."""
        match record.op:
            case Op.ENTER:
                self._here = place
                self._stays.append(_Stay(place, record.at_ns))
            case Op.LEAVE if self._stays:
                self._stays[-1].end = self._here or self._stays[-1].start
            case Op.GOT:
                self._got(record, place, verdict)
            case Op.GAP:
                self._gaps.append((record.epoch, record.start, record.seq))
            case Op.RESYNC:
                self._told.append((record.at_ns, self._here))

    def finish(self, client: str, stored: dict[Place, tuple[str, int]], verdict: Verdict) -> None:
        """Say what is missing."""
        for place, (message, sent_ns) in stored.items():
            if place in self._seen or not any(stay.owes(place, sent_ns) for stay in self._stays):
                continue
            if self._was_told(place, sent_ns):
                verdict.announced += 1
            else:
                verdict.blame("lost", f"{client} never got {message} at {place}")

    def _was_told(self, place: Place, sent_ns: int) -> bool:
        """Whether a gap or a resync covers a place; no resync makes up for what had been skipped in silence by then."""
        return any(
            epoch in (place[0], ANY_EPOCH) and start < place[1] <= end for epoch, start, end in self._gaps
        ) or any(
            sent_ns <= told_ns and not (here is not None and place[0] == here[0] and place[1] < here[1])
            for told_ns, here in self._told
        )

    def _got(self, record: Record, place: Place, verdict: Verdict) -> None:
        verdict.replayed += record.replayed
        verdict.live += not record.replayed
        what = f"{record.client} got {record.id} at {place} of {record.room}"
        if not self._stays or self._stays[-1].end is not None:
            verdict.blame("leaked", f"{what}, which it does not follow")
        elif place in self._seen:
            verdict.blame("doubled", what)
        elif place[1] and self._here is not None and place[0] == self._here[0] and place[1] <= self._here[1]:
            verdict.blame("disordered", f"{what} after {self._here}")
        else:
            self._here = place if place[1] else self._here
        if place[1]:
            self._seen.add(place)


def _check_revocations(records: Sequence[Record], verdict: Verdict) -> None:
    """Blame each revoked session that gets or has anything after its time."""
    ends_ns = {record.client: record.at_ns + REVOKED_WITHIN_S * _NS for record in records if record.op is Op.REVOKE}
    open_: set[str] = set()
    for record in records:
        late = record.client in ends_ns and record.at_ns > ends_ns[record.client]
        if record.op is Op.OPEN:
            open_.add(record.client)
        elif record.op is Op.CLOSE:
            if late and record.client in open_:
                verdict.blame("leaked", f"{record.client} was closed {_late_s(record, ends_ns):.1f} s too late")
            open_.discard(record.client)
        if late and record.op in (Op.OPEN, Op.GOT):
            verdict.blame("leaked", f"{record.client}: {record.op} {_late_s(record, ends_ns):.1f} s after its end")
    for client in sorted(open_ & set(ends_ns)):
        verdict.blame("leaked", f"{client} was revoked and is still connected")


def _late_s(record: Record, ends_ns: dict[str, float]) -> float:
    return (record.at_ns - ends_ns[record.client]) / _NS
