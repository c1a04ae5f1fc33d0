"""More ticks than an edge can take: prices have a link of their own, and nothing else pays for them."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from shared.clock import now_ms
from shared.contracts.ids import new_id
from tests.support.clients import stream_client
from tests.support.edges import Edge, EdgeProcess, Edges, both_engines, open_edges, until_ready
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected
from tests.support.proxy import Proxy

BURST = 1_000
DEADLINE_S = 10
FLUSHES = 80


class Flood:
    """A bare connection to NATS that publishes faster than a client library does."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def pour(self, symbol: str, price: int, more: bytes = b"") -> None:
        """Publish BURST ticks of as many symbols, and one of `symbol`; with `more` in each."""
        names = [*(f"F{number}" for number in range(BURST)), symbol]
        for name in names:
            data = b'{"symbol":"%b","price":%d,"timestamp":%d%b}' % (name.encode(), price, now_ms(), more)
            self._writer.write(b"PUB prices.%b %d\r\n%b\r\n" % (name.encode(), len(data), data))
        await self._writer.drain()


@asynccontextmanager
async def flooding(url: str) -> AsyncIterator[Flood]:
    """Yield a flood."""
    host, _, port = url.removeprefix("nats://").rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false}\r\n')
    try:
        yield Flood(writer)
    finally:
        writer.close()


async def broker_event(edge: Edge, link: str, event: str) -> float:
    """Return how often a link has met something."""
    name = f'fanfare_broker_events_total{{event="{event}",link="{link}"}} '
    lines = (await edge.http.get("/metrics")).text.splitlines()
    return float(next((line.removeprefix(name) for line in lines if line.startswith(name)), 0))


async def test_a_flood_slows_no_notification_and_cuts_no_link(edges: Edges, producer: Producer, nats_url: str) -> None:
    edge, user, symbol = await edges.process("notifications"), new_id("u"), new_id("S")
    async with stream_client(edge, user, symbols=symbol) as client, flooding(nats_url) as flood:
        slowest_s = 0.0
        for price in range(1, 101):
            await flood.pour(symbol, price)
            if price % 10 == 0:
                began_s = time.monotonic()
                await producer.notify(f"notify.user.{user}", str(price))
                await client.next("notification")
                slowest_s = max(slowest_s, time.monotonic() - began_s)
        await client.next("price_update", lambda frame: frame["price"] == 100)

    assert slowest_s < 1
    assert await broker_event(edge, "prices", "disconnected") == await broker_event(edge, "main", "disconnected") == 0


@both_engines
async def test_a_client_that_did_not_read_is_shown_the_newest_of_each_symbol_and_stays(
    edges: Edges, nats_url: str
) -> None:
    edge, symbol = await edges.notifications(), new_id("S")
    watched = [f"F{number}" for number in range(900)]
    query = f"symbols={','.join(watched)}&max_rate=50"
    async with raw_stream(edge, "deaf", query) as reader, flooding(nats_url) as flood:
        async with stream_client(edge, "pace", symbols=symbol, max_rate="50") as pace:
            for price in range(1, FLUSHES + 1):  # 11 MB for the one that does not read: more than sockets hold
                await flood.pour(symbol, price)
                await pace.next("price_update", lambda frame, price=price: frame["price"] == price)  # type: ignore[misc]
        seen: dict[str, list[tuple[float, bool]]] = {name: [] for name in watched}
        async with asyncio.timeout(DEADLINE_S):
            while any(not prices or prices[-1][0] != FLUSHES for prices in seen.values()):
                line = await reader.readline()
                assert line, "it was ended"
                if b'"type":"price_update"' in line:
                    update = json.loads(line.removeprefix(b"data: "))
                    seen[update["symbol"]].append((update["price"], "stale" in update))

    for prices in seen.values():  # a price is told again only with what has become of it
        assert all(before[0] <= after[0] and before != after for before, after in pairwise(prices))
    assert max(len(prices) for prices in seen.values()) < FLUSHES / 2


