"""A line: a TCP proxy before any server, which can be slow, narrow, dead in one direction, or cut."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from types import TracebackType
from urllib.parse import urlsplit

CHUNK_BYTES = 16 * 1024
IN_FLIGHT_CHUNKS = 1024
"""What a direction holds while it delays or is blocked; the sender's socket fills up behind it."""


@dataclass
class Direction:
    """One way of every connection over a line.

    Attributes:
        latency_s: how long each byte is on its way.
        bytes_per_s: of each connection; 0 for no limit.
        slice_bytes: pass on at most so much at a time, to show who takes one read for one message.
        flows: clear, and nothing arrives any more: no data, no end, no reset.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    slice_bytes: int = CHUNK_BYTES
    flows: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flows.set()


class Line:
    """Passes bytes both ways: `async with Line(target_url) as line: connect(line.url)`.

    Attributes:
        up, down: towards the server, and from it.
        refuses: whoever connects is cut at once.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._writers: set[asyncio.StreamWriter] = set()
        self._carrying: set[asyncio.Task[None]] = set()
        self.up, self.down = Direction(), Direction()
        self.refuses = False
        self.url = ""

    async def __aenter__(self) -> Line:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"{self._target.scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.cut()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def block(self, *directions: Direction) -> None:
        """Let nothing through any more."""
        for direction in directions:
            direction.flows.clear()

    def heal(self) -> None:
        """Be a good line again; what was held arrives."""
        for direction in (self.up, self.down):
            direction.latency_s, direction.bytes_per_s, direction.slice_bytes = 0.0, 0.0, CHUNK_BYTES
            direction.flows.set()
        self.refuses = False

    def cut(self) -> None:
        """Reset every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self.refuses:
                raise ConnectionRefusedError
            server_reader, server_writer = await asyncio.open_connection(self._target.hostname, self._target.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, server_writer}
        for task in (
            asyncio.ensure_future(_carry(reader, server_writer, self.up)),
            asyncio.ensure_future(_carry(server_reader, writer, self.down)),
        ):
            self._carrying.add(task)
            task.add_done_callback(self._carrying.discard)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way: Direction) -> None:
    """Carry one direction of one connection until it ends: a reader fills the way, a writer empties it in time."""
    in_flight: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(IN_FLIGHT_CHUNKS)
    arriving = asyncio.ensure_future(_arrive(in_flight, writer, way))
    loop = asyncio.get_running_loop()
    try:
        with contextlib.suppress(OSError):
            while data := await reader.read(way.slice_bytes):
                await in_flight.put((loop.time() + way.latency_s, data))
        await in_flight.put((loop.time() + way.latency_s, b""))
        await arriving
    finally:
        arriving.cancel()


async def _arrive(in_flight: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, way: Direction) -> None:
    """Write each chunk when it is due; an empty one is the end."""
    loop = asyncio.get_running_loop()
    with contextlib.suppress(OSError):
        while True:
            due_s, data = await in_flight.get()
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            await way.flows.wait()
            if not data or writer.transport.is_closing():
                break
            writer.write(data)
            await writer.drain()
            if way.bytes_per_s:
                await asyncio.sleep(len(data) / way.bytes_per_s)
    writer.close()
