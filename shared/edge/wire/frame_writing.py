"""WebSocket frames as a server writes them: unmasked, each a whole message (RFC 6455 section 5.1; no I/O)."""

from __future__ import annotations

import struct

from shared.edge.delivery.framing import BINARY, TEXT, frame
from shared.edge.wire.frame_events import CLOSE, MAX_CONTROL_BYTES, NO_STATUS, PING, PONG, may_be_sent


def encode_text(payload: bytes) -> bytes:
    """Return one text frame; `payload` must be UTF-8."""
    return frame(TEXT, payload)


def encode_binary(payload: bytes) -> bytes:
    """Return one binary frame."""
    return frame(BINARY, payload)


def encode_ping(payload: bytes = b"") -> bytes:
    """Return a Ping frame; ValueError above 125 bytes."""
    return _encode_control(PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """Return a Pong frame, with the payload of the Ping that it answers; ValueError above 125 bytes."""
    return _encode_control(PONG, payload)


def encode_close(code: int, reason: str = "") -> bytes:
    """Return a Close frame; the reason is cut to 123 bytes at a character's border.

    `NO_STATUS` gives a Close without code and reason, which answers one without.

    Raises:
        ValueError: for any other code that must not be on the wire (section 7.4).
    """
    if code == NO_STATUS:
        return _encode_control(CLOSE, b"")
    if not may_be_sent(code):
        raise ValueError(f"close code {code} must not be sent")
    cut = reason.encode(errors="replace")[: MAX_CONTROL_BYTES - 2]
    return _encode_control(CLOSE, struct.pack("!H", code) + cut.decode(errors="ignore").encode())


def _encode_control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > MAX_CONTROL_BYTES:
        raise ValueError(f"a control frame holds {MAX_CONTROL_BYTES} bytes, not {len(payload)}")
    return frame(opcode, payload)
