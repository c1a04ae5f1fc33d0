"""WebSocket frames as a server reads them: bytes in, events out (RFC 6455; no extensions, no I/O).

What it writes is in `frame_writing.py`; both are to be had here.

Between complete messages a connection has no state at all: `read_frames` takes None and returns None.
While a frame or a message is unfinished, its `Partial` holds at most `max_message_bytes` and a header.
Text of one frame is validated when the frame is complete, text of many frames as each of them is.
"""

from __future__ import annotations

from codecs import utf_8_decode

from shared.edge.delivery.framing import BINARY, TEXT
from shared.edge.wire.frame_events import (
    CLOSE,
    CONTINUATION,
    MAX_CONTROL_BYTES,
    NO_STATUS,
    PING,
    PONG,
    Binary,
    Close,
    Event,
    Limits,
    Ping,
    Pong,
    ProtocolViolation,
    Text,
    may_be_sent,
)
from shared.edge.wire.frame_writing import encode_binary, encode_close, encode_ping, encode_pong, encode_text

__all__ = [
    "Binary",
    "Close",
    "Event",
    "Limits",
    "Partial",
    "Ping",
    "Pong",
    "ProtocolViolation",
    "Text",
    "encode_binary",
    "encode_close",
    "encode_ping",
    "encode_pong",
    "encode_text",
    "read_frames",
]

_FIN, _RESERVED, _CONTROL, _OPCODE = 0x80, 0x70, 0x08, 0x0F  # of a frame's first byte (section 5.2)
_MASKED = 0x80
_KEY_BYTES = 4
_PROTOCOL_ERROR, _BAD_DATA, _TOO_BIG = 1002, 1007, 1009
_CONTROL_FIRST = frozenset(_FIN | opcode for opcode in (CLOSE, PING, PONG))
_FIRST_OUTSIDE = _CONTROL_FIRST | {TEXT, BINARY, _FIN | TEXT, _FIN | BINARY}  # first bytes between messages
_FIRST_INSIDE = _CONTROL_FIRST | {CONTINUATION, _FIN | CONTINUATION}  # first bytes between fragments


class Partial:
    """What is left over between two reads: bytes of a frame, fragments of a message, or that the peer has closed."""

    __slots__ = ("closed", "message", "unparsed")

    def __init__(self, unparsed: bytearray, message: _Message | None, *, closed: bool) -> None:
        self.unparsed, self.message, self.closed = unparsed, message, closed

    def grow_older(self) -> int:
        """Count one more time that the fragments have waited for their message's end; return how many there were."""
        if self.message is None:
            return 0
        self.message.age += 1
        return self.message.age


def read_frames(data: bytes, partial: Partial | None, limits: Limits) -> tuple[list[Event], Partial | None]:
    """Return the events that `data` completes, and what is left over: None if nothing.

    Pass what is left over with the next read. What follows a Close is ignored, in this read and in later ones.

    Raises:
        ProtocolViolation: at the first byte that breaks the protocol, with the events before it.
    """
    buffer: bytes | bytearray = data
    message = None
    if partial is not None:
        if partial.closed:
            return [], partial
        # A bytearray grows in place: bytes that come one by one are not copied again with each.
        partial.unparsed += data
        buffer, message = partial.unparsed, partial.message
    events: list[Event] = []
    try:
        end, message = _read_all(buffer, message, limits, events)
    except ProtocolViolation as violation:
        violation.events = events
        raise
    return events, _left_over(buffer, end, message, closed=bool(events) and type(events[-1]) is Close)


# -- private ----------------------------------------------------------------------------------------------------------


class _Message:
    """The fragments of an unfinished message, joined: an empty one costs nothing but its count."""

    __slots__ = ("age", "fragments", "is_text", "payload", "valid_bytes")

    def __init__(self, *, is_text: bool) -> None:
        self.is_text = is_text
        self.payload = bytearray()
        self.fragments = 0
        self.age = 0
        self.valid_bytes = 0  # how much of a text is known to be UTF-8: all but a character that is cut

    def add(self, fragment: bytes, *, final: bool) -> None:
        self.payload += fragment
        self.fragments += 1
        if self.is_text:
            self.valid_bytes += _count_utf8(self.payload[self.valid_bytes :], final=final)

    def event(self) -> Event:
        return Text(bytes(self.payload)) if self.is_text else Binary(bytes(self.payload))


def _read_all(
    buffer: bytes | bytearray, message: _Message | None, limits: Limits, events: list[Event]
) -> tuple[int, _Message | None]:
    """Append what `buffer` completes to `events`; return where the rest begins, and the unfinished message."""
    start, available = 0, len(buffer)
    while start < available:
        first, body, end = _read_header(buffer, start, message, limits)
        if end > available:
            break
        payload = _unmask(buffer[body:end], buffer[body - _KEY_BYTES : body])
        start = end
        if first & _CONTROL:
            events.append(_control_event(first & _OPCODE, payload))
            if first & _OPCODE == CLOSE:
                break
        else:
            message = _take_data(first, payload, message, events)
    return start, message


