"""A client of sockets and bytes, for what no library would send."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Mapping
from typing import Protocol

DEADLINE_S = 10.0
KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA


class Address(Protocol):
    """Whatever listens: an edge, an echo."""

    @property
    def url(self) -> str:
        """`http://host:port`."""


class RawSocket:
    """One TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received = bytearray()

    @classmethod
    async def connect(cls, edge: Address, *, receive_buffer: int = 0) -> RawSocket:
        """Connect, and say nothing yet."""
        host, _, port = edge.url.removeprefix("http://").partition(":")
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
        return cls(sock)

    @classmethod
    async def upgraded(
        cls, edge: Address, path: str = "/ws/chat", headers: Mapping[str, str] | None = None, *, receive_buffer: int = 0
    ) -> RawSocket:
        """Connect and make the handshake of a WebSocket."""
        raw = await cls.connect(edge, receive_buffer=receive_buffer)
        await raw.send(handshake(path, headers or {}))
        await raw.until(b"\r\n\r\n")
        return raw

    async def send(self, data: bytes) -> None:
        """Send bytes; a peer that has closed is no error here."""
        try:
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.get_running_loop().sock_sendall(self.sock, data)
        except ConnectionError:
            pass

    async def until(self, mark: bytes) -> bytes:
        """Return what came up to and with `mark`; what follows stays in `received`."""
        async with asyncio.timeout(DEADLINE_S):
            while mark not in self.received:
                assert await self._read(), f"closed before {mark!r} came: {bytes(self.received)!r}"
        end = self.received.index(mark) + len(mark)
        head = bytes(self.received[:end])
        del self.received[:end]
        return head

    async def until_closed(self) -> bytes:
        """Return all that comes until the peer closes."""
        async with asyncio.timeout(DEADLINE_S):
            while await self._read():
                pass
        return bytes(self.received)

    async def message(self) -> tuple[int | None, bytes]:
        """Return the opcode and the payload of the next frame; no opcode if the peer closes before."""
        return await self._frame()

    async def close_code(self) -> int | None:
        """Return the code of the close frame that comes; None if the peer closes without one."""
        while True:
            opcode, payload = await self._frame()
            if opcode is None:
                return None
            if opcode == CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else 1005

    def close(self) -> None:
        """Hang up."""
        self.sock.close()

    def abort(self) -> None:
        """Hang up with a reset, as a client does that crashed."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    async def _frame(self) -> tuple[int | None, bytes]:
        head = await self._take(2)
        length = head[1] & 0x7F if head else 0
        if length > 125:
            length = int.from_bytes(await self._take(2 if length == 126 else 8), "big")
        return (head[0] & 0x0F if head else None), await self._take(length)

    async def _take(self, count: int) -> bytes:
        """Return the next `count` bytes; fewer if the peer closes before."""
        async with asyncio.timeout(DEADLINE_S):
            while len(self.received) < count and await self._read():
                pass
        taken = bytes(self.received[:count])
        del self.received[:count]
        return taken if len(taken) == count else b""

    async def _read(self) -> bool:
        try:
            data = await asyncio.get_running_loop().sock_recv(self.sock, 65_536)
        except ConnectionError:
            return False
        self.received += data
        return bool(data)


def handshake(path: str, headers: Mapping[str, str]) -> bytes:
    """Return the request that opens a WebSocket; `headers` replace what would stand there."""
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    } | dict(headers)
    lines = [f"GET {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True, masked: bool = True, rsv: int = 0) -> bytes:
    """Return a frame as a client sends it, or as none should."""
    first = (0x80 if fin else 0) | rsv << 4 | opcode
    return bytes([first]) + declared(len(payload), masked=masked) + _mask(payload, masked)


def declared(length: int, *, masked: bool = True) -> bytes:
    """Return a length as it stands in a frame's head."""
    bit = 0x80 if masked else 0
    if length < 126:
        return bytes([bit | length])
    if length < 1 << 16:
        return bytes([bit | 126]) + length.to_bytes(2, "big")
    return bytes([bit | 127]) + length.to_bytes(8, "big")


def _mask(payload: bytes, masked: bool) -> bytes:
    if not masked:
        return payload
    key = os.urandom(4)
    stream = (key * (len(payload) // 4 + 1))[: len(payload)]
    return key + (int.from_bytes(payload, "big") ^ int.from_bytes(stream, "big")).to_bytes(len(payload), "big")
