"""What several `MemoryBroker`s share: subjects, streams and keys inside one process, with the rules of JetStream.

It forgets everything with the process, and keeps two of a stream's limits, `max_per_subject` and
`max_message_bytes`; age and total size are JetStream's business.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from shared.broker.port import NO_HEADERS, Appended, Message, StreamState
from shared.clock import Clock, monotonic_s, now_ms
from shared.contracts import subjects
from shared.contracts.cursor import base36
from shared.contracts.streams import BUCKETS, STREAMS, BucketSpec, StreamSpec
from shared.errors import Conflict, NotFound, TooLarge

GONE_HEADERS = {"Nats-Marker-Reason": "MaxAge"}
MSG_ID = "Nats-Msg-Id"

SPECS: tuple[StreamSpec | BucketSpec, ...] = (*STREAMS, *BUCKETS)

Deliver = Callable[[Message], None]


@dataclass(slots=True)
class Interest:
    """One subscription."""

    pattern: str
    deliver: Deliver
    active: bool = True


@dataclass(slots=True)
class Stream:
    """One life of a stream."""

    name: str
    patterns: tuple[str, ...]
    epoch: str
    max_per_subject: int
    max_message_bytes: int
    window_s: float
    republish: bool
    marker_ttl_s: float = 0
    last_seq: int = 0
    by_subject: dict[str, list[Message]] = field(default_factory=dict)
    ids: dict[str, tuple[int, float]] = field(default_factory=dict)

    def last(self, subject: str) -> Message | None:
        """Return the last message of a subject or pattern."""
        messages = self.find(subject)
        return messages[-1] if messages else None

    def find(self, pattern: str, after_seq: int = 0) -> list[Message]:
        """Return the messages of a subject or pattern in order."""
        if "*" in pattern or ">" in pattern:
            kept = [messages for subject, messages in self.by_subject.items() if matches(pattern, subject)]
        else:
            kept = [self.by_subject.get(pattern, [])]
        found = (message for messages in kept for message in messages if message.seq > after_seq)
        return sorted(found, key=lambda message: message.seq)

    def known(self, msg_id: str, now_s: float) -> int | None:
        """Return the sequence of a message with this id within the window."""
        seq, stored_s = self.ids.get(msg_id, (0, 0.0))
        return seq if seq and now_s - stored_s < self.window_s else None


class MemoryServer:
    """Where brokers of one process meet, as edges meet in NATS.

    Time to live runs by `clock`. With the real clock keys expire by themselves; a test that turns its own clock sees
    the expiry at the next operation.
    """

    def __init__(self, *, clock: Clock = monotonic_s) -> None:
        self.up = True
        self.clock = clock
        self.disconnected: list[Callable[[], None]] = []
        self.reconnected: list[Callable[[], None]] = []
        self._wall_ms = now_ms() - int(clock() * 1000)
        self._interests: list[Interest] = []
        self._streams: dict[str, Stream] = {}
        self._expiries: list[tuple[float, str, str, int]] = []
        self._lives = 0
        self._counters: dict[str, int] = {}
        for spec in SPECS:
            self._make(spec)

    # -- what tests do to it --------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Be away, as a broker that restarts is; what is stored stays. Every broker's `on_disconnect` callbacks run."""
        self.up = False
        for callback in self.disconnected:
            callback()

    def start(self) -> None:
        """Be back; every broker's `on_reconnect` callbacks run."""
        self.up = True
        for callback in self.reconnected:
            asyncio.get_running_loop().call_soon(callback)

    def purge(self, name: str, subject: str) -> None:
        """Drop what a stream holds of a subject, as an operator does."""
        self._streams[name].by_subject.pop(subject, None)

    def recreate(self, name: str) -> None:
        """Begin a new life of a stream: it is empty, its sequences start at 1, its epoch differs."""
        self._make(next(spec for spec in SPECS if _stream_name(spec) == name))

    # -- subjects -------------------------------------------------------------------------------------------------

    def add(self, pattern: str, deliver: Deliver) -> Interest:
        """Deliver what matches from now on."""
        interest = Interest(pattern, deliver)
        self._interests.append(interest)
        return interest

    def remove(self, interest: Interest) -> None:
        """Stop at once, also what is on its way."""
        interest.active = False
        if interest in self._interests:
            self._interests.remove(interest)

    def send(self, message: Message) -> int:
        """Deliver to all who listen, in order and soon, and return how many they are."""
        matching = [interest for interest in self._interests if matches(interest.pattern, message.subject)]
        for interest in matching:
            asyncio.get_running_loop().call_soon(_deliver, interest, replace(message))
        return len(matching)

    # -- streams --------------------------------------------------------------------------------------------------

    def stream(self, name: str) -> Stream:
        """Return a stream with what has expired already gone. Raises NotFound."""
        self._expire_due()
        if name not in self._streams:
            raise NotFound(f"stream {name}: stream not found")
        return self._streams[name]

    def stream_of(self, subject: str) -> Stream | None:
        """Return the stream that keeps this subject."""
        self._expire_due()
        for stream in self._streams.values():
            if any(matches(pattern, subject) for pattern in stream.patterns):
                return stream
        return None

    def store(
        self, stream: Stream, subject: str, data: bytes, headers: Mapping[str, str], *, msg_id: str | None = None
    ) -> Appended:
        """Store, once for its `msg_id`, and repeat it on `live.…`. Raises TooLarge."""
        now_s = self.clock()
        self.send(Message(subject, data, headers))
        if msg_id is not None and (known := stream.known(msg_id, now_s)):
            return Appended(known, duplicate=True)
        if len(data) + sum(len(name) + len(value) for name, value in headers.items()) > stream.max_message_bytes:
            raise TooLarge("message", stream.max_message_bytes)
        before = stream.last(subject)
        stream.last_seq += 1
        gone = stream.marker_ttl_s > 0 and headers.items() >= GONE_HEADERS.items()
        message = Message(subject, data, dict(headers), stream.last_seq, 0, self._wall_ms + int(now_s * 1000), gone)
        kept = stream.by_subject.setdefault(subject, [])
        kept.append(message)
        del kept[: -stream.max_per_subject]
        if msg_id is not None:
            stream.ids[msg_id] = (message.seq, now_s)
        if stream.republish:
            self.send(replace(message, subject=_live(subject), last_seq=before.seq if before else 0))
        return Appended(message.seq, duplicate=False)

    def state(self, name: str) -> StreamState:
        """Return a stream's state."""
        stream = self.stream(name)
        kept = [message.seq for messages in stream.by_subject.values() for message in messages]
        first = min(kept, default=stream.last_seq + 1)
        return StreamState(stream.epoch, first, stream.last_seq, stream.last_seq - first + 1 - len(kept))

    def count(self, subject: str, by: int) -> int:
        """Add to a counter."""
        self._counters[subject] = self._counters.get(subject, 0) + by
        return self._counters[subject]

    # -- keys -----------------------------------------------------------------------------------------------------

    def key(self, bucket: str, subject: str) -> Message | None:
        """Return a key that is there."""
        last = self.stream(subjects.bucket_stream(bucket)).last(subject)
        return None if last is None or last.gone else last

    def put(self, bucket: str, subject: str, value: bytes, expect: int | None, ttl_s: int | None) -> int:
        """Set a key. Raises Conflict."""
        self._require_revision(bucket, subject, expect)
        stream = self.stream(subjects.bucket_stream(bucket))
        seq = self.store(stream, subject, value, NO_HEADERS).seq
        if ttl_s is not None:
            self._expire_later(stream, subject, seq, ttl_s)
        return seq

    def delete(self, bucket: str, subject: str, expect: int | None) -> None:
        """Replace a key by a marker. Raises Conflict."""
        self._require_revision(bucket, subject, expect)
        if self.key(bucket, subject) is not None:
            self._mark(self.stream(subjects.bucket_stream(bucket)), subject)

    # -- private --------------------------------------------------------------------------------------------------

    def _make(self, spec: StreamSpec | BucketSpec) -> None:
        self._lives += 1
        epoch = base36(now_ms() + self._lives)
        name = _stream_name(spec)
        if isinstance(spec, BucketSpec):
            patterns = (subjects.bucket_keys(spec.name),)
            stream = Stream(name, patterns, epoch, 1, 64 * 1024, 120, republish=True, marker_ttl_s=spec.marker_ttl_s)
        else:
            window_s, kept = spec.dedupe_window_s, spec.max_per_subject
            stream = Stream(name, spec.subjects, epoch, kept, spec.max_message_bytes, window_s, spec.republish)
        self._streams[name] = stream

    def _require_revision(self, bucket: str, subject: str, expect: int | None) -> None:
        entry = self.key(bucket, subject)
        if expect not in {None, entry.seq if entry else 0}:
            raise Conflict("the key has changed")

    def _mark(self, stream: Stream, subject: str) -> None:
        seq = self.store(stream, subject, b"", GONE_HEADERS).seq
        self._expire_later(stream, subject, seq, stream.marker_ttl_s)

    def _expire_later(self, stream: Stream, subject: str, seq: int, ttl_s: float) -> None:
        heapq.heappush(self._expiries, (self.clock() + ttl_s, stream.name, subject, seq))
        # A hair late, so that the clock has surely passed the moment.
        asyncio.get_running_loop().call_later(ttl_s + 0.002, self._expire_due)

    def _expire_due(self) -> None:
        while self._expiries and self._expiries[0][0] <= self.clock():
            _, name, subject, seq = heapq.heappop(self._expiries)
            stream = self._streams[name]
            last = stream.last(subject)
            if last is None or last.seq != seq:
                continue
            if last.gone:
                del stream.by_subject[subject]
            else:
                self._mark(stream, subject)


def matches(pattern: str, subject: str) -> bool:
    """Say whether a subject falls under a pattern: `*` is any one token, a last `>` any one or more."""
    wanted, tokens = pattern.split("."), subject.split(".")
    if wanted[-1] == ">":
        return len(tokens) >= len(wanted) and _equal(wanted[:-1], tokens)
    return len(wanted) == len(tokens) and _equal(wanted, tokens)


def _equal(wanted: Iterable[str], tokens: Iterable[str]) -> bool:
    return all(want in {"*", token} for want, token in zip(wanted, tokens, strict=False))


def _deliver(interest: Interest, message: Message) -> None:
    if interest.active:
        interest.deliver(message)


def _live(subject: str) -> str:
    if subject.startswith(subjects.KEYS):
        return subjects.LIVE_KEYS + subject.removeprefix(subjects.KEYS)
    return subjects.live(subject)


def _stream_name(spec: StreamSpec | BucketSpec) -> str:
    return subjects.bucket_stream(spec.name) if isinstance(spec, BucketSpec) else spec.name
