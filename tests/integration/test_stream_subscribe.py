"""POST changes what an open stream delivers, whichever edge it reaches (requirement S4)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from shared.contracts.ids import new_id
from tests.support.clients import StreamClient, stream_client
from tests.support.edges import Edge, Edges
from tests.support.hostile import BAD_IDS
from tests.support.producer import Producer

WITHIN_S = 0.2


async def post(edge: Edge, user: str, call: str, symbols: Any, stream: str | None = None) -> httpx.Response:
    body = {"symbols": symbols} | ({"stream": stream} if stream else {})
    return await edge.http.post(f"/api/stocks/{call}", json=body, headers=edge.headers(user))


async def snapshot(client: StreamClient, symbol: str) -> dict[str, Any]:
    """Return the value of a symbol in the next snapshot that has it."""
    frame = await client.next("snapshot", lambda frame: any(each["symbol"] == symbol for each in frame["symbols"]))
    found: dict[str, Any] = next(each for each in frame["symbols"] if each["symbol"] == symbol)
    return found


def name_of(client: StreamClient) -> str:
    stream: str = client.inbox.frames[0]["stream"]
    return stream


@pytest.mark.parametrize("form", ["watchlist", "stream"])
async def test_s4_a_post_at_edge_b_changes_a_stream_on_edge_a_at_once_with_a_snapshot(
    edges: Edges, producer: Producer, form: str
) -> None:
    a, b, user = await edges.notifications(), await edges.notifications(), new_id("u")
    symbols = [new_id("S") for _ in range(3)]
    for symbol in symbols:
        await producer.tick(symbol, 7)
    async with stream_client(a, user) as client:
        stream = name_of(client) if form == "stream" else None
        took_s = []
        for symbol in symbols:
            began = time.monotonic()
            answer, seen = await asyncio.gather(post(b, user, "subscribe", [symbol], stream), snapshot(client, symbol))
            took_s.append(time.monotonic() - began)
            assert answer.status_code == 200
            assert symbol in answer.json()["symbols"]
            assert seen["price"] == 7
        assert sorted(took_s)[1] < WITHIN_S

        await post(b, user, "unsubscribe", [symbols[0]], stream)
        await producer.tick(symbols[0], 8)
        await producer.tick(symbols[1], 8)
        await client.next("price_update", lambda frame: frame["symbol"] == symbols[1])
        assert symbols[0] not in [frame["symbol"] for frame in client.inbox.of_type("price_update")]


async def test_s4_the_watchlist_is_there_for_the_users_next_stream(edges: Edges, producer: Producer) -> None:
    a, b, user, symbol = await edges.notifications(), await edges.notifications(), new_id("u"), new_id("S")
    await producer.tick(symbol, 7)
    await post(a, user, "subscribe", [symbol])
    async with stream_client(b, user) as client:
        assert (await snapshot(client, symbol))["price"] == 7


async def test_s4_two_changes_at_once_lose_nothing(edges: Edges) -> None:
    a, b, user = await edges.notifications(), await edges.notifications(), new_id("u")
    symbols = [new_id("S") for _ in range(6)]
    await asyncio.gather(
        *(post(edge, user, "subscribe", [s]) for s, edge in zip(symbols, [a, b] * 3, strict=True)),
    )

    assert (await post(a, user, "unsubscribe", ["NONE"])).json()["symbols"] == sorted(symbols)


async def test_s4_anothers_stream_is_gone_for_whoever_names_it(edges: Edges) -> None:
    a, b, symbol = await edges.notifications(), await edges.notifications(), new_id("S")
    async with stream_client(a, "alice") as client:
        refused = await post(b, "mallory", "subscribe", [symbol], name_of(client))
        renewal = await b.http.post(
            f"/api/stream/{name_of(client)}/token",
            json={"token": b.mint.token("mallory")},
            headers=b.headers("mallory"),
        )

    assert (refused.status_code, renewal.status_code) == (410, 410)
    assert refused.json()["code"] == "gone"


async def test_s4_a_stream_that_has_ended_and_an_edge_that_is_unknown_are_gone(edges: Edges) -> None:
    edge = await edges.notifications()
    async with stream_client(edge, "u") as client:
        ended = name_of(client)
    async with asyncio.timeout(5):
        while (await post(edge, "u", "subscribe", ["A"], ended)).status_code != 410:
            await asyncio.sleep(0.01)
    unknown = await post(edge, "u", "subscribe", ["A"], f"nowhere.{new_id()}")

    assert unknown.status_code == 410
    assert unknown.json()["detail"] == "the stream has ended; open a new one"


async def test_s4_a_name_that_is_no_streams_is_refused(edges: Edges) -> None:
    edge = await edges.notifications()
    names = ["nodot", "a.b.c", "*.>", "a b.c", "a.", "x" * 200]
    refused = [await post(edge, "u", "subscribe", ["A"], name) for name in names]

    assert [each.status_code for each in refused] == [404, 400, 400, 400, 400, 400]


async def test_s4_what_are_no_symbols_is_refused(edges: Edges) -> None:
    edge = await edges.notifications()
    hostile: list[Any] = [[], None, "A", [1], {}, ["A"] * 1001, *([each] for each in BAD_IDS)]
    for symbols in hostile:
        refused = await post(edge, "u", "subscribe", symbols)
        assert refused.status_code == 400, symbols
        assert refused.headers["content-type"] == "application/problem+json"


async def test_s4_a_watchlist_and_a_stream_have_their_limit(edges: Edges) -> None:
    edge, user = await edges.notifications(max_symbols=3), new_id("u")
    async with stream_client(edge, user) as client:
        for stream in (None, name_of(client)):
            assert (await post(edge, user, "subscribe", ["A", "B", "C"], stream)).status_code == 200
            refused = await post(edge, user, "subscribe", ["D"], stream)

            assert refused.status_code == 400
            assert "3 symbols" in refused.json()["detail"]
