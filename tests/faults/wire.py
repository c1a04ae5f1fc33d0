"""The wire as a client sees it: a WebSocket and an event stream, each one small asyncio protocol.

Thousands of them run in the process that counts, so they do what Fanfare's protocol needs and no more. They share no
code with the suite: a fault in its codec must not be undone by the same fault here. (Conformance has its own tests.)
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

Frame = dict[str, Any]
OnFrame = Callable[[Frame], None]

ABNORMAL = 1006
"""Close code of a line that broke without a word (RFC 6455 section 7.1.5); here also of a refused handshake."""
CONNECT_TIMEOUT_S = 10.0
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="


class Wire(asyncio.Protocol, ABC):
    """One connection to an edge.

    Attributes:
        closed: done with the close code when it is over.
        status: of the answer's head; 0 before it.
        heard_at_s: when a byte came last, on the monotonic clock.
    """

    transport: asyncio.Transport

    def __init__(self, head: str, on_frame: OnFrame) -> None:
        self._head, self._on_frame = head, on_frame
        self._rest = b""
        self._code = ABNORMAL
        self.closed: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self.status = 0
        self.heard_at_s = time.monotonic()

    def send(self, frame: Frame) -> None:
        """Send a frame; a stream of events goes one way only."""
        raise TypeError(f"{type(self).__name__} takes no frames")

    def abort(self) -> None:
        """Break the connection with a reset, as a client does that crashed."""
        sock = self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.is_closing():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    @abstractmethod
    def take(self, data: bytes) -> bytes:
        """Take what came after the head; return what is not whole yet."""

    # -- what asyncio calls -------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._head.encode())

    def data_received(self, data: bytes) -> None:
        """Take the head, then what follows."""
        self.heard_at_s = time.monotonic()
        data = self._rest + data
        if not self.status:
            head, end, data = data.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            self.status = int(head.split(b" ", 2)[1])
            if self.status not in (101, 200):
                self.transport.close()
                return
        self._rest = self.take(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """Say that it is over."""
        if not self.closed.done():
            self.closed.set_result(self._code)


class WebSocketWire(Wire):
    """A WebSocket (RFC 6455) of text frames: the server's are whole and unmasked."""

    def send(self, frame: Frame) -> None:
        """Send a text frame."""
        self._write(_TEXT, json.dumps(frame).encode())

    def take(self, data: bytes) -> bytes:
        """Take whole frames."""
        while len(data) >= 2:
            size, at = data[1] & 0x7F, 2
            if size > 125:
                at = 4 if size == 126 else 10
                size = int.from_bytes(data[2:at], "big")
            if len(data) < at + size:
                break
            self._frame(data[0] & 0x0F, data[at : at + size])
            data = data[at + size :]
        return data

    def _frame(self, opcode: int, payload: bytes) -> None:
        if opcode == _TEXT:
            self._on_frame(json.loads(payload))
        elif opcode == _PING:
            self._write(_PONG, payload)
        elif opcode == _CLOSE:
            self._code = int.from_bytes(payload[:2], "big") if payload else ABNORMAL
            self._write(_CLOSE, payload[:2])
            self.transport.close()

    def _write(self, opcode: int, payload: bytes) -> None:
        size = len(payload)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        key = os.urandom(4)
        mask = (key * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(mask, "big")).to_bytes(size, "big")
        self.transport.write(bytes([0x80 | opcode]) + length + key + masked)


class StreamWire(Wire):
    """An event stream in chunks (RFC 9112 section 7.1); each event's id is added to its data as `_id`."""

    def __init__(self, head: str, on_frame: OnFrame) -> None:
        super().__init__(head, on_frame)
        self._text = b""

    def take(self, data: bytes) -> bytes:
        """Take whole chunks, and the whole events in them."""
        while True:
            size, end, rest = data.partition(b"\r\n")
            if not end or len(rest) < (count := int(size, 16)) + 2:
                return data
            self._text += rest[:count]
            data = rest[count + 2 :]
            if not count:
                self.transport.close()
            *events, self._text = self._text.split(b"\r\n\r\n")
            for event in events:
                self._event(event)

    def _event(self, event: bytes) -> None:
        fields = dict(line.split(b": ", 1) for line in event.split(b"\r\n") if b": " in line and line[:1] != b":")
        if b"data" in fields:
            self._on_frame(json.loads(fields[b"data"]) | {"_id": fields.get(b"id", b"").decode()})


async def connect(kind: type[Wire], url: str, headers: dict[str, str], on_frame: OnFrame) -> Wire:
    """Connect and send the handshake; raises OSError or TimeoutError when nobody answers."""
    address = urlsplit(url)
    fields = {"Host": address.netloc} | headers
    if kind is WebSocketWire:
        fields |= {"Upgrade": "websocket", "Connection": "Upgrade"}
        fields |= {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": _KEY}
    lines = [f"GET {address.path}?{address.query} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    head = "\r\n".join([*lines, "", ""])
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_TIMEOUT_S):
        _, wire = await loop.create_connection(lambda: kind(head, on_frame), address.hostname or "", address.port or 80)
    return wire