@asynccontextmanager
async def raw_stream(edge: Edge, user: str, query: str) -> AsyncIterator[asyncio.StreamReader]:
    """Open a stream whose client reads when it is told to, with a small window."""
    address = httpx.URL(edge.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 18)
    authorization = edge.headers(user)["authorization"]
    writer.write(f"GET /api/stream?{query} HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n".encode())
    while b'"type":"snapshot"' not in await reader.readline():
        pass
    try:
        yield reader
    finally:
        writer.close()


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server that cuts whoever leaves a megabyte unread."""
    async with NatsServer(tmp_path / "impatient", extra_config="max_pending: 1MB") as server:
        yield server


async def test_an_edge_that_is_too_slow_loses_its_price_link_alone_and_loads_what_it_missed(
    impatient: NatsServer, tmp_path: Path
) -> None:
    async with open_edges(impatient.url, tmp_path) as edges, connected(impatient.url) as producer:
        edge, user, symbol = await edges.process("notifications"), new_id("u"), new_id("S")
        async with stream_client(edge, user, symbols=symbol) as client, flooding(impatient.url) as flood:
            await flood.pour(symbol, 1)
            await client.next("price_update")
            edge.signal(signal.SIGSTOP)
            for price in range(2, 20):  # 20 MB: more than sockets hold
                await flood.pour(symbol, price, b',"more":"%b"' % (b"x" * 1_000))
            await producer.notify(f"notify.user.{user}", "meanwhile")
            await until_cut(impatient)
            await flood.pour(symbol, 20)  # while the link is gone
            edge.signal(signal.SIGCONT)

            assert (await client.next("notification"))["title"] == "meanwhile"
            await client.next("price_update", lambda frame: frame["price"] == 20)
            await reconnected(edge)
            await flood.pour(symbol, 21)
            await client.next("price_update", lambda frame: frame["price"] == 21 and "stale" not in frame)
            assert await broker_event(edge, "main", "disconnected") == 0
            await until_ready(edge.http)


async def test_without_its_price_link_an_edge_says_stale_keeps_its_streams_and_is_not_ready(
    nats_url: str, tmp_path: Path, producer: Producer
) -> None:
    async with Proxy(nats_url) as proxy, open_edges(proxy.url, tmp_path) as edges:
        edge, user, symbol = await edges.notifications(), new_id("u"), new_id("S")
        async with stream_client(edge, user, symbols=symbol) as client:
            await producer.tick(symbol, 5)
            await client.next("price_update", lambda frame: "stale" not in frame)
            proxy.refuses = True
            proxy.cut(but_first=1)
            async with asyncio.timeout(DEADLINE_S):
                while not (await client_beats(producer, client.next("price_update"))).get("stale"):
                    pass
            await producer.notify(f"notify.user.{user}", "still here")
            assert (await client.next("notification"))["title"] == "still here"
            answer = await edge.http.get("/readyz")

        assert list(answer.json()["reasons"]) == ["notifications.broker.prices"]
        assert edge.count("broker_events", link="prices", event="disconnected") == 1


async def client_beats(producer: Producer, shown: object) -> dict[str, object]:
    """Let the feed live, as the main link can tell, until something is shown."""
    task = asyncio.ensure_future(shown)  # type: ignore[arg-type]
    while not task.done():
        await producer.beat("price_feed")
        await asyncio.wait({task}, timeout=0.2)
    return dict(await task)


async def until_cut(server: NatsServer) -> None:
    """Return once the server has cut a slow consumer."""
    async with asyncio.timeout(DEADLINE_S):
        while "Slow Consumer" not in server.log_file.read_text():
            await asyncio.sleep(0.02)


async def reconnected(edge: EdgeProcess) -> None:
    """Return once the price link is back."""
    async with asyncio.timeout(DEADLINE_S):
        while not await broker_event(edge, "prices", "reconnected"):
            await asyncio.sleep(0.02)
