"""A TCP proxy that a test puts before a server: it records what clients send, stalls, and cuts."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024


class Wiretap:
    """Passes bytes both ways between clients and the server at `target`."""

    def __init__(self, target: str) -> None:
        address = urlsplit(target)
        self._host, self._port = address.hostname or "", address.port or 0
        self._flows = asyncio.Event()
        self._stalled: list[asyncio.Event] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: list[asyncio.Task[None]] = []
        self.sent = bytearray()
        self.url = ""

    async def __aenter__(self) -> Wiretap:
        self._flows.set()
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"nats://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        await asyncio.gather(*self._tasks)

    def stall(self) -> None:
        """Take nothing more from those who are connected now; what the kernel has room for, it takes."""
        self._flows.clear()
        self._stalled.append(self._flows)
        self._flows = asyncio.Event()
        self._flows.set()

    def refuse(self) -> None:
        """Let nobody in any more."""
        self._server.close()

    def cut(self, *, but_first: int = 0) -> None:
        """Break every connection, but for those that came first; each is two writers."""
        for writer in self._writers[2 * but_first :]:
            writer.transport.abort()
        del self._writers[2 * but_first :]
        for flows in self._stalled:
            flows.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._host, self._port)
        self._writers += [writer, server_writer]
        loop = asyncio.get_running_loop()
        self._tasks.append(loop.create_task(self._pass_on(reader, server_writer, self.sent)))
        self._tasks.append(loop.create_task(self._pass_on(server_reader, writer, None)))

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, record: bytearray | None
    ) -> None:
        flows = self._flows
        with contextlib.suppress(OSError):
            while chunk := await reader.read(CHUNK_BYTES):
                if record is not None:
                    record += chunk
                    await flows.wait()
                if writer.transport.is_closing():
                    return
                writer.write(chunk)
                await writer.drain()
