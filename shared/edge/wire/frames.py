"""WebSocket frames as a server reads and writes them: bytes in, events out (RFC 6455; no extensions, no I/O).

Between complete messages a connection has no state at all: `read_frames` takes None and returns None.
While a frame or a message is unfinished, its `Partial` holds at most `max_message_bytes` and one header.
Text of one frame is validated when the frame is complete, text of many frames as each one comes.
"""

from __future__ import annotations

import struct
from codecs import utf_8_decode
from dataclasses import dataclass

MAX_CONTROL_BYTES = 125  # section 5.5
NO_STATUS = 1005  # what a Close without a code means; never on the wire (section 7.4.1)

_FIN, _RESERVED, _CONTROL, _OPCODE = 0x80, 0x70, 0x08, 0x0F
_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODES = frozenset({_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG})
_MASKED = 0x80
_KEY_BYTES = 4
_PROTOCOL_ERROR, _BAD_DATA, _TOO_BIG = 1002, 1007, 1009
# Section 7.4.1 and the IANA registry; 3000-4999 belong to libraries and applications.
_REGISTERED_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may cost; counted over all of its fragments together."""

    max_message_bytes: int
    max_fragments: int = 4096


@dataclass(frozen=True, slots=True)
class Text:
    """A text message; the payload is valid UTF-8, still encoded."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks for a Pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answers a Ping, or just says that it is there."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The last event of a connection; `code` is 1005 if the peer gave none."""

    code: int
    reason: str


Event = Text | Binary | Ping | Pong | Close


class ProtocolViolation(Exception):
    """The peer broke the protocol: handle `events`, close with `code` and `reason`, read no more.

    Attributes:
        code: 1002 (protocol error), 1007 (not UTF-8) or 1009 (too big).
        reason: what was wrong, short enough for a Close frame.
        events: what was complete before the violation in the same read.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason
        self.events: list[Event] = []


class Partial:
    """What is left over between two reads: bytes of a frame, fragments of a message, or that the peer has closed."""

    __slots__ = ("closed", "message", "unparsed")

    def __init__(self) -> None:
        self.unparsed = bytearray()
        self.message: _Message | None = None
        self.closed = False


def read_frames(data: bytes, partial: Partial | None, limits: Limits) -> tuple[list[Event], Partial | None]:
    """Return the events that `data` completes, and what is left over: None if nothing.

    Pass what is left over with the next read. What follows a Close is ignored, in this read and in later ones.

    Raises:
        ProtocolViolation: at the first byte that breaks the protocol, with the events before it.
    """
    if partial is None:
        partial = Partial()
    elif partial.closed:
        return [], partial
    buffer: bytes | bytearray = data
    if partial.unparsed:
        # A bytearray grows in place: bytes that come one by one are not copied again with each.
        partial.unparsed += data
        buffer = partial.unparsed
    events: list[Event] = []
    try:
        end = _read_all(buffer, partial, limits, events)
    except ProtocolViolation as violation:
        violation.events = events
        raise
    return events, _left_over(partial, buffer, end)


def encode_text(payload: bytes) -> bytes:
    """Return one text frame; `payload` must be UTF-8."""
    return _encode(_TEXT, payload)


def encode_binary(payload: bytes) -> bytes:
    """Return one binary frame."""
    return _encode(_BINARY, payload)


