"""A proxy before NATS: it makes the server forget what a client subscribed to, or the client hear nothing more."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024


class Amnesia:
    """`async with Amnesia(server.url) as proxy`: clients connect to `proxy.url`.

    Attributes:
        persistent: subscriptions to what was forgotten are kept from the server from now on, on new connections too.
        muted: what the server says is swallowed; what clients say still arrives.
    """

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._host, self._port = address.hostname or "", address.port or 0
        self._clients: list[_Client] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.forgotten = b""
        self.persistent = False
        self.muted = False
        self.url = ""

    async def __aenter__(self) -> Amnesia:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def forget(self, prefix: str, *, persistent: bool = False) -> None:
        """Have the server forget every subscription to a subject that begins with `prefix`."""
        self.forgotten, self.persistent = prefix.encode(), persistent
        for client in self._clients:
            client.unsubscribe(self.forgotten)

    def command(self, line: bytes) -> None:
        """Send a line to the server as if every client had."""
        for client in self._clients:
            client.command(line)

    def heal(self) -> None:
        """Let new subscriptions through again; what is forgotten stays so until the client comes anew."""
        self.persistent = False

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        client = _Client(self, server_writer)
        self._clients.append(client)
        for coroutine in (client.pass_commands(reader), self._pass_on(server_reader, writer)):
            task = asyncio.get_running_loop().create_task(coroutine)
            self._tasks.add(task)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if not self.muted:
                    writer.write(chunk)
                    await writer.drain()
        writer.close()


class _Client:
    """One connection: the client's commands, one by one, since only between them can another be put."""

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
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
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
        self._server.close()
