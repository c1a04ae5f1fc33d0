"""What happened, as the clients saw it: one flat record for each event, in the order in which it was noted."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

NO_EPOCH = ""
"""Of a place that the client was not told in numbers: SSE cursors are opaque, so the sender's ack says which it is."""
ANY_EPOCH = "*"
"""Of a place that was told without its epoch; as where somebody enters it means: now."""


class Op(StrEnum):
    """What can happen. The fields beside each are those of `Record` that it fills."""

    SEND = "send"  # client, room, id (the client's own)
    ACK = "ack"  # client, room, id (the server's), epoch, seq, own_id: stored, says the server
    OPEN = "open"  # client, connection: the server said `connected`
    CLOSE = "close"  # client, connection, code
    ENTER = "enter"  # client, room, epoch, seq: follows a room from after this place
    LEAVE = "leave"  # client, room: does not any more
    GOT = "got"  # client, connection, room, id, epoch, seq, replayed
    GAP = "gap"  # client, room, epoch, start, seq: told that what lies in (start, seq] may be missing
    RESYNC = "resync"  # client, room: told that what came before may be missing
    ADMIT = "admit"  # client, room: may be in this private room
    EXPEL = "expel"  # client, room: may not any more
    REVOKE = "revoke"  # client: its session ends now


@dataclass(frozen=True, slots=True)
class Record:
    """One thing that happened to one client; see Op for which fields mean something.

    Attributes:
        at_ns: on the monotonic clock of the process that records.
        connection: counts the client's connections.
        replayed: the message is older than the connection that it came over.
    """

    at_ns: int
    op: Op
    client: str
    room: str = ""
    id: str = ""
    epoch: str = NO_EPOCH
    seq: int = 0
    start: int = 0
    own_id: str = ""
    connection: int = 0
    code: int = 0
    replayed: bool = False


class Recorder:
    """Keeps the records of one run.

    Attributes:
        records: all of them, in order.
        acked: the place of what was acked, by its sender's own id.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.acked: dict[str, tuple[str, int]] = {}

    def note(self, op: Op, client: str, **facts: Any) -> None:
        """Keep one record, of now."""
        record = Record(time.monotonic_ns(), op, client, **facts)
        self.records.append(record)
        if op is Op.ACK:
            self.acked[record.own_id] = (record.epoch, record.seq)

    def write(self, path: Path) -> None:
        """Write all as lines of JSON, for a person who wants to see what happened."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as file:
            for record in self.records:
                file.write(json.dumps(asdict(record)) + "\n")
