"""NATS headers: written in one pass, and read off the wire without parsing more than somebody asks for.

A publisher may send headers that look like the server's own (`Nats-Sequence: 999`). The server appends its own after
them, so only the **last** occurrence counts, here and in `WireHeaders`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import lru_cache

from shared.broker.port import NO_HEADERS, Message
from shared.contracts import subjects
from shared.errors import BadInput

MSG_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"
EXPECT_SEQ = "Nats-Expected-Last-Subject-Sequence"
INCREMENT = "Nats-Incr"
OPERATION = "KV-Operation"
SERVICE_ERROR = "Nats-Service-Error"
SERVICE_ERROR_CODE = "Nats-Service-Error-Code"

_VERSION_LENGTH = len(b"NATS/1.0")
_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # a token of RFC 9110 section 5.6.2, as servers want it
_LINE_BREAKS = str.maketrans("\r\n", "  ")


def _field(name: str) -> bytes:
    return f"\r\n{name}: ".encode()


_SEQUENCE = _field("Nats-Sequence")
_LAST_SEQUENCE = _field("Nats-Last-Sequence")
_TIME = _field("Nats-Time-Stamp")
_SUBJECT = _field("Nats-Subject")
_PENDING = _field("Nats-Num-Pending")
_UP_TO = _field("Nats-UpTo-Sequence")
_PLACE = re.compile(rb"\r\nNats-Sequence: (\d+)\r\nNats-Time-Stamp: ([^\r]+)\r\nNats-Last-Sequence: (\d+)\r\n")
"""What the server appends to a message that it repeats. One match costs half of three searches, and this is the path
of every message to every edge. In another order they are searched one by one."""

_OPERATION = _field(OPERATION)
_MARKER = _field("Nats-Marker-Reason")
_LIVE_KEYS = subjects.LIVE_KEYS.encode()
_KEYS = subjects.KEYS.encode()


class WireHeaders(Mapping[str, str]):
    """Headers of one message, parsed the first time that somebody looks. Of equal names the last wins."""

    __slots__ = ("_parsed", "_raw")

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self._parsed: dict[str, str] | None = None

    def __getitem__(self, name: str) -> str:
        return self._dict()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._dict())

    def __len__(self) -> int:
        return len(self._dict())

    def __repr__(self) -> str:
        return f"WireHeaders({self._dict()!r})"

    def _dict(self) -> dict[str, str]:
        if self._parsed is None:
            self._parsed = parse_headers(self._raw)
        return self._parsed


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return the block of these headers; a line break in a value becomes a space, so that no value adds a header.

    Raises:
        BadInput: a name is not one.
    """
    block = "NATS/1.0\r\n"
    for name, value in headers.items():
        harmless = value if value.isprintable() else value.translate(_LINE_BREAKS)
        block += f"{_require_name(name)}: {harmless.strip()}\r\n"
    return (block + "\r\n").encode()


def parse_headers(raw: bytes) -> dict[str, str]:
    """Return the headers of a block `NATS/1.0[ status]\\r\\n(name: value\\r\\n)*\\r\\n`, read as nats-py reads them.

    What is not a header (no colon, a name that is not ASCII or holds white space) is left out, never an error.
    """
    headers: dict[str, str] = {}
    for line in raw.split(b"\r\n")[1:]:
        name, colon, value = line.partition(b":")
        key = name.strip().decode("latin-1")
        if colon and key.isascii() and not any(map(str.isspace, key)):
            headers[key] = value.strip().decode("utf-8", "replace")
    return headers


def status(raw: bytes | None) -> int:
    """Return the status in the first line of a reply that the server itself made; 0 if there is none."""
    if not raw or raw[_VERSION_LENGTH : _VERSION_LENGTH + 1] != b" ":
        return 0
    digits = raw[_VERSION_LENGTH + 1 : _VERSION_LENGTH + 4]
    return int(digits) if digits.isdigit() else 0


def pending(raw: bytes) -> int:
    """Return how many messages a batch has left behind."""
    return _number(raw, _PENDING)


def up_to(raw: bytes) -> int:
    """Return the sequence up to which a `multi_last` read looked; the next page must stop there too."""
    return _number(raw, _UP_TO)


def plain_message(subject: bytes, data: bytes, raw: bytes | None) -> Message:
    """Return a message that no stream repeated: whatever its headers claim, it has no sequence."""
    return Message(subject.decode(), data, WireHeaders(raw) if raw else NO_HEADERS)


def live_message(subject: bytes, data: bytes, raw: bytes | None) -> Message:
    """Return a message that a stream has repeated on `live.…`, with its place in the stream."""
    if raw is None:
        return plain_message(subject, data, raw)
    place = _PLACE.match(raw, raw.rfind(_SEQUENCE))
    seq, stamp, last_seq = (
        place.groups() if place else [_last(raw, name) for name in (_SEQUENCE, _TIME, _LAST_SEQUENCE)]
    )
    gone = subject.startswith(_LIVE_KEYS) and _is_marker(raw)
    return Message(subject.decode(), data, WireHeaders(raw), int(seq or 0), int(last_seq or 0), time_ms(stamp), gone)


def read_message(data: bytes, raw: bytes) -> Message:
    """Return a message as a direct get gives it. `last_seq` is the one before it in the same batch."""
    subject = _last(raw, _SUBJECT)
    return Message(
        subject.decode(),
        data,
        WireHeaders(raw),
        _number(raw, _SEQUENCE),
        _number(raw, _LAST_SEQUENCE),
        time_ms(_last(raw, _TIME)),
        subject.startswith(_KEYS) and _is_marker(raw),
    )


def leader_message(subject: str, data: bytes, raw: bytes, seq: int, time: str) -> Message:
    """Return a message as the leader's `STREAM.MSG.GET` gives it."""
    gone = subject.startswith(subjects.KEYS) and _is_marker(raw)
    return Message(subject, data, WireHeaders(raw), seq, 0, time_ms(time.encode()), gone)


def time_ms(stamp: bytes) -> int:
    """Return the server's time, RFC 3339 in UTC with up to nine decimals, in milliseconds; 0 for an empty one."""
    if not stamp:
        return 0
    return _second_ms(stamp[:19]) + int((stamp[20:-1] + b"000")[:3])


# -- private ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _require_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise BadInput(f"header name {name!r}")
    return name


@lru_cache(maxsize=16)
def _second_ms(stamp: bytes) -> int:
    """Return a whole second; most messages come in the second of the one before."""
    return int(datetime.fromisoformat(stamp.decode() + "+00:00").timestamp()) * 1_000


def _last(raw: bytes, field: bytes) -> bytes:
    start = raw.rfind(field)
    if start < 0:
        return b""
    start += len(field)
    return raw[start : raw.find(b"\r\n", start)]


def _number(raw: bytes, field: bytes) -> int:
    return int(_last(raw, field) or 0)


def _is_marker(raw: bytes) -> bool:
    """Say whether this notes that a key has gone: deleted by a client, or by the server when its time was over."""
    return _last(raw, _OPERATION) in {b"DEL", b"PURGE"} or _MARKER in raw
