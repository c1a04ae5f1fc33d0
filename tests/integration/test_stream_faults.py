"""What goes wrong on the way: slow readers, a stopped edge, a killed broker, a dead feed."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from typing import Any

import httpx
import nats

from shared.contracts.ids import new_id
from tests.support.clients import stream_client
from tests.support.edges import Edge, Edges, both_engines, until_ready
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected
from tests.support.waiting import eventually


async def unread_stream(edge: Edge, user: str) -> socket.socket:
    """Open a stream whose client never reads, with a small window."""
    address = httpx.URL(edge.url)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (address.host, address.port))
    authorization = edge.headers(user)["authorization"]
    request = f"GET /api/stream HTTP/1.1\r\nhost: x\r\nauthorization: {authorization}\r\n\r\n"
    await asyncio.get_running_loop().sock_sendall(sock, request.encode())
    await until_streams(edge, 1)
    return sock


async def metric(edge: Edge, name: str) -> float:
    """Return the value of a metric that has no labels, or with its labels in `name`."""
    lines = (await edge.http.get("/metrics")).text.splitlines()
    return float(next(line.rpartition(" ")[2] for line in lines if line.startswith(name + " ")))


async def until_streams(edge: Edge, count: int) -> None:
    """Return once the edge has this many streams."""
    async with asyncio.timeout(10):
        while await metric(edge, 'fanfare_sessions{transport="sse"}') != count:
            await asyncio.sleep(0.02)


@both_engines
async def test_a_client_that_stops_reading_slows_nobody_costs_little_and_is_ended(
    edges: Edges, producer: Producer
) -> None:
    edge = await edges.process("notifications", BACKLOG_BYTES="262144", SEND_TIMEOUT_S="0.5", LOG_LEVEL="warning")
    deaf, ears = new_id("u"), new_id("u")
    sock = await unread_stream(edge, deaf)
    async with stream_client(edge, ears) as client:
        before = await metric(edge, "process_resident_memory_bytes")
        slowest_s = 0.0
        for number in range(30):
            for _ in range(20):
                await producer.publish(f"notify.user.{deaf}", {"title": "t", "data": {"x": "x" * 50_000}})
            began = time.monotonic()
            await producer.notify(f"notify.user.{ears}", str(number))
            await client.next("notification")
            slowest_s = max(slowest_s, time.monotonic() - began)
        after = await metric(edge, "process_resident_memory_bytes")
        await until_streams(edge, 1)
    sock.close()
    edge.signal(signal.SIGTERM)

    assert slowest_s < 0.5
    assert after - before < 12_000_000  # of 30,000,000 that it was sent
    assert await edge.process.wait() == 0
    assert "Traceback" not in edge.log.read_text()


@both_engines
async def test_a_fast_client_that_missed_more_than_a_backlog_is_not_taken_for_a_slow_one(
    edges: Edges, producer: Producer
) -> None:
    small = {"backlog_bytes": 256 * 1024}
    a, b, user = await edges.notifications(**small), await edges.notifications(**small), new_id("u")
    async with stream_client(a, user) as client:
        cursor = client.last_id
    for number in range(300):
        await producer.store(f"notify.user.{user}", {"title": str(number), "body": "x" * 4000})
    for edge in (a, b):  # from the ring and the stream, and from the stream alone
        async with stream_client(edge, user, last_event_id=cursor) as client:
            await client.next("notification", lambda frame: frame["title"] == "299")
            assert len(client.inbox.of_type("notification")) == 300


@both_engines
async def test_an_edge_that_is_told_to_stop_asks_every_client_to_come_back_elsewhere(
    edges: Edges, producer: Producer
) -> None:
    edge, other = await edges.process("notifications"), await edges.notifications()
    users = [new_id("u") for _ in range(10)]
    async with asyncio.timeout(20):
        cursors = await asyncio.gather(*(asked_to_leave(edge, user) for user in users[:-1]), stop(edge, users[-1]))
        status = await edge.process.wait()
    assert status == 0, edge.log.read_text()
    for user, (after_ms, cursor) in zip(users, cursors, strict=True):
        assert 0 <= after_ms <= 2000
        await producer.notify(f"notify.user.{user}", "while away")
        async with stream_client(other, user, last_event_id=cursor) as client:
            assert (await client.next("notification"))["title"] == "while away"


async def asked_to_leave(edge: Edge, user: str) -> tuple[int, str]:
    """Stay until asked to leave and cut off; return when to come back and with what cursor."""
    async with stream_client(edge, user) as client:
        reconnect = await client.next("reconnect")
        await client.ended()
        assert client.inbox.frames[-1]["type"] == "reconnect"
        return reconnect["afterMs"], reconnect["cursor"]


async def stop(edge: Edge, user: str) -> tuple[int, str]:
    """Do as the others do, once all are there; end the edge in between, which takes less than ten seconds."""
    async with stream_client(edge, user) as client:
        async with asyncio.timeout(5):
            while 'fanfare_sessions{transport="sse"} 10.0' not in (await edge.http.get("/metrics")).text:
                await asyncio.sleep(0.02)
        began = time.monotonic()
        edge.signal(signal.SIGTERM)  # type: ignore[attr-defined]
        reconnect = await client.next("reconnect")
        await edge.process.wait()  # type: ignore[attr-defined]
        assert time.monotonic() - began < 10
        return reconnect["afterMs"], reconnect["cursor"]


async def test_streams_outlive_a_broker_that_is_killed_and_nothing_is_lost_or_doubled(
    own_edges: Edges, nats_server: NatsServer
) -> None:
    a, b, user, topic = await own_edges.notifications(), await own_edges.notifications(), new_id("u"), new_id("t")
    symbol = new_id("S")
    async with (
        stream_client(a, user, topics=topic) as one,
        stream_client(b, user, topics=topic) as other,
        connected(nats_server.url) as producer,
    ):
        before = await producer.notify(f"notify.user.{user}", "1", "2")
        await nats_server.crash_and_restart()
        async with asyncio.timeout(15):
            after: list[str] = []
            while len(after) < 3:
                try:
                    after += await producer.notify(f"notify.user.{user}", str(3 + len(after)))
                except nats.errors.Error:  # until it is connected again
                    await asyncio.sleep(0.05)
            for edge in (a, b):
                await until_ready(edge.http)
        await producer.notify(f"notify.topic.{topic}", "end")
        await a.http.post("/api/stocks/subscribe", json={"symbols": [symbol]}, headers=a.headers(user))
        await producer.tick(symbol, 5)
        for client in (one, other):
            await client.inbox.until(lambda inbox: len(inbox.of_type("notification")) >= 6)
            notices = client.inbox.of_type("notification")
            assert [frame["title"] for frame in notices if "topic" not in frame] == before + after
            assert [frame["title"] for frame in notices if "topic" in frame] == ["end"]
            assert (await client.next("price_update"))["price"] == 5


async def test_prices_are_flagged_stale_when_their_producer_dies_and_fresh_when_it_is_back(
    own_edges: Edges,
) -> None:
    edge = await own_edges.notifications()
    feed = await own_edges.process("price_feed", PRICE_SYMBOLS="3", PRICE_SEED="1")
    async with stream_client(edge, "u") as client:

        async def listed() -> dict[str, Any]:
            return dict((await edge.http.get("/api/stocks", headers=edge.headers("u"))).json())

        async def has_prices() -> bool:
            return bool((await listed())["symbols"])

        await eventually(has_prices)
        symbol = (await listed())["symbols"][0]["symbol"]
        assert (await listed())["stale"] is False
        await edge.http.post("/api/stocks/subscribe", json={"symbols": [symbol]}, headers=edge.headers("u"))
        await client.next("price_update", lambda frame: "stale" not in frame)
        await feed.kill()
        began = time.monotonic()
        await client.next("price_update", lambda frame: frame.get("stale") is True)
        assert time.monotonic() - began < 2.5
        await own_edges.process("price_feed", PRICE_SYMBOLS="3", PRICE_SEED="1")
        await client.next("price_update", lambda frame: "stale" not in frame)
