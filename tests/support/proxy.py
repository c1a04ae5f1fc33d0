"""A TCP proxy that a test puts before a server: it records, delays, narrows, blocks, swallows, refuses and cuts."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Self
from urllib.parse import urlsplit

CHUNK_BYTES = 64 * 1024
IN_FLIGHT_CHUNKS = 256
"""What a direction holds of one connection while it delays; the sender's socket fills up behind it."""


@dataclass
class Direction:
    """One way over a proxy.

    Attributes:
        latency_s: how long each byte is on its way.
        bytes_per_s: of each connection; 0 for no limit.
        slice_bytes: pass on at most so much at a time, to show who takes one read for one message.
        swallows: take everything, pass on nothing.
        record: what has been taken is appended to it.
        flows: clear, and nothing is taken and nothing arrives any more: no data, no end, no reset.
    """

    latency_s: float = 0.0
    bytes_per_s: float = 0.0
    slice_bytes: int = CHUNK_BYTES
    swallows: bool = False
    record: bytearray | None = None
    flows: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.flows.set()

    def heal(self) -> None:
        """Be a good way again; what was held arrives, what was swallowed does not."""
        self.latency_s, self.bytes_per_s, self.slice_bytes, self.swallows = 0.0, 0.0, CHUNK_BYTES, False
        self.flows.set()


class Proxy:
    """Passes bytes between clients and a server: `async with Proxy(server.url) as proxy: connect(proxy.url)`.

    Attributes:
        target: where the server listens; connections made later go to what it says then.
        url: where the proxy listens, with the target's scheme and no path.
        up, down: towards the server, and from it.
        refuses: whoever connects is cut at once.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.url = ""
        self.up, self.down = Direction(), Direction()
        self.refuses = False
        self._connections: list[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = []
        self._carrying: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.url = f"{urlsplit(self.target).scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_error: object) -> None:
        self._server.close()
        self.cut()
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    # -- what is done to it -------------------------------------------------------------------------------------------

    def record(self) -> bytearray:
        """Return what clients send from now on, as it grows."""
        self.up.record = bytearray()
        return self.up.record

    def block(self, *directions: Direction) -> None:
        """Let nothing through any more, either way or only in the directions that are named."""
        for direction in directions or (self.up, self.down):
            direction.flows.clear()

    def strand(self) -> None:
        """Take nothing more from those who are connected now, for good; who connects later is served."""
        self.block(self.up)
        self.up = Direction(record=self.up.record)

    def heal(self) -> None:
        """Be a good line again; what was held arrives."""
        self.up.heal()
        self.down.heal()
        self.refuses = False

    def cut(self, *, but_first: int = 0) -> None:
        """Reset every connection, but for so many that came first."""
        for ends in self._connections[but_first:]:
            for writer in ends:
                writer.transport.abort()
        del self._connections[but_first:]

    # -- what a kind of proxy may do otherwise ------------------------------------------------------------------------

    def carry_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Coroutine[None, None, None]:
        """Pass on what one client sends, until either side ends."""
        return _carry(reader, writer, self.up)

    # -- private ------------------------------------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = urlsplit(self.target)
        try:
            if self.refuses:
                raise ConnectionRefusedError
            server_reader, server_writer = await asyncio.open_connection(address.hostname, address.port)
        except OSError:
            writer.transport.abort()
            return
        self._connections.append((writer, server_writer))
        for carry in (self.carry_up(reader, server_writer), _carry(server_reader, writer, self.down)):
            task = asyncio.ensure_future(carry)
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
                if way.record is not None:
                    way.record += data
                if not way.swallows:
                    await in_flight.put((loop.time() + way.latency_s, data))
                await way.flows.wait()
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