def encode_ping(payload: bytes = b"") -> bytes:
    """Return a Ping frame; ValueError above 125 bytes."""
    return _encode_control(_PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """Return a Pong frame, with the payload of the Ping that it answers; ValueError above 125 bytes."""
    return _encode_control(_PONG, payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a Close frame; the reason is cut to 123 bytes at a character's border.

    `NO_STATUS` gives a Close without code and reason, as the answer to one without.

    Raises:
        ValueError: for any other code that must not be on the wire (section 7.4).
    """
    if code == NO_STATUS:
        return _encode_control(_CLOSE, b"")
    if not _may_be_sent(code):
        raise ValueError(f"close code {code} must not be sent")
    room = MAX_CONTROL_BYTES - 2
    text = reason.encode(errors="replace")[:room].decode(errors="ignore").encode()
    return _encode_control(_CLOSE, struct.pack("!H", code) + text)


# -- private: reading -------------------------------------------------------------------------------------------------


class _Message:
    """The fragments of an unfinished message, joined: an empty one costs nothing but its count."""

    __slots__ = ("fragments", "is_text", "payload", "valid_bytes")

    def __init__(self, *, is_text: bool) -> None:
        self.is_text = is_text
        self.payload = bytearray()
        self.fragments = 0
        self.valid_bytes = 0  # how much of a text is known to be UTF-8: all but a character that is cut

    def add(self, payload: bytes, *, final: bool) -> None:
        self.payload += payload
        self.fragments += 1
        if self.is_text:
            self.valid_bytes += _count_utf8(self.payload[self.valid_bytes :], final=final)


def _read_all(buffer: bytes | bytearray, partial: Partial, limits: Limits, events: list[Event]) -> int:
    """Append what `buffer` completes to `events`; return where the unfinished frame begins."""
    start = 0
    while (header := _read_header(buffer, start, partial.message, limits)) is not None:
        first, body, end = header
        if end > len(buffer):
            break
        payload = _unmask(buffer[body:end], buffer[body - _KEY_BYTES : body])
        start = end
        event = _read_control(first, payload) if first & _CONTROL else _read_data(first, payload, partial)
        if event is not None:
            events.append(event)
        if type(event) is Close:
            partial.closed = True
            return len(buffer)
    return start


def _read_header(
    buffer: bytes | bytearray, start: int, message: _Message | None, limits: Limits
) -> tuple[int, int, int] | None:
    """Return the first byte of the frame at `start`, and where its payload begins and ends; None if not yet known.

    Whatever a header can break is found here, before a byte of the payload is waited for (section 5.2).
    """
    known_bytes = len(buffer) - start
    if known_bytes < 1:
        return None
    first = buffer[start]
    _check_kind(first, message, limits)
    if known_bytes < 2:
        return None
    second = buffer[start + 1]
    if not second & _MASKED:
        raise ProtocolViolation(_PROTOCOL_ERROR, "frame is not masked")  # section 5.1
    length, body = second & ~_MASKED, start + 2
    if length > MAX_CONTROL_BYTES:
        if first & _CONTROL:
            raise ProtocolViolation(_PROTOCOL_ERROR, "control frame is too long")
        body += 2 if length == 126 else 8
        if len(buffer) < body:
            return None
        length = _long_length(buffer[start + 2 : body])
    if not first & _CONTROL:
        _check_size(length, message, limits)
    body += _KEY_BYTES
    return first, body, body + length


def _check_kind(first: int, message: _Message | None, limits: Limits) -> None:
    """Refuse a first byte that is reserved or out of turn (sections 5.2, 5.4 and 5.5)."""
    opcode = first & _OPCODE
    if first & _RESERVED:
        raise ProtocolViolation(_PROTOCOL_ERROR, "reserved bit is set")
    if opcode not in _OPCODES:
        raise ProtocolViolation(_PROTOCOL_ERROR, "reserved opcode")
    if opcode & _CONTROL:
        if not first & _FIN:
            raise ProtocolViolation(_PROTOCOL_ERROR, "control frame is fragmented")
    elif message is None:
        if opcode == _CONTINUATION:
            raise ProtocolViolation(_PROTOCOL_ERROR, "nothing to continue")
    elif opcode != _CONTINUATION:
        raise ProtocolViolation(_PROTOCOL_ERROR, "message begins inside another")
    elif message.fragments >= limits.max_fragments:
        raise ProtocolViolation(_TOO_BIG, f"message has more than {limits.max_fragments} fragments")


def _long_length(field: bytes | bytearray) -> int:
    """Return the length in 2 or 8 bytes; section 5.2 wants the shortest form, and the top bit of 64 clear."""
    length = int.from_bytes(field, "big")
    if length >> 63:
        raise ProtocolViolation(_PROTOCOL_ERROR, "length has its top bit set")
    if length <= (MAX_CONTROL_BYTES if len(field) == 2 else 0xFFFF):
        raise ProtocolViolation(_PROTOCOL_ERROR, "length is not in its shortest form")
    return length


def _check_size(length: int, message: _Message | None, limits: Limits) -> None:
    held_bytes = 0 if message is None else len(message.payload)
    if held_bytes + length > limits.max_message_bytes:
        raise ProtocolViolation(_TOO_BIG, f"message exceeds {limits.max_message_bytes} bytes")


def _unmask(payload: bytes | bytearray, key: bytes | bytearray) -> bytes:
    """XOR `payload` with the repeated key (section 5.3), as two long integers: no loop over bytes in Python."""
    length = len(payload)
    keys = (key * (length // _KEY_BYTES + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")


def _read_data(first: int, payload: bytes, partial: Partial) -> Event | None:
    """Return the message that this frame completes, if it does."""
    message, final = partial.message, bool(first & _FIN)
    if message is None:
        is_text = first & _OPCODE == _TEXT
        if final:
            if is_text:
                _count_utf8(payload, final=True)
            return Text(payload) if is_text else Binary(payload)
        message = partial.message = _Message(is_text=is_text)
    message.add(payload, final=final)
    if not final:
        return None
    partial.message = None
    whole = bytes(message.payload)
    return Text(whole) if message.is_text else Binary(whole)


def _count_utf8(data: bytes | bytearray, *, final: bool) -> int:
    """Return how many bytes of `data` are whole characters; if `final`, all must be (section 8.1)."""
    try:
        return utf_8_decode(data, "strict", final)[1]
    except UnicodeDecodeError:
        raise ProtocolViolation(_BAD_DATA, "text is not UTF-8") from None


def _read_control(first: int, payload: bytes) -> Event:
    match first & _OPCODE:
        case 0x9:
            return Ping(payload)
        case 0xA:
            return Pong(payload)
        case _:
            return _read_close(payload)


def _read_close(payload: bytes) -> Close:
    """Return a Close whose code and reason may be on the wire (sections 5.5.1 and 7.4)."""
    if not payload:
        return Close(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")
    if len(payload) == 1 or not _may_be_sent(code):
        raise ProtocolViolation(_PROTOCOL_ERROR, "close code is not valid")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolViolation(_BAD_DATA, "close reason is not UTF-8") from None


def _may_be_sent(code: int) -> bool:
    return code in _REGISTERED_CODES or 3000 <= code < 5000


def _left_over(partial: Partial, buffer: bytes | bytearray, end: int) -> Partial | None:
    """Keep what is after `end`; return None where there is nothing to keep."""
    if partial.closed:
        partial.unparsed, partial.message = bytearray(), None
        return partial
    if buffer is partial.unparsed:
        del partial.unparsed[:end]
    else:
        partial.unparsed += buffer[end:]
    return partial if partial.unparsed or partial.message is not None else None


# -- private: writing -------------------------------------------------------------------------------------------------


def _encode_control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_BYTES:
        raise ValueError(f"a control frame holds {MAX_CONTROL_BYTES} bytes, not {len(payload)}")
    return _encode(opcode, payload)


def _encode(opcode: int, payload: bytes) -> bytes:
    """Return one unmasked, unfragmented frame (sections 5.1 and 5.2)."""
    length = len(payload)
    if length <= MAX_CONTROL_BYTES:
        return bytes((_FIN | opcode, length)) + payload
    if length <= 0xFFFF:
        return struct.pack("!BBH", _FIN | opcode, 126, length) + payload
    return struct.pack("!BBQ", _FIN | opcode, 127, length) + payload
