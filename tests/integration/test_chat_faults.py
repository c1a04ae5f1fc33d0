"""Edges that stop or die and a broker that is killed: nobody is left hanging, no acked message is lost or doubled."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import AsyncExitStack
from typing import Any

import pytest
from nats.aio.msg import Msg

from shared.contracts.ids import new_id
from tests.support.clients import ChatClient, Frame, chat_client
from tests.support.edges import Edges
from tests.support.logs import assert_clean
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer
from tests.support.raw import RawSocket
from tests.support.waiting import eventually

CRASH_NOTICED_S = 20.0


def presence_of(client: ChatClient, users: set[str], status: str) -> list[str]:
    return [
        frame["data"]["userId"]
        for frame in client.inbox.of_type("presence_update")
        if frame["data"]["status"] == status and frame["data"]["userId"] in users
    ]


@pytest.mark.parametrize("engine", ["epoll", "asgi"])
async def test_w6_an_edge_that_stops_asks_its_clients_to_come_back_and_exits_cleanly(edges: Edges, engine: str) -> None:
    edge = await edges.process("chat", EDGE_ENGINE=engine)
    room = new_id("room-")
    async with (
        chat_client(edge, new_id("user-"), rooms=[room]) as one,
        chat_client(edge, new_id("user-"), rooms=[room]) as two,
    ):
        await one.say("before")
        began_s = time.monotonic()
        edge.signal(signal.SIGTERM)
        for client in (one, two):
            assert 0 <= (await client.inbox.next("reconnect"))["data"]["afterMs"] <= 2_000
            assert await client.closed() == 1012
        async with asyncio.timeout(10):
            status = await edge.process.wait()

        assert status == 0
        assert time.monotonic() - began_s < 10
    assert_clean(edge.log)


@pytest.mark.parametrize("engine", ["epoll", "asgi"])
async def test_who_comes_to_an_edge_that_stops_is_asked_to_leave_like_the_others(edges: Edges, engine: str) -> None:
    edge = await edges.chat(edge_engine=engine, drain_s=1.0)
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        early = [await stack.enter_async_context(chat_client(edge, new_id("user-"))) for _ in range(10)]
        group.create_task(edge.lifecycle.drain())
        await eventually(lambda: any(client.inbox.of_type("reconnect") for client in early))
        late = await stack.enter_async_context(chat_client(edge, new_id("user-")))

        assert "afterMs" in (await late.inbox.next("reconnect"))["data"]
        assert await late.closed() == 1012


async def test_a_second_signal_stops_at_once(edges: Edges) -> None:
    edge = await edges.process("chat", DRAIN_S="600", FANFARE_LIMITS="off")
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(chat_client(edge, new_id("user-"))) for _ in range(30)]
        edge.signal(signal.SIGTERM)
        await eventually(lambda: any(client.inbox.of_type("reconnect") for client in clients))
        began_s = time.monotonic()
        edge.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            await edge.process.wait()

        assert time.monotonic() - began_s < 2
        assert not all(client.inbox.of_type("reconnect") for client in clients)


async def test_a_stop_with_a_client_that_does_not_read_ends_in_time_too(edges: Edges) -> None:
    edge = await edges.process("chat")
    room, talker_id = new_id("room-"), new_id("user-")
    async with chat_client(edge, talker_id, rooms=[room]) as talker:
        deaf = await RawSocket.upgraded(edge, f"/ws/chat?room={room}", edge.headers(new_id("user-")))
        for number in range(60):
            await talker.say(f"{number} " + "x" * 4_000)
        edge.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert await edge.process.wait() == 0
        deaf.close()


async def test_w6_a_peer_that_answers_no_ping_is_dropped_and_one_that_does_stays(edges: Edges) -> None:
    edge = await edges.chat(heartbeat_s=0.3)
    async with chat_client(edge, new_id("user-")) as alive:
        mute = await RawSocket.upgraded(edge, headers=edge.headers(new_id("user-")))
        await mute.until_closed()
        mute.close()
        await eventually(lambda: edge.gauge("sessions", transport="websocket") == 1)

        assert (await alive.say("still here"))["duplicate"] is False


async def test_w8_each_user_of_a_killed_edge_goes_offline_exactly_once(edges: Edges, producer: Producer) -> None:
    witness_edge, doomed = await edges.chat(), await edges.process("chat")
    room, users = new_id("room-"), {new_id("user-") for _ in range(5)}
    both, *_ = users
    async with chat_client(witness_edge, new_id("user-"), rooms=[room]) as witness:
        told = await departures(producer, room)
        sockets = [chat_client(doomed, user, rooms=[room]) for user in users]
        for socket in sockets:
            await socket.__aenter__()
        await witness.inbox.until(lambda _inbox: len(presence_of(witness, users, "online")) == len(users))
        async with chat_client(witness_edge, both, rooms=[room]) as survivor:
            killed_s = time.monotonic()
            await doomed.kill()
            gone = users - {both}
            await eventually(lambda: set(presence_of(witness, users, "offline")) == gone, deadline_s=CRASH_NOTICED_S)
            assert time.monotonic() - killed_s < CRASH_NOTICED_S
            await survivor.say("still here")
            await witness.hears("still here")

            assert sorted(presence_of(witness, users, "offline")) == sorted(gone)
            answer = await witness_edge.http.get(f"/api/chat/rooms/{room}/presence", headers=witness_edge.headers(both))
            assert not gone & {member["userId"] for member in answer.json()["online"]}
        await eventually(lambda: len(told) >= len(users))  # the survivor has left by now as well
        assert sorted(event["userId"] for event in told) == sorted(users)
        for socket in sockets:
            await socket.__aexit__(None, None, None)


async def test_a_user_whose_edge_stops_and_who_moves_to_another_is_never_offline(
    edges: Edges, producer: Producer
) -> None:
    stays, stops = await edges.chat(), await edges.process("chat", DRAIN_S="1")
    room, mover_id, leaver = new_id("room-"), new_id("user-"), new_id("user-")
    told = await departures(producer, room)
    async with chat_client(stays, new_id("user-"), rooms=[room]) as witness:
        async with (
            chat_client(stops, mover_id, rooms=[room]) as mover,
            chat_client(stops, leaver, rooms=[room]) as _goes_home,
        ):
            await witness.inbox.until(lambda _inbox: len(presence_of(witness, {mover_id, leaver}, "online")) == 2)
            stops.signal(signal.SIGTERM)
            asked = (await mover.inbox.next("reconnect"))["data"]
            assert await mover.closed() == 1012
        await asyncio.sleep(asked["afterMs"] / 1000)  # as the client is told to
        async with chat_client(stays, mover_id, rooms=[room]):
            # The one who does not come back is seen to leave; the one who moved would have been by then.
            await eventually(lambda: presence_of(witness, {leaver}, "offline") == [leaver], deadline_s=CRASH_NOTICED_S)
            await eventually(lambda: [event["userId"] for event in told] == [leaver])

            assert presence_of(witness, {mover_id}, "online") == [mover_id]
            assert presence_of(witness, {mover_id}, "offline") == []


async def departures(producer: Producer, room: str) -> list[dict[str, Any]]:
    """Return the list that what backends are told of who left `room` is added to, as it comes."""
    told: list[dict[str, Any]] = []

    async def note(message: Msg) -> None:
        told.append(json.loads(message.data))
        assert message.subject == f"presence.left.{room}.{told[-1]['userId']}"

    await producer.client.subscribe(f"presence.left.{room}.*", cb=note)
    await producer.client.flush()
    return told


async def test_no_acked_message_is_lost_or_doubled_when_the_broker_is_killed_and_comes_back(
    own_edges: Edges, nats_server: NatsServer
) -> None:
    a, b = await own_edges.chat(), await own_edges.chat()
    room = new_id("room-")
    async with (
        chat_client(a, new_id("user-"), rooms=[room]) as talker,
        chat_client(b, new_id("user-"), rooms=[room]) as listener,
    ):
        await talker.say("0", clientId="c0")
        await nats_server.kill()
        for number in range(1, 6):
            await talker.send("send_message", {"content": str(number), "clientId": f"c{number}"}, id=str(number))
        await eventually(lambda: not a.lifecycle.failure and not a.server.should_exit)
        assert (await a.http.get("/readyz")).status_code == 503
        await nats_server.start()
        for number in range(1, 6):
            answered = str(number)
            await eventually(lambda answered=answered: answer_to(talker, answered) is not None, deadline_s=20)
        for number in range(1, 6):
            # Whoever got no ack repeats the message with its client id, as a client does.
            if (answer := answer_to(talker, str(number))) is None or answer["type"] != "ack":
                assert answer is not None
                assert answer["data"]["retryable"] is True
                await talker.say(str(number), clientId=f"c{number}")
        await talker.say("end", clientId="end")
        for client in (talker, listener):
            await client.hears("end")

            assert sorted(message["content"] for message in client.messages) == ["0", "1", "2", "3", "4", "5", "end"]
        assert [message["seq"] for message in talker.messages] == [message["seq"] for message in listener.messages]


def answer_to(client: ChatClient, given_id: str) -> Frame | None:
    return next((frame for frame in client.inbox.frames if frame.get("id") == given_id), None)
