"""What a client of the article reads, and the trace that a message carries on."""

from __future__ import annotations

import json
import re
import socket

from shared.contracts.ids import new_id
from shared.contracts.subjects import chat_message
from tests.conftest import BrokerFactory
from tests.support import raw as wire
from tests.support.clients import chat_client
from tests.support.edges import Edges
from tests.support.listening import Ear
from tests.support.raw import RawSocket

TEXT = 0x1
TRACEPARENT = r"00-(?P<id>(?!0{32})[0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"


async def test_w3_messages_presence_and_typing_come_as_type_and_data(edges: Edges) -> None:
    edge, room, bob = await edges.chat(), new_id("room-"), new_id("u")
    async with chat_client(edge, new_id("u"), rooms=[room]) as alice, chat_client(edge, bob, rooms=[room]) as other:
        presence = await alice.inbox.next("presence_update", lambda frame: frame["data"]["userId"] == bob)
        await other.send("typing_status", {"userId": bob, "isTyping": True, "timestamp": 1})
        typing = await alice.inbox.next("typing_indicator")
        await other.say("hello")
        message = await alice.inbox.next("chat_message")

    for frame in (presence, typing, message):
        assert frame.keys() == {"type", "data"}
        assert frame["data"]["userId"] == bob
        assert frame["data"]["room"] == room
    assert presence["data"]["status"] == "online"
    assert typing["data"]["isTyping"] is True
    assert {"id", "content", "timestamp", "seq", "cursor"} <= message["data"].keys()


async def test_a_message_carries_the_trace_of_the_request_that_sent_it(edges: Edges, broker: BrokerFactory) -> None:
    edge, room, trace = await edges.chat(), new_id("room-"), "4bf92f3577b34da6a3ce929d0e0e4736"
    ear = Ear()
    await (await broker()).subscribe(chat_message(room), ear)
    headers = edge.headers(new_id("u")) | {"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
    await edge.http.post("/api/chat/messages", json={"content": "traced", "room": room}, headers=headers)

    assert (await ear.hears(1))[0].headers["traceparent"].split("-")[1] == trace


async def test_each_message_of_a_websocket_begins_a_trace_of_its_own(edges: Edges, broker: BrokerFactory) -> None:
    edge, room, ear = await edges.chat(), new_id("room-"), Ear()
    await (await broker()).subscribe(chat_message(room), ear)
    async with chat_client(edge, new_id("u"), rooms=[room]) as client:
        await client.say("one")
        await client.say("two")

    traces = [re.fullmatch(TRACEPARENT, message.headers["traceparent"]) for message in await ear.hears(2)]
    assert None not in traces
    assert len({trace["id"] for trace in traces if trace}) == 2


async def test_what_came_in_one_write_is_stored_in_order_though_its_client_says_no_more(
    edges: Edges, broker: BrokerFactory
) -> None:
    edge, room, ear = await edges.chat(), new_id("room-"), Ear()
    await (await broker()).subscribe(chat_message(room), ear)
    raw = await RawSocket.upgraded(edge, f"/ws/chat?room={room}", edge.headers(new_id("u")))
    await raw.until(b'"connected"')
    said = [json.dumps({"type": "send_message", "data": {"content": text}}).encode() for text in ("1", "2", "3")]
    await raw.send(b"".join(wire.frame(TEXT, text) for text in said))
    raw.sock.shutdown(socket.SHUT_WR)

    assert [json.loads(message.data)["content"] for message in await ear.hears(3)] == ["1", "2", "3"]
    raw.close()
