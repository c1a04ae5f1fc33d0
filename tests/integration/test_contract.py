"""Every frame and every event of the contract is really sent, with every field that it may have; and no other.

The clients hold what comes to its model; here is made to happen all that a client can be told.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from jsonschema import Draft7Validator

from shared.contracts import subjects
from shared.contracts.server_frames import SERVER_FRAMES
from shared.contracts.stream_events import STREAM_EVENTS
from shared.edge.delivery.overflow import OverflowLimits
from tests.support.clients import ChatClient, StreamClient, chat_client, stream_client
from tests.support.contract import data_of, fields_of, fields_seen
from tests.support.edges import Edges, LocalEdge
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected
from tests.support.waiting import eventually

ROOM, PRIVATE = "room", "private"
SPECS = Path(__file__).parents[1] / "clients" / "node_modules" / "@asyncapi" / "specs" / "schemas"
NEVER_READ = 200
"""Messages of 12 KB that fill a socket's buffers, and the events behind them that a slow client may not lose."""


@pytest.fixture
async def producer(nats_server: NatsServer) -> AsyncIterator[Producer]:
    """A producer, and an operator who purges, on this test's own server."""
    async with connected(nats_server.url) as producer:
        yield producer


# -- the chat ---------------------------------------------------------------------------------------------------------


async def test_the_chat_sends_every_frame_of_the_contract_and_every_field(own_edges: Edges, producer: Producer) -> None:
    edge = await own_edges.chat(backlog_bytes=1 << 25, message_limit=1_000, command_burst=10)
    async with AsyncExitStack() as stack:
        expiring = await stack.enter_async_context(chat_client(edge, "dave", ttl_s=2))
        clients = [
            expiring,
            *await conversation(edge, stack),
            await refusals(edge, stack),
            await losses(own_edges, edge, stack, producer),
            await slowness(edge, stack),
        ]
        await expiring.inbox.next("token_expiring")
        await edge.lifecycle.drain()
        await clients[-1].inbox.next("reconnect")
    received = [(frame["type"], frame["data"]) for client in clients for frame in client.inbox.frames]

    assert fields_seen(received) == fields_of(SERVER_FRAMES)


async def conversation(edge: LocalEdge, stack: AsyncExitStack) -> list[ChatClient]:
    """Two users meet in a room; each frame of theirs is answered under its id."""
    alice = await stack.enter_async_context(chat_client(edge, rooms=[ROOM]))
    await alice.send("auth", {"token": edge.mint.token("alice")}, id="1")
    assert (await alice.inbox.next("connected"))["id"] == "1"
    bob = await stack.enter_async_context(chat_client(edge, "bob", rooms=[ROOM]))
    await alice.inbox.next("presence_update")
    await bob.send("typing_status", {"isTyping": True})
    await alice.inbox.next("typing_indicator")
    assert (await bob.say("hi", clientId="c1"))["clientId"] == "c1"
    await alice.hears("hi")
    for type_, data, answer in (
        ("join", {"room": "other"}, "joined"),
        ("leave", {"room": "other"}, "left"),
        ("mark_read", {"room": ROOM}, "read"),
        ("ping", {}, "pong"),
        ("auth", {"token": edge.mint.token("alice")}, "renewed"),
    ):
        await alice.send(type_, data, id=type_)
        assert (await alice.inbox.next(answer))["id"] == type_
    return [alice, bob]


async def refusals(edge: LocalEdge, stack: AsyncExitStack) -> ChatClient:
    """A user does too much, and loses a room."""
    room = {"room": PRIVATE, "private": True, "members": ["carol"]}
    await edge.http.post("/api/chat/rooms", json=room, headers=edge.headers("owner"))
    carol = await stack.enter_async_context(chat_client(edge, "carol", rooms=["lobby", PRIVATE]))
    await edge.http.delete(f"/api/chat/rooms/{PRIVATE}", headers=edge.headers("owner"))
    await carol.inbox.next("left")
    await carol.send("join", {"room": PRIVATE})
    assert (await carol.inbox.next("error"))["data"]["room"] == PRIVATE
    for _ in range(20):
        await carol.send("ping")
    await carol.inbox.next("error", lambda frame: "retryAfterMs" in frame["data"])
    return carol


async def losses(edges: Edges, edge: LocalEdge, stack: AsyncExitStack, operator: Producer) -> ChatClient:
    """Messages are dropped before a client has come back for them, and it has another cursor that means nothing."""
    async with chat_client(edge, "erin", rooms=["lost"]) as client:
        cursor = (await client.say("seen"))["cursor"]
    async with chat_client(edge, "frank", rooms=["lost"]) as client:
        await client.say("missed")
    await operator.js.purge_stream("CHAT", subject=subjects.chat_message("lost"))
    other = await edges.chat()  # the first has them still
    late = await stack.enter_async_context(chat_client(other, "erin", rooms=["lost", ROOM], cursors=[cursor, "zzz:1"]))
    await late.inbox.next("gap")
    await late.inbox.next("resync")
    return late


