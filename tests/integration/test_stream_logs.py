"""Logs on live dashboards (requirement S8): from any process to who may read them, at any edge."""

from __future__ import annotations

from functools import partial

import httpx

from services.notifications.logs import MAX_PER_S
from shared.contracts.claims import USER_SCOPES
from shared.contracts.ids import new_id
from tests.support.clients import StreamClient, stream_client
from tests.support.edges import Edge, Edges, both_engines
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected
from tests.support.waiting import eventually

OPS = "stream ops:read"
PROBE = "logs.probe.one"
FLOOD = 10 * MAX_PER_S


async def opened(edge: Edge, scope: str, **query: str) -> httpx.Response:
    """Ask for a stream that is expected to be refused."""
    return await edge.http.get("/api/stream", params=query, headers=edge.headers("u", scope=scope))


async def test_what_goes_wrong_in_one_process_is_told_to_an_ops_user_at_another_edge(
    own_edges: Edges, nats_server: NatsServer
) -> None:
    edge = await own_edges.notifications()
    async with (
        connected(nats_server.url) as producer,
        stream_client(edge, "ops", scope=OPS, logs="debug") as ops,
        stream_client(edge, "other", scope=OPS) as other,
    ):
        await eventually(partial(producer.listens, PROBE))
        chat = await own_edges.process("chat")
        began = await ops.next("log")
        await chat.http.get("/api/chat/rooms", headers=chat.headers("u"))  # logged, and below what is told
        await producer.store("auth.revoked.u", {"reason": "no revocation"})
        told = await ops.next("log")

        assert (began["component"], began["instance"], began["event"]) == ("chat", chat.name, "live_logs_begin")
        assert (told["instance"], told["level"], told["event"]) == (chat.name, "error", "revocation_invalid")
        assert told["fields"]["subject"] == "live.auth.revoked.u"
        assert "revocation_invalid" in chat.log.read_text()
        assert other.inbox.of_type("log") == []


@both_engines
async def test_logs_are_for_those_who_may_read_them_and_of_a_level_that_there_is(edges: Edges) -> None:
    edge = await edges.notifications()
    forbidden, unknown = await opened(edge, USER_SCOPES, logs="error"), await opened(edge, OPS, logs="loud")

    assert (forbidden.status_code, forbidden.json()["code"]) == (403, "forbidden")
    assert (unknown.status_code, unknown.json()["code"]) == (400, "bad_input")
    assert edge.gauge("sessions", transport="sse") == 0


async def test_an_edge_listens_only_while_somebody_wants_logs(own_edges: Edges, nats_server: NatsServer) -> None:
    edge = await own_edges.notifications()
    async with connected(nats_server.url) as producer, stream_client(edge, "ops", scope=OPS) as ops:
        await producer.beat("part")
        await ops.next("system_status", lambda event: event["component"] == "part")
        assert not await producer.listens(PROBE)
        async with stream_client(edge, "ops", scope=OPS, logs="warning") as one:
            await eventually(partial(producer.listens, PROBE))
            await producer.log("part", "quiet", level="info")
            await producer.log("part", "loud")
            assert (await one.next("log"))["event"] == "loud"

        await eventually(partial(stopped, producer))


async def test_a_renewed_token_without_the_right_ends_the_logs(own_edges: Edges, nats_server: NatsServer) -> None:
    edge = await own_edges.notifications()
    async with (
        connected(nats_server.url) as producer,
        stream_client(edge, "ops", scope=OPS, logs="debug") as client,
    ):
        await eventually(partial(producer.listens, PROBE))
        renewed = await edge.http.post(
            f"/api/stream/{client.inbox.frames[0]['stream']}/token",
            json={"token": edge.mint.token("ops")},
            headers=edge.headers("ops"),
        )

        assert renewed.status_code == 200
        await eventually(partial(stopped, producer))


def dropped(client: StreamClient) -> int:
    """Return how many records the client was told that it was not told."""
    return sum(event["count"] for event in client.inbox.of_type("dropped"))


async def stopped(producer: Producer) -> bool:
    return not await producer.listens(PROBE)


async def test_of_a_flood_a_stream_is_told_a_part_and_how_much_is_missing(edges: Edges, producer: Producer) -> None:
    edge, part = await edges.notifications(), new_id("part")
    async with stream_client(edge, "ops", scope=OPS, logs="error") as client:
        await eventually(partial(producer.listens, PROBE))
        for number in range(FLOOD):
            await producer.log(part, str(number), level="error")
        sent = FLOOD

        async def all_told_or_counted() -> bool:
            nonlocal sent
            await producer.log(part, "after", level="error")  # what was dropped is told with the next that is not
            sent += 1
            return len(client.inbox.of_type("log")) + dropped(client) >= sent - 1

        await eventually(all_told_or_counted)
        numbers = [int(event["event"]) for event in client.inbox.of_type("log") if event["event"].isdecimal()]

        assert numbers == sorted(set(numbers))
        assert MAX_PER_S * 0.9 < len(numbers) < FLOOD  # a few of other parts may be among what an edge tells
        assert edge.count("logs_dropped") >= dropped(client) > 0


async def test_what_is_no_record_is_dead_lettered_and_the_stream_goes_on(edges: Edges, producer: Producer) -> None:
    edge, part = await edges.notifications(), new_id("part")
    async with stream_client(edge, "ops", scope=OPS, logs="debug") as client:
        await eventually(partial(producer.listens, PROBE))
        await producer.publish(f"logs.{part}.one", {"event": "no level"})
        await producer.log(part, "valid", fields={"note": "<b>\r\ndata: {}\r\n\r\n"})
        told = await client.next("log", lambda event: event["component"] == part)
        async with connected(edges.nats_url) as reader:
            await eventually(lambda: edge.count("dead_letters", kind="logs", kept="yes") >= 1)

            async def kept() -> bool:
                return bool(await reader.dead_letters(f"logs.{part}.one"))

            await eventually(kept)

        assert told["fields"] == {"note": "<b>\r\ndata: {}\r\n\r\n"}
