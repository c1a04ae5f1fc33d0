"""The stream as a browser meets it: headers, `connected`, and the events of requirements S1, S2, S3 and S8."""

from __future__ import annotations

import asyncio

from shared.clock import now_ms
from shared.contracts.claims import USER_SCOPES
from shared.contracts.ids import new_id
from tests.support.clients import StreamClient, stream_client
from tests.support.edges import Edge, Edges, both_engines
from tests.support.producer import Producer


async def raw(edge: Edge, wanted: bytes, **query: str) -> bytes:
    """Return a stream's bytes up to and with `wanted`."""
    got = b""
    async with (
        asyncio.timeout(10),
        edge.http.stream("GET", "/api/stream", params=query, headers=edge.headers("u")) as r,
    ):
        async for chunk in r.aiter_raw():
            got += chunk
            if wanted in got:
                break
    return got


async def prices(client: StreamClient, symbol: str, price: float) -> dict[str, object]:
    """Return the price update that says so."""
    return await client.next("price_update", lambda f: f["symbol"] == symbol and f["price"] == price)


@both_engines
async def test_s1_the_headers_keep_proxies_from_buffering_and_caching(edges: Edges) -> None:
    edge = await edges.notifications()
    async with stream_client(edge, "u") as client:
        headers = client.response.headers

        assert headers["content-type"].partition(";")[0] == "text/event-stream"
        assert headers["cache-control"] in {"no-cache", "no-store"}
        assert headers["connection"] == "keep-alive"
        assert headers["x-accel-buffering"] == "no"


@both_engines
async def test_s2_the_first_event_is_connected(edges: Edges) -> None:
    edge = await edges.notifications()
    async with stream_client(edge, "alice") as client:
        first = client.inbox.frames[0]

        assert first["type"] == "connected"
        assert first["userId"] == "alice"
        assert abs(first["timestamp"] - now_ms()) < 5_000
        assert first["stream"].startswith(f"{edge.name}.")
        assert first["cursor"] == first["_id"] == client.last_id


@both_engines
async def test_s3_unnamed_events_carry_their_type_as_the_articles_client_reads_it(
    edges: Edges, producer: Producer
) -> None:
    edge, user, symbol = await edges.notifications(), new_id("u"), new_id("S")
    async with stream_client(edge, user, symbols=symbol, scope=f"{USER_SCOPES} ops:read") as client:
        await producer.tick(symbol, 5)
        await producer.notify(f"notify.user.{user}", "hi")
        await producer.beat(new_id("part"))
        for type_ in ("connected", "price_update", "notification", "system_status"):
            event = client.inbox.of_type(type_)[0] if type_ == "connected" else await client.next(type_)
            assert event["_event"] == "message"
            assert "timestamp" in event or "createdAt" in event


@both_engines
async def test_s3_named_channels_on_request(edges: Edges, producer: Producer) -> None:
    edge, user, symbol = await edges.notifications(), new_id("u"), new_id("S")
    async with stream_client(edge, user, symbols=symbol, events="named") as client:
        await producer.tick(symbol, 5)
        await producer.notify(f"notify.user.{user}", "hi")
        await prices(client, symbol, 5)
        await client.next("notification")

        assert all(frame["_event"] == frame["type"] for frame in client.inbox.frames)


@both_engines
async def test_s3_an_unknown_form_of_events_is_refused(edges: Edges) -> None:
    edge = await edges.notifications()
    refused = await edge.http.get("/api/stream", params={"events": "both"}, headers=edge.headers("u"))

    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/problem+json"


@both_engines
async def test_s3_a_comment_is_the_heartbeat_and_each_stream_has_its_own_retry(edges: Edges) -> None:
    edge = await edges.notifications(heartbeat_s=0.1, retry_ms=1000)
    got = [await raw(edge, b": keep-alive\r\n\r\n") for _ in range(3)]
    retries = [int(each.partition(b"retry: ")[2].partition(b"\r\n")[0]) for each in got]

    assert all(each.startswith(b"retry: ") for each in got)
    assert all(500 <= retry <= 1500 for retry in retries)
    assert len(set(retries)) > 1


async def test_s8_a_ticker_gets_each_symbols_newest_value_and_whether_it_went_up_or_down(
    edges: Edges, producer: Producer
) -> None:
    a, b, symbol = await edges.notifications(), await edges.notifications(), new_id("S")
    async with (
        stream_client(a, "u", symbols=symbol, max_rate="50") as one,
        stream_client(b, "v", symbols=symbol, max_rate="50") as other,
    ):
        await producer.tick(symbol, 100)
        for client in (one, other):
            await prices(client, symbol, 100)
        await producer.tick(symbol, 90)
        for client in (one, other):
            down = await prices(client, symbol, 90)
            assert (down["previous"], down["change"], down["changePercent"]) == (100, -10, -10)
    listed = (await a.http.get("/api/stocks", headers=a.headers("u"))).json()
    assert [each["price"] for each in listed["symbols"] if each["symbol"] == symbol] == [90]


async def test_s8_a_client_gets_as_many_updates_as_it_asked_for(edges: Edges, producer: Producer) -> None:
    edge, symbol = await edges.notifications(), new_id("S")
    async with (
        stream_client(edge, "slow", symbols=symbol, max_rate="2") as slow,
        stream_client(edge, "fast", symbols=symbol, max_rate="50") as fast,
    ):
        for number in range(1, 101):
            await producer.tick(symbol, number)
            await asyncio.sleep(0.01)  # the producer's own pace
        for client in (slow, fast):
            await prices(client, symbol, 100)

        assert len(slow.inbox.of_type("price_update")) <= 6
        assert len(fast.inbox.of_type("price_update")) >= 15


async def test_s8_a_dashboard_gets_the_status_and_the_metrics_of_every_part(edges: Edges, producer: Producer) -> None:
    edge, part = await edges.notifications(), new_id("part")
    await producer.beat(part, "early", cpu=0.5)
    async with stream_client(edge, "ops", scope="stream ops:read", events="named") as client:
        early = await client.next("system_status", lambda frame: frame["component"] == part)
        assert (early["instance"], early["metrics"]) == ("early", {"cpu": 0.5})
        await producer.beat(part, "late", status="draining")
        late = await client.next("system_status", lambda frame: frame["component"] == part)
        assert (late["instance"], late["status"]) == ("late", "draining")


async def test_s8_a_stream_of_thousands_of_symbols_is_refused_clearly(edges: Edges) -> None:
    edge = await edges.notifications(max_symbols=10)
    symbols = ",".join(f"S{number}" for number in range(11))
    refused = await edge.http.get("/api/stream", params={"symbols": symbols}, headers=edge.headers("u"))

    assert refused.status_code == 400
    assert "10 symbols" in refused.json()["detail"]
