"""A TCP switch: one port before several edges, as a load balancer without stickiness is."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx

from tests.support.edges import Edge


class Switch:
    """Passes each new connection to the edge that it points at then."""

    def __init__(self, edge: Edge) -> None:
        self.edge = edge
        self.url = ""

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry one connection both ways until either side ends it."""
        address = httpx.URL(self.edge.url)
        try:
            edge_reader, edge_writer = await asyncio.open_connection(address.host, address.port)
        except OSError:
            writer.transport.abort()
            return
        await asyncio.gather(_pump(reader, edge_writer), _pump(edge_reader, writer))


@asynccontextmanager
async def switch(edge: Edge) -> AsyncIterator[Switch]:
    """Yield a switch that points at `edge`."""
    made = Switch(edge)
    server = await asyncio.start_server(made.pass_on, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()