async def slowness(edge: LocalEdge, stack: AsyncExitStack) -> ChatClient:
    """A client reads nothing for a while, and misses that somebody types."""
    slow = await stack.enter_async_context(chat_client(edge, "slow", rooms=["busy"]))
    busy = await stack.enter_async_context(chat_client(edge, "busy", rooms=["busy"]))
    witness = await stack.enter_async_context(chat_client(edge, "witness", rooms=["busy"]))
    slow.reading.clear()
    for _ in range(NEVER_READ):
        await busy.send("send_message", {"content": "\N{EURO SIGN}" * 4096})
    await busy.inbox.until(lambda inbox: len(inbox.of_type("ack")) == NEVER_READ)
    await busy.send("typing_status", {"isTyping": True})
    await witness.inbox.next("typing_indicator")
    slow.reading.set()
    await slow.inbox.next("dropped", lambda frame: frame["data"] == {"kind": "typing_indicator", "count": 1})
    return slow


# -- the stream -------------------------------------------------------------------------------------------------------


async def test_the_stream_sends_every_event_of_the_contract_and_every_field(
    own_edges: Edges, producer: Producer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.runtime.edge.OverflowLimits", partial(OverflowLimits, latest_keys=1))
    edge = await own_edges.notifications(stale_after_s=0.5, backlog_bytes=1 << 25)
    async with AsyncExitStack() as stack:
        expiring = await stack.enter_async_context(stream_client(edge, "v", ttl_s=2))
        clients = [
            expiring,
            await news(edge, stack, producer),
            await lost_events(own_edges, edge, stack, producer),
            await lost_prices(edge, stack, producer),
        ]
        await expiring.next("token_expiring")
        await expiring.next("error")
        await edge.lifecycle.drain()
        await clients[-1].next("reconnect")
    received = [(event["type"], data_of(event)) for client in clients for event in client.inbox.frames]

    assert fields_seen(received) == fields_of(STREAM_EVENTS)


async def news(edge: LocalEdge, stack: AsyncExitStack, producer: Producer) -> StreamClient:
    """A user follows all there is."""
    opening = stream_client(edge, "u", scope="stream topic:* ops:read", symbols="ACME", topics="releases", logs="info")
    client = await stack.enter_async_context(opening)
    await client.next("snapshot")
    await producer.store("notify.topic.releases", {"title": "1.4 is out", "data": {"url": "…"}})
    await client.next("notification")
    await producer.beat("part", cpu=0.5)
    await client.next("system_status")
    await eventually(partial(producer.listens, "logs.part.one"))
    await producer.log("part", "disk_full", fields={"path": "/data", "free": 0}, truncated=True, dropped=3)
    await client.next("log")
    for price in (100, 90):
        await producer.tick("ACME", price)
        await client.next("price_update", lambda event, price=price: event["price"] == price)  # type: ignore[misc]
    await client.next("price_update", lambda event: "stale" in event)
    return client


async def lost_events(edges: Edges, edge: LocalEdge, stack: AsyncExitStack, producer: Producer) -> StreamClient:
    """Events are dropped before a client comes back for them; later it comes with a cursor that means nothing."""
    async with stream_client(edge, "w") as client:
        await producer.notify("notify.user.w", "seen")
        await client.next("notification")
        cursor = client.last_id
    await producer.notify("notify.user.w", "missed")
    await producer.js.purge_stream("NOTIFY", subject="notify.user.w")
    other = await edges.notifications()  # the first has them still
    async with stream_client(other, "w", last_event_id=cursor) as client:
        gap = await client.next("gap")
    late = await stack.enter_async_context(stream_client(edge, "w", last_event_id="zzz:1"))
    await late.next("resync")
    late.inbox.put(gap)
    return late


async def lost_prices(edge: LocalEdge, stack: AsyncExitStack, producer: Producer) -> StreamClient:
    """A client reads nothing for a while, and misses the prices of more symbols than are kept for it."""
    slow, witness = [
        await stack.enter_async_context(stream_client(edge, user, topics="flood", symbols="A,B,C"))
        for user in ("slow", "witness")
    ]
    slow.reading.clear()
    for number in range(NEVER_READ):
        await producer.store("notify.topic.flood", {"title": str(number), "body": "\N{EURO SIGN}" * 4096})
    await witness.next("notification", lambda event: event["title"] == str(NEVER_READ - 1))
    for symbol in "ABC":
        await producer.tick(symbol, 1)
    await witness.inbox.until(lambda inbox: {event["symbol"] for event in inbox.of_type("price_update")} == set("ABC"))
    slow.reading.set()
    await slow.next("dropped", lambda event: event["kind"] == "price_update")
    return slow


# -- the document -----------------------------------------------------------------------------------------------------


async def test_both_services_serve_the_document_and_it_is_valid_asyncapi(edges: Edges) -> None:
    served = [
        (await edge.http.get("/asyncapi.json")).json() for edge in (await edges.chat(), await edges.notifications())
    ]
    schema = json.loads((SPECS / f"{served[0]['asyncapi']}.json").read_text())

    assert served[0] == served[1]
    assert [error.message for error in Draft7Validator(schema).iter_errors(served[0])] == []
