"""A message sent on one edge reaches the clients of every edge, once each (requirements W1, W3, W8)."""

from __future__ import annotations

from shared.contracts.ids import new_id
from tests.support.clients import chat_client
from tests.support.edges import Edges


async def test_w8_a_message_sent_on_edge_a_reaches_a_b_and_c_once_each(edges: Edges) -> None:
    a, b, c = await edges.chat(), await edges.chat(), await edges.chat()
    room = new_id("room-")
    async with (
        chat_client(a, "alice", rooms=[room]) as alice,
        chat_client(b, "bob", rooms=[room]) as bob,
        chat_client(c, "carol", rooms=[room]) as carol,
    ):
        sent = [await alice.say(f"hello {number}") for number in range(20)]
        for client in (alice, bob, carol):
            await client.hears("hello 19")

            assert [message["seq"] for message in client.messages] == [ack["seq"] for ack in sent]
            assert [message["id"] for message in client.messages] == [ack["id"] for ack in sent]
