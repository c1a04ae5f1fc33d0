"""Buckets of keys over JetStream streams that keep the last message of each subject.

A key that is gone leaves a marker for a while: a message without data, made by `delete` or, when a key's time is
over, by the server. A marker reads as "there is no such key", and a key can be created over it.
"""

from __future__ import annotations

from shared.broker import jetstream_wire as wire
from shared.broker.jetstream_log import JetStreamLog
from shared.broker.port import Entry
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.contracts.streams import BUCKETS
from shared.errors import Conflict

WRITE_DEADLINE_S = 10.0
"""How long a write is repeated: a new leader takes 4 to 7 s."""

_TRIES = 3


class JetStreamKeys:
    """Keys, by way of the log that holds them."""

    def __init__(self, log: JetStreamLog) -> None:
        self._log = log

    async def get(self, bucket: str, *tokens: str) -> Entry | None:
        """Return a key's value, read from the leader; None if it is not there."""
        last = await self._log.last(subjects.bucket_stream(bucket), subjects.bucket_key(bucket, *tokens))
        return Entry(last.data, last.seq) if last is not None and not last.gone else None

    async def put(self, bucket: str, *tokens: str, value: bytes, expect: int | None, ttl_s: int | None) -> int:
        """Set a key and return its revision.

        Raises:
            Conflict: `expect` does not hold. A key whose marker is still there does not exist: 0 holds for it.
        """
        headers = {wire.TTL: str(ttl_s)} if ttl_s is not None else {}
        msg_id, revision = new_id(), expect
        for _ in range(_TRIES):
            try:
                return await self._write(subjects.bucket_key(bucket, *tokens), value, headers, revision, msg_id)
            except Conflict:
                last = await self._log.last(subjects.bucket_stream(bucket), subjects.bucket_key(bucket, *tokens))
                if last is not None and last.headers.get(wire.MSG_ID) == msg_id:
                    return last.seq  # ours: it was stored, the answer was lost, and the repeat was refused
                if expect != 0 or (last is not None and not last.gone):
                    raise
                revision = last.seq if last is not None else 0
        raise Conflict("the key keeps changing")

    async def delete(self, bucket: str, *tokens: str, expect: int | None) -> None:
        """Replace a key by a marker that goes by itself.

        Raises:
            Conflict: `expect` does not hold.
        """
        entry = await self.get(bucket, *tokens)
        if expect not in {None, entry.revision if entry else 0}:
            raise Conflict("the key has changed")
        if entry is None:
            return
        # PURGE, not DEL: when a DEL marker's time is over the server announces the key as gone a second time.
        headers = {wire.OPERATION: "PURGE", wire.TTL: str(_marker_ttl_s(bucket))}
        await self._write(subjects.bucket_key(bucket, *tokens), b"", headers, expect, new_id())

    async def _write(self, subject: str, value: bytes, headers: dict[str, str], expect: int | None, msg_id: str) -> int:
        if expect is not None:
            headers = headers | {wire.EXPECT_SEQ: str(expect)}
        stored = await self._log.store(subject, value, headers, msg_id=msg_id, deadline_s=WRITE_DEADLINE_S)
        return stored.seq


def _marker_ttl_s(bucket: str) -> int:
    return next(spec.marker_ttl_s for spec in BUCKETS if spec.name == bucket)
