"""The chat on three NATS nodes, and a sender whose edge dies: an ack means stored, and stored means once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.contracts import subjects
from shared.contracts.ids import new_id
from tests.support.clients import chat_client
from tests.support.edges import Edges, open_edges
from tests.support.nats_cluster import NatsCluster
from tests.support.proxy import Proxy
from tests.support.waiting import eventually

MAX_PAUSE_S = 10.0
GIVES_UP_S = 25.0


@pytest.fixture
async def on_cluster(nats_cluster: NatsCluster, tmp_path: Path) -> AsyncIterator[Edges]:
    async with open_edges(nats_cluster.url, tmp_path) as edges:
        yield edges


async def test_sends_go_on_through_a_killed_leader_and_reach_every_edge_once(
    on_cluster: Edges, nats_cluster: NatsCluster
) -> None:
    a, b, room = await on_cluster.chat(), await on_cluster.chat(), new_id("room-")
    async with (
        chat_client(a, new_id("user-"), rooms=[room]) as talker,
        chat_client(b, new_id("user-"), rooms=[room]) as listener,
    ):
        await talker.say("0")
        await nats_cluster.nodes[await nats_cluster.leader(subjects.CHAT)].kill()
        began_s = time.monotonic()
        for number in range(1, 20):
            await talker.send("send_message", {"content": str(number)}, id=str(number))
        for client in (talker, listener):
            await eventually(lambda client=client: len(client.messages) == 20, deadline_s=2 * MAX_PAUSE_S)

            assert sorted(int(message["content"]) for message in client.messages) == list(range(20))
        assert time.monotonic() - began_s < MAX_PAUSE_S
        assert len(talker.inbox.of_type("ack")) == 20
        assert talker.inbox.of_type("error") == []
        assert [message["seq"] for message in talker.messages] == [message["seq"] for message in listener.messages]


async def test_without_a_majority_a_send_is_refused_in_time_as_retryable_and_its_repetition_is_stored_once(
    on_cluster: Edges, nats_cluster: NatsCluster
) -> None:
    edge, room = await on_cluster.chat(), new_id("room-")
    async with chat_client(edge, new_id("user-"), rooms=[room]) as client:
        await client.say("before")
        for name in ("node-1", "node-2"):
            await nats_cluster.nodes[name].kill()
        await client.send("send_message", {"content": "held up", "clientId": "once"}, id="first")
        await eventually(lambda: bool(client.inbox.of_type("error")), deadline_s=GIVES_UP_S)
        (error,) = client.inbox.of_type("error")
        assert (error["id"], error["data"]["retryable"]) == ("first", True)

        for name in ("node-1", "node-2"):
            await nats_cluster.nodes[name].start()
        await nats_cluster.settled()
        await client.say("held up", clientId="once")
        await client.say("after")
        await client.hears("after")

        assert [message["content"] for message in client.messages] == ["before", "held up", "after"]


async def test_a_message_whose_edge_died_before_the_ack_is_not_doubled_by_its_repetition(
    edges: Edges, nats_url: str, tmp_path: Path
) -> None:
    room, sender = new_id("room-"), new_id("user-")
    broker = await JetStreamBroker.connect(nats_url, name="test")
    async with Proxy(nats_url) as proxy, open_edges(proxy.url, tmp_path) as behind:
        doomed = await behind.process("chat")
        async with chat_client(doomed, sender, rooms=[room]) as client:
            await client.say("before")
            proxy.down.swallows = True
            await client.send("send_message", {"content": "stored, not acked", "clientId": "once"}, id="unanswered")

            async def is_stored() -> bool:
                page = await broker.read_after(subjects.CHAT, subjects.chat_message(room), 0, limit=10)
                return len(page.messages) == 2

            await eventually(is_stored)
            await doomed.kill()
            assert "unanswered" not in [ack["id"] for ack in client.inbox.of_type("ack")]
    survivor = await edges.chat()
    async with chat_client(survivor, sender, rooms=[room]) as client:
        assert (await client.say("stored, not acked", clientId="once"))["duplicate"] is True
        await client.say("after")
        await client.hears("after")
    stored = await broker.read_after(subjects.CHAT, subjects.chat_message(room), 0, limit=10)
    assert len(stored.messages) == 3
    await broker.close()
