"""How bytes are framed for a client: a WebSocket frame (RFC 6455), a chunk of an HTTP body (RFC 9112); pure."""

from __future__ import annotations

import struct

TEXT, BINARY = 0x1, 0x2  # the opcodes of data frames (RFC 6455 section 5.2)
_FIN = 0x80
_SHORT, _LENGTH_IN_2, _LENGTH_IN_8 = 125, 126, 127


def frame(opcode: int, payload: bytes) -> bytes:
    """Return one frame of a server, unmasked and unfragmented (RFC 6455 sections 5.1 and 5.2)."""
    length = len(payload)
    if length <= _SHORT:
        return bytes((_FIN | opcode, length)) + payload
    if length <= 0xFFFF:
        return struct.pack("!BBH", _FIN | opcode, _LENGTH_IN_2, length) + payload
    return struct.pack("!BBQ", _FIN | opcode, _LENGTH_IN_8, length) + payload


def chunk(data: bytes) -> bytes:
    """Return `data` as one chunk of a chunked body (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)
