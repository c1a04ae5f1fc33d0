"""What abuse must not touch: another client of the same edge, and the edge's memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from shared.contracts.ids import new_id
from tests.support.clients import chat_client
from tests.support.edges import EdgeProcess

MAX_LATENCY_S = 2.0  # of one call, on a machine that runs other tests as well; unharmed it is a few milliseconds
MAX_GROWTH_BYTES = 32 << 20
PAGE_BYTES = 4096


@asynccontextmanager
async def served_meanwhile(edge: EdgeProcess) -> AsyncIterator[None]:
    """Pass if, as long as the block lasts, another client of the edge is answered promptly and memory stays bounded."""
    before = memory_bytes(edge)
    async with _neighbour(edge) as call:
        calling = asyncio.ensure_future(_slowest(call))
        try:
            yield
            slowest_s = max(await _stop(calling), await _timed(call))
        finally:
            calling.cancel()
    assert edge.process.returncode is None
    assert slowest_s < MAX_LATENCY_S
    assert memory_bytes(edge) - before < MAX_GROWTH_BYTES


def memory_bytes(edge: EdgeProcess) -> int:
    """Return the resident memory of an edge's process."""
    return int(Path(f"/proc/{edge.process.pid}/statm").read_text().split()[1]) * PAGE_BYTES


def cpu_s(edge: EdgeProcess) -> float:
    """Return the processor time that an edge has used, by the kernel's clock of a hundredth."""
    user, system = Path(f"/proc/{edge.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / 100


@asynccontextmanager
async def _neighbour(edge: EdgeProcess) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    user = new_id("neighbour-")
    if edge.name.startswith("chat"):
        async with chat_client(edge, user, rooms=[new_id("room-")]) as client:
            yield lambda: client.say("still here?")
    else:
        yield lambda: edge.http.get("/api/stocks", headers=edge.headers(user))


async def _slowest(call: Callable[[], Awaitable[object]]) -> float:
    slowest_s = 0.0
    try:
        while True:
            slowest_s = max(slowest_s, await _timed(call))
            await asyncio.sleep(0.01)
    except asyncio.CancelledError:
        return slowest_s


async def _stop(calling: asyncio.Future[float]) -> float:
    calling.cancel()
    return await calling


async def _timed(call: Callable[[], Awaitable[object]]) -> float:
    began = time.monotonic()
    await call()
    return time.monotonic() - began
