"""What the broker drops before a client has seen it is announced to that client, wherever it is: connected or away."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.events import ChatMessage
from shared.contracts.ids import new_id
from tests.support.clients import ChatClient, Frame, chat_client, stream_client
from tests.support.edges import Edges, open_edges
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected
from tests.support.proxy import Proxy

ROOM = "room"
SUBJECT = subjects.chat_message(ROOM)


@pytest.fixture
async def line(nats_server: NatsServer) -> AsyncIterator[Proxy]:
    """What is between the edges and the broker."""
    async with Proxy(nats_server.url) as line:
        yield line


@pytest.fixture
async def behind(line: Proxy, tmp_path: Path) -> AsyncIterator[Edges]:
    """Edges that can be cut off."""
    async with open_edges(line.url, tmp_path) as edges:
        yield edges


@pytest.fixture
async def operator(nats_server: NatsServer) -> AsyncIterator[Producer]:
    """Who may purge."""
    async with connected(nats_server.url) as operator:
        yield operator


@pytest.fixture
async def outside(nats_server: NatsServer) -> AsyncIterator[JetStreamBroker]:
    """A link that is not cut."""
    broker = await JetStreamBroker.connect(nats_server.url, name="outside")
    yield broker
    await broker.close()


@asynccontextmanager
async def cut_off(line: Proxy) -> AsyncIterator[None]:
    """Keep the edges from the broker for a while."""
    line.refuses = True
    line.cut()
    yield
    line.heal()


async def publish(broker: JetStreamBroker, *contents: str, room: str = ROOM) -> list[int]:
    """Store messages as another edge would."""
    seqs = []
    for content in contents:
        message = ChatMessage(
            id=new_id("m_"), room=room, user_id="u", username="u", content=content, timestamp=now_ms()
        )
        stored = await broker.append(subjects.chat_message(room), message.to_json(), msg_id=message.id)
        seqs.append(stored.seq)
    return seqs


def told(frame: Frame) -> tuple[str, int, int, str]:
    data = frame["data"]
    return data["room"], data["from"], data["to"], data["reason"]


def stored_or_missing(client: ChatClient) -> list[str]:
    return [frame["type"] for frame in client.inbox.frames if frame["type"] in ("gap", "chat_message")]


# -- connected to an edge that is cut off -----------------------------------------------------------------------------


async def test_a_room_purged_while_its_edge_was_cut_off_is_announced_though_nothing_follows(
    behind: Edges, line: Proxy, operator: Producer, outside: JetStreamBroker
) -> None:
    edge = await behind.chat()
    async with chat_client(edge, "u", rooms=[ROOM]) as client:
        seen = await client.say("seen")
        async with cut_off(line):
            lost = await publish(outside, "lost", "lost too")
            await operator.js.purge_stream("CHAT", subject=SUBJECT)
        gap = await client.inbox.next("gap")
        after = await client.say("after")
        await client.hears("after")

        assert told(gap) == (ROOM, seen["seq"], lost[-1], "expired")
        assert gap["data"]["cursor"] == str(Position(after["cursor"].partition(":")[0], lost[-1]))
        assert [message["content"] for message in client.messages] == ["seen", "after"]


async def test_what_follows_a_purge_during_an_outage_comes_behind_the_gap(
    behind: Edges, line: Proxy, operator: Producer, outside: JetStreamBroker
) -> None:
    edge = await behind.chat()
    async with chat_client(edge, "u", rooms=[ROOM]) as client:
        seen = await client.say("seen")
        async with cut_off(line):
            await publish(outside, "lost", "lost too")
            await operator.js.purge_stream("CHAT", subject=SUBJECT)
            kept = await publish(outside, "kept", "kept too")
        await client.hears("kept too")

        assert stored_or_missing(client) == ["chat_message", "gap", "chat_message", "chat_message"]
        assert told(client.inbox.of_type("gap")[0]) == (ROOM, seen["seq"], kept[0] - 1, "expired")


async def test_what_comes_live_before_anybody_has_compared_waits_for_the_gap(
    behind: Edges, line: Proxy, operator: Producer, outside: JetStreamBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.edge.topics.hub.Hub._reconcile", _never)
    edge = await behind.chat()
    async with chat_client(edge, "u", rooms=[ROOM]) as client:
        seen = await client.say("seen")
        async with cut_off(line):
            lost = await publish(outside, "lost")
            await operator.js.purge_stream("CHAT", subject=SUBJECT)
        live = await client.say("live")  # waits for the link
        await client.hears("live")

        assert live["seq"] == lost[0] + 1
        assert stored_or_missing(client) == ["chat_message", "gap", "chat_message"]
        assert told(client.inbox.of_type("gap")[0]) == (ROOM, seen["seq"], lost[0], "expired")


async def test_more_messages_than_a_room_keeps_during_an_outage_are_a_gap_and_what_is_kept(
    behind: Edges, line: Proxy, operator: Producer, outside: JetStreamBroker
) -> None:
    config = (await operator.js.stream_info("CHAT")).config
    config.max_msgs_per_subject = 3
    await operator.js.update_stream(config)
    edge = await behind.chat()
    async with chat_client(edge, "u", rooms=[ROOM]) as client:
        seen = await client.say("seen")
        async with cut_off(line):
            seqs = await publish(outside, *"12345")
        await client.hears("5")

        assert told(client.inbox.of_type("gap")[0]) == (ROOM, seen["seq"], seqs[1], "expired")
        assert [message["content"] for message in client.messages] == ["seen", *"345"]


async def test_who_resumes_at_an_edge_that_has_announced_a_gap_is_told_of_it_too(
    behind: Edges, line: Proxy, operator: Producer, outside: JetStreamBroker
) -> None:
    edge = await behind.chat()
    async with chat_client(edge, "u", rooms=[ROOM]) as client:
        seen = await client.say("seen")
        async with cut_off(line):
            await publish(outside, "lost")
            await operator.js.purge_stream("CHAT", subject=SUBJECT)
        await client.inbox.next("gap")
        await client.say("after")
        async with chat_client(edge, "v", rooms=[ROOM], cursors=[seen["cursor"]]) as back:
            assert (await back.inbox.next("gap"))["data"]["from"] == seen["seq"]


async def test_an_outage_in_which_nothing_was_dropped_is_no_gap_for_any_room(
    behind: Edges, line: Proxy, operator: Producer, outside: JetStreamBroker
) -> None:
    edge = await behind.chat()
    for room in ("first-of-all", "purged-before", "last-of-all"):
        await publish(outside, "old", room=room)
    await operator.js.purge_stream("CHAT", subject=subjects.chat_message("purged-before"))
    async with chat_client(edge, "u", rooms=[ROOM, "empty", "fresh"]) as client:
        await client.say("seen", room=ROOM)
        async with cut_off(line):
            await publish(outside, "missed", room=ROOM)
            await publish(outside, "first", room="fresh")
        await client.hears("missed")
        await client.hears("first")
        await client.say("end", room="empty")
        await client.hears("end")

        assert not client.inbox.of_type("gap")


# -- away -------------------------------------------------------------------------------------------------------------


async def test_who_resumes_after_the_purge_of_a_room_is_told(
    own_edges: Edges, operator: Producer, outside: JetStreamBroker
) -> None:
    await publish(outside, "another room's, so that the stream begins before", room="other")
    cursor = Position((await outside.state(subjects.CHAT)).epoch, (await publish(outside, "seen"))[0])
    lost = await publish(outside, "lost")
    await operator.js.purge_stream("CHAT", subject=SUBJECT)
    edge = await own_edges.chat()
    async with chat_client(edge, "u", rooms=[ROOM], cursors=[str(cursor)]) as client:
        assert told(await client.inbox.next("gap")) == (ROOM, cursor.seq, lost[0], "expired")


async def test_who_resumes_after_the_purge_of_a_room_that_goes_on_is_told(
    own_edges: Edges, operator: Producer, outside: JetStreamBroker
) -> None:
    await publish(outside, "another room's", room="other")
    cursor = Position((await outside.state(subjects.CHAT)).epoch, (await publish(outside, "seen"))[0])
    await publish(outside, "lost")
    await operator.js.purge_stream("CHAT", subject=SUBJECT)
    await publish(outside, "after")
    edge = await own_edges.chat()
    async with chat_client(edge, "u", rooms=[ROOM], cursors=[str(cursor)]) as client:
        assert (await client.inbox.next("gap"))["data"]["reason"] == "expired"


async def test_who_resumes_where_another_room_was_purged_before_is_told_of_nothing(
    own_edges: Edges, operator: Producer, outside: JetStreamBroker
) -> None:
    await publish(outside, "another room's", "and", "and", room="other")
    await operator.js.purge_stream("CHAT", subject=subjects.chat_message("other"))
    state = await outside.state(subjects.CHAT)
    await publish(outside, "first", "second")
    edge = await own_edges.chat()
    async with chat_client(edge, "u", rooms=[ROOM], cursors=[f"{state.epoch}:{state.last_seq}"]) as client:
        await client.hears("second")

        assert [message["content"] for message in client.messages] == ["first", "second"]
        assert not client.inbox.of_type("gap")


async def test_a_resync_says_where_the_client_stands_so_that_nothing_after_it_is_missed(
    own_edges: Edges, operator: Producer, outside: JetStreamBroker
) -> None:
    edge = await own_edges.chat()
    async with chat_client(edge, "u", rooms=[ROOM], cursors=["other:5"]) as client:
        cursor = (await client.inbox.next("resync"))["data"]["cursor"]
    await publish(outside, "missed")
    async with chat_client(edge, "u", rooms=[ROOM], cursors=[cursor]) as client:
        await client.hears("missed")

        assert not client.inbox.of_type("resync")


# -- streams of events ------------------------------------------------------------------------------------------------


async def test_s7_who_resumes_after_the_purge_of_a_subject_is_told(own_edges: Edges, operator: Producer) -> None:
    user, other = new_id("u"), new_id("u")
    await operator.notify(f"notify.user.{new_id('u')}", "somebody else's, so that the stream begins before")
    first = await own_edges.notifications()
    async with stream_client(first, user) as client:
        await operator.notify(f"notify.user.{user}", "seen")
        await client.next("notification")
        cursor = client.last_id
    await operator.notify(f"notify.user.{user}", "lost")
    await operator.js.purge_stream("NOTIFY", subject=f"notify.user.{user}")
    await operator.notify(f"notify.user.{other}", *["more than an edge begins with"] * 1_000)
    edge = await own_edges.notifications()  # one whose ring does not reach back
    async with stream_client(edge, user, last_event_id=cursor) as client:
        gap = await client.next("gap")

        assert (gap["topic"], gap["from"], gap["reason"]) == (None, int(cursor.partition(":")[2]), "expired")


async def test_s7_what_was_purged_while_an_edge_was_cut_off_is_announced_though_nothing_follows(
    behind: Edges, line: Proxy, operator: Producer
) -> None:
    user = new_id("u")
    edge = await behind.notifications()
    async with stream_client(edge, user) as client:
        await operator.notify(f"notify.user.{user}", "seen")
        await client.next("notification")
        async with cut_off(line):
            await operator.notify(f"notify.user.{user}", "lost")
            await operator.js.purge_stream("NOTIFY")
        gap = await client.next("gap")

        assert (gap["topic"], gap["reason"], gap["to"] - gap["from"]) == (None, "expired", 1)


async def _never(*_args: object) -> None:
    await asyncio.sleep(0)