def _read_header(
    buffer: bytes | bytearray, start: int, message: _Message | None, limits: Limits
) -> tuple[int, int, int]:
    """Return the first byte of the frame at `start`, and where its payload begins and ends.

    Whatever a header can break is found here, before any payload is waited for. Of a header that is not whole the end
    is beyond the buffer.
    """
    available, body = len(buffer), start + 2
    first = buffer[start]
    if first not in (_FIRST_OUTSIDE if message is None else _FIRST_INSIDE):
        raise ProtocolViolation(_PROTOCOL_ERROR, _explain(first, message))
    if available < body:
        return first, body, body
    length = buffer[start + 1] - _MASKED
    if length < 0:
        raise ProtocolViolation(_PROTOCOL_ERROR, "frame is not masked")  # section 5.1
    if length > MAX_CONTROL_BYTES:
        if first & _CONTROL:
            raise ProtocolViolation(_PROTOCOL_ERROR, "control frame is too long")
        body += 2 if length == 126 else 8
        if available < body:
            return first, body, body
        length = _long_length(buffer[start + 2 : body])
    if not first & _CONTROL:
        _check_size(length, message, limits)
    body += _KEY_BYTES
    return first, body, body + length


def _explain(first: int, message: _Message | None) -> str:
    """Say why no frame begins with this byte here (sections 5.2, 5.4 and 5.5)."""
    opcode = first & _OPCODE
    if first & _RESERVED:
        return "reserved bit is set"
    if opcode not in {CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG}:
        return "reserved opcode"
    if opcode & _CONTROL:
        return "control frame is fragmented"
    return "nothing to continue" if message is None else "message begins inside another"


def _long_length(field: bytes | bytearray) -> int:
    """Return the length of 2 or 8 bytes; section 5.2 wants the shortest form, and the top bit of 64 clear."""
    length = int.from_bytes(field, "big")
    if length >> 63:
        raise ProtocolViolation(_PROTOCOL_ERROR, "length has its top bit set")
    if length <= (MAX_CONTROL_BYTES if len(field) == 2 else 0xFFFF):
        raise ProtocolViolation(_PROTOCOL_ERROR, "length is not in its shortest form")
    return length


def _check_size(length: int, message: _Message | None, limits: Limits) -> None:
    """Refuse the frame that would take its message over a limit."""
    if message is not None:
        length += len(message.payload)
        if message.fragments >= limits.max_fragments:
            raise ProtocolViolation(_TOO_BIG, f"message exceeds {limits.max_fragments} fragments")
    if length > limits.max_message_bytes:
        raise ProtocolViolation(_TOO_BIG, f"message exceeds {limits.max_message_bytes} bytes")


def _unmask(payload: bytes | bytearray, key: bytes | bytearray) -> bytes:
    """XOR `payload` with the repeated key (section 5.3), both as one long integer: no loop over bytes in Python."""
    length = len(payload)
    keys = (key * (length // _KEY_BYTES + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(keys, "little")).to_bytes(length, "little")


def _take_data(first: int, payload: bytes, message: _Message | None, events: list[Event]) -> _Message | None:
    """Append the message that this frame completes; return the one that it leaves unfinished."""
    final = first >= _FIN
    if message is None:
        if first == _FIN | TEXT:  # nearly every frame there is: spare it the joining
            _count_utf8(payload, final=True)
            events.append(Text(payload))
            return None
        message = _Message(is_text=first & _OPCODE == TEXT)
    message.add(payload, final=final)
    if not final:
        return message
    events.append(message.event())
    return None


def _count_utf8(data: bytes | bytearray, *, final: bool) -> int:
    """Return how many bytes of `data` are whole characters; if `final`, all must be (section 8.1)."""
    try:
        return utf_8_decode(data, "strict", final)[1]
    except UnicodeDecodeError:
        raise ProtocolViolation(_BAD_DATA, "text is not UTF-8") from None


def _control_event(opcode: int, payload: bytes) -> Event:
    if opcode == PING:
        return Ping(payload)
    return Pong(payload) if opcode == PONG else _close_event(payload)


def _close_event(payload: bytes) -> Close:
    """Return a Close whose code and reason may be on the wire (sections 5.5.1 and 7.4)."""
    if not payload:
        return Close(NO_STATUS, "")
    code = int.from_bytes(payload[:2], "big")  # half a code is below 256: refused as any other below 1000
    if not may_be_sent(code):
        raise ProtocolViolation(_PROTOCOL_ERROR, "close code is not valid")
    try:
        return Close(code, payload[2:].decode())
    except UnicodeDecodeError:
        raise ProtocolViolation(_BAD_DATA, "close reason is not UTF-8") from None


def _left_over(buffer: bytes | bytearray, end: int, message: _Message | None, *, closed: bool) -> Partial | None:
    """Return what the next read needs of this one; None if nothing."""
    if closed:
        return Partial(bytearray(), None, closed=True)
    if message is None and end == len(buffer):
        return None
    if isinstance(buffer, bytearray):
        del buffer[:end]
    else:
        buffer = bytearray(buffer[end:])
    return Partial(buffer, message, closed=False)
