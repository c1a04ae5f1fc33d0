"""The chat on three NATS nodes, and a sender whose edge dies: an ack means stored, and stored means once."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.edge import presence
from tests.support.clients import ChatClient, chat_client
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


async def test_when_all_nodes_restart_and_have_forgotten_who_is_there_nobody_is_seen_to_leave(
    on_cluster: Edges, nats_cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence, "RECONCILE_EVERY_S", 0.3)
    read, reads = presence.Presence._read_rosters, 0

    async def counted(self: presence.Presence, rooms: list[str]) -> None:
        nonlocal reads
        await read(self, rooms)
        reads += 1

    monkeypatch.setattr(presence.Presence, "_read_rosters", counted)
    here, there = await on_cluster.chat(), await on_cluster.chat()
    room, ann, bob = new_id("room-"), new_id("user-"), new_id("user-")
    async with chat_client(here, ann, rooms=[room]) as one, chat_client(there, bob, rooms=[room]) as other:
        for client in (one, other):
            await client.inbox.until(lambda _inbox, each=client: _knows_all(each, {ann, bob}))
        for node in nats_cluster.nodes.values():
            await node.kill()
        await nats_cluster.start()
        newcomers = await on_cluster.chat()
        before = reads
        async with chat_client(newcomers, new_id("user-"), rooms=[room]) as late:
            await eventually(lambda: _knows_all(late, {ann, bob}))
            # Each of the three edges has read everything again.
            await eventually(lambda: reads > before + 12, deadline_s=30)

            assert [_told(client, {ann, bob}, "offline") for client in (one, other, late)] == [[], [], []]


def _knows_all(client: ChatClient, users: set[str]) -> bool:
    (connected,) = client.inbox.of_type("connected")
    return users <= {*connected["data"]["rooms"][0]["members"], *_told(client, users, "online")}


def _told(client: ChatClient, users: set[str], status: str) -> list[str]:
    told = [frame["data"] for frame in client.inbox.of_type("presence_update") if frame["data"]["status"] == status]
    return [data["userId"] for data in told if data["userId"] in users]
