"""A proxy before NATS that makes the server forget what a client subscribed to."""

from __future__ import annotations

import asyncio
import contextlib

from tests.support.proxy import Proxy


class Amnesia(Proxy):
    """`async with Amnesia(server.url) as proxy`: clients connect to `proxy.url`.

    Attributes:
        persistent: subscriptions to what was forgotten are kept from the server from now on, on new connections too.
    """

    def __init__(self, target: str) -> None:
        super().__init__(target)
        self._clients: list[_Client] = []
        self.forgotten = b""
        self.persistent = False

    def forget(self, prefix: str, *, persistent: bool = False) -> None:
        """Have the server forget every subscription to a subject that begins with `prefix`."""
        self.forgotten, self.persistent = prefix.encode(), persistent
        for client in self._clients:
            client.unsubscribe(self.forgotten)

    def command(self, line: bytes) -> None:
        """Send a line to the server as if every client had."""
        for client in self._clients:
            client.command(line)

    def remember(self) -> None:
        """Let new subscriptions through again; what is forgotten stays so until the client comes anew."""
        self.persistent = False

    async def carry_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on a client's commands one by one, since only between them can another be put."""
        client = _Client(self, writer)
        self._clients.append(client)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            await client.pass_commands(reader)
        writer.close()


class _Client:
    """One connection, and what it has subscribed to."""

    def __init__(self, proxy: Amnesia, server: asyncio.StreamWriter) -> None:
        self._proxy, self._server = proxy, server
        self._numbers: dict[bytes, bytes] = {}

    def unsubscribe(self, prefix: bytes) -> None:
        for number, subject in self._numbers.items():
            if subject.startswith(prefix):
                self.command(b"UNSUB %b\r\n" % number)

    def command(self, line: bytes) -> None:
        self._server.write(line)

    async def pass_commands(self, reader: asyncio.StreamReader) -> None:
        while True:
            line = await reader.readuntil(b"\r\n")
            words = line.split()
            if words[0] in (b"PUB", b"HPUB"):
                line += await reader.readexactly(int(words[-1]) + 2)
            elif words[0] == b"SUB":
                self._numbers[words[-1]] = words[1]
                if self._proxy.persistent and words[1].startswith(self._proxy.forgotten):
                    continue
            self._server.write(line)
