"""A client that was away gets exactly what it missed, at any edge, or hears that something is lost (requirement S7)."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from shared.contracts.ids import new_id
from tests.support.clients import StreamClient, stream_client
from tests.support.edges import Edges, both_engines
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected

END = "the end"


def titles(client: StreamClient) -> list[str]:
    return [frame["title"] for frame in client.inbox.of_type("notification")]


async def titled(client: StreamClient, title: str) -> dict[str, Any]:
    return await client.next("notification", lambda frame: frame["title"] == title)


@both_engines
@pytest.mark.parametrize("how", ["header", "query"])
async def test_s7_a_client_that_was_away_gets_exactly_what_it_missed_at_another_edge(
    edges: Edges, producer: Producer, how: str
) -> None:
    a, b, user = await edges.notifications(), await edges.notifications(), new_id("u")
    own = f"notify.user.{user}"
    async with stream_client(a, user) as client:
        await producer.notify(own, "1", "2")
        await titled(client, "2")
        cursor = client.last_id
    missed = await producer.notify(own, *(str(number) for number in range(3, 53)))
    header, query = (cursor, {}) if how == "header" else (None, {"last_event_id": cursor})
    async with stream_client(b, user, last_event_id=header, query=query) as client:
        await producer.notify(own, END)
        await titled(client, END)

        assert titles(client) == [*missed, END]
        assert not client.inbox.of_type("gap")
        assert not client.inbox.of_type("resync")


@both_engines
async def test_s7_several_topics_resume_each_at_its_own_place(edges: Edges, producer: Producer) -> None:
    a, b, user = await edges.notifications(), await edges.notifications(), new_id("u")
    news, alerts = new_id("t"), new_id("t")
    subjects = [f"notify.user.{user}", f"notify.topic.{news}", f"notify.topic.{alerts}"]
    topics = f"{news},{alerts}"
    cursor: str | None = None
    for round_ in range(4):
        edge = (a, b)[round_ % 2]
        async with stream_client(edge, user, topics=topics, last_event_id=cursor) as client:
            seen = [f"{round_}-{subject}" for subject in subjects]
            for subject, title in zip(subjects, seen, strict=True):
                await producer.notify(subject, title)
            for title in seen:
                await titled(client, title)
            missed = [f"away {round_ - 1}-{n}" for n in range(6)] if round_ else []
            assert sorted(titles(client)) == sorted(missed + seen)
            cursor = client.last_id
        for number in range(6):
            await producer.notify(subjects[number % 3], f"away {round_}-{number}")


async def test_s7_a_client_that_had_received_nothing_misses_nothing(edges: Edges, producer: Producer) -> None:
    a, b, user, topic = await edges.notifications(), await edges.notifications(), new_id("u"), new_id("t")
    async with stream_client(a, user, topics=topic) as client:
        cursor = client.last_id
    await producer.notify(f"notify.user.{user}", "mine")
    await producer.notify(f"notify.topic.{topic}", "ours")
    async with stream_client(b, user, topics=topic, last_event_id=cursor) as client:
        await titled(client, "mine")
        await titled(client, "ours")

        assert sorted(titles(client)) == ["mine", "ours"]
        assert {frame["type"] for frame in client.inbox.frames} == {"connected", "notification"}


@both_engines
async def test_s7_a_client_cut_at_any_moment_sees_everything_once(edges: Edges, producer: Producer) -> None:
    """One that moves between edges all the time, beside a producer that does not stop."""
    a, b, user = await edges.notifications(), await edges.notifications(), new_id("u")
    wanted = [str(number) for number in range(200)]
    publishing = asyncio.ensure_future(producer.notify(f"notify.user.{user}", *wanted))
    got: list[str] = []
    cursor: str | None = None
    while wanted[-1] not in got:
        a, b = b, a
        async with stream_client(a, user, last_event_id=cursor) as client:
            await client.inbox.until(lambda inbox: len(titles(client)) >= 17 or wanted[-1] in titles(client))
            got += titles(client)
            cursor = client.last_id
    await publishing

    first = wanted.index(got[0])  # what was published before the first stream began is not its own
    assert got == wanted[first:]


async def test_s7_what_is_no_cursor_is_answered_by_a_resync_and_the_stream_goes_on(
    edges: Edges, producer: Producer
) -> None:
    edge, user = await edges.notifications(), new_id("u")
    async with stream_client(edge, user) as client:
        epoch = client.last_id.partition(":")[0]
    hostile = {
        "x:y": "unknown_position",
        "null": "unknown_position",
        "0": "unknown_position",
        ":": "unknown_position",
        "-1:5": "unknown_position",
        "' OR 1=1 --": "unknown_position",
        "😀": "unknown_position",
        "a\r\nid: b": "unknown_position",
        f"{epoch}:1,": "unknown_position",
        f"{epoch}:-1": "unknown_position",
        f"{epoch}:{10**18}": "unknown_position",
        f"{epoch}:{10**19 - 1}": "unknown_position",
        "zzzz:5": "epoch_changed",
        "1" * 2000: "unknown_position",
    }
    for cursor, reason in hostile.items():
        async with stream_client(edge, user, query={"last_event_id": cursor}) as client:
            resync = await client.next("resync")
            assert (resync["reason"], resync["topic"]) == (reason, None), cursor
            await producer.notify(f"notify.user.{user}", END)
            await titled(client, END)
            assert client.last_id.startswith(f"{epoch}:")


async def test_s7_a_resynced_client_resumes_with_the_cursor_it_was_given(edges: Edges, producer: Producer) -> None:
    edge, user = await edges.notifications(), new_id("u")
    async with stream_client(edge, user, last_event_id=f"zzzz:{10**15}") as client:
        await client.next("resync")
        cursor = client.last_id
    await producer.notify(f"notify.user.{user}", "1")
    async with stream_client(edge, user, last_event_id=cursor) as client:
        await titled(client, "1")
        assert not client.inbox.of_type("resync")


async def test_s7_a_header_of_a_megabyte_is_refused_with_431(edges: Edges) -> None:
    edge = await edges.notifications()
    address = httpx.URL(edge.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"GET /api/stream HTTP/1.1\r\nhost: x\r\nlast-event-id: " + b"1" * (1 << 20))
    async with asyncio.timeout(10):
        answer = await reader.read(64)
    writer.close()

    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_s7_anothers_cursor_shows_nothing_of_theirs(edges: Edges, producer: Producer) -> None:
    edge, alice, bob = await edges.notifications(), new_id("u"), new_id("u")
    await producer.notify(f"notify.user.{alice}", "private")
    async with stream_client(edge, alice) as client:
        hers = client.last_id
    await producer.notify(f"notify.user.{alice}", "also private")
    await producer.notify(f"notify.user.{bob}", "for bob")
    async with stream_client(edge, bob, last_event_id=hers) as client:
        await titled(client, "for bob")

        assert titles(client) == ["for bob"]


async def test_s7_what_is_too_old_is_announced_as_a_gap(own_edges: Edges, nats_server: NatsServer) -> None:
    a, user = await own_edges.notifications(), new_id("u")
    own = f"notify.user.{user}"
    async with connected(nats_server.url) as producer:
        async with stream_client(a, user) as client:
            await producer.notify(own, "1")
            await titled(client, "1")
            cursor = client.last_id
        await producer.notify(own, "2", "3", "4")
        last = int(cursor.partition(":")[2]) + 3
        await producer.js.purge_stream("NOTIFY", seq=last)  # as age does: all before the last is gone
        b = await own_edges.notifications()  # edge A still has them in memory
        async with stream_client(b, user, last_event_id=cursor) as client:
            gap = await client.next("gap")
            assert (gap["topic"], gap["from"], gap["to"], gap["reason"]) == (None, last - 3, last, "expired")
            after = client.last_id
            await producer.notify(own, "5")
            await titled(client, "5")
            assert titles(client) == ["5"]
        history = await b.http.get("/api/notifications", headers=b.headers(user))
        assert [each["title"] for each in history.json()["notifications"]] == ["4", "5"]
        async with stream_client(a, user, last_event_id=after) as client:
            await titled(client, "5")
            assert not client.inbox.of_type("gap")


async def test_s7_a_stream_made_anew_is_announced_to_those_who_are_there_and_to_those_who_return(
    own_edges: Edges, nats_server: NatsServer
) -> None:
    edge, user = await own_edges.notifications(), new_id("u")
    async with connected(nats_server.url) as producer:
        async with stream_client(edge, user) as client:
            await producer.notify(f"notify.user.{user}", "1", "2", "3")
            await titled(client, "3")
            before = client.last_id
            config = (await producer.js.stream_info("NOTIFY")).config
            await producer.js.delete_stream("NOTIFY")
            await producer.js.add_stream(config)
            resync = await client.next("resync")
            assert resync["reason"] == "epoch_changed"
            await producer.notify(f"notify.user.{user}", "new life")
            await titled(client, "new life")
        async with stream_client(edge, user, last_event_id=before) as client:
            assert (await client.next("resync"))["reason"] == "epoch_changed"
