"""Read markers over two edges: kept, forward only, counted exactly, and told to a user's other devices."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from tests.integration.conftest import Pair
from tests.support.clients import ChatClient, Frame, chat_client
from tests.support.edges import Edge, Edges
from tests.support.nats_server import NatsServer
from tests.support.producer import connected

pytestmark = pytest.mark.asyncio(loop_scope="module")


def someone() -> str:
    return new_id("user-")


def somewhere() -> str:
    return new_id("room-")


async def mark(client: ChatClient, **data: Any) -> Frame:
    """Mark a room as read and return the answer, whichever it is."""
    given = new_id()[:12]
    await client.send("mark_read", data, id=given)
    await client.inbox.until(lambda inbox: any(frame.get("id") == given for frame in inbox.frames))
    return next(frame for frame in client.inbox.frames if frame.get("id") == given)


async def unread(edge: Edge, user: str, *rooms: str) -> dict[str, int]:
    """Return what a user has not read, by room."""
    answer = await edge.http.get("/api/chat/unread", params={"room": rooms}, headers=edge.headers(user))
    assert answer.status_code == 200, answer.text
    return {entry["room"]: entry["unread"] for entry in answer.json()["rooms"]}


async def test_what_is_read_on_one_device_is_told_to_the_others_at_every_edge_and_to_nobody_else(pair: Pair) -> None:
    room, ann = somewhere(), someone()
    async with (
        chat_client(pair.a, someone(), rooms=[room]) as talker,
        chat_client(pair.a, ann, rooms=[room]) as phone,
        chat_client(pair.a, ann) as tablet,
        chat_client(pair.b, ann, rooms=[room]) as laptop,
    ):
        acks = [await talker.say(str(number)) for number in range(3)]
        answer = await mark(phone, cursor=acks[0]["cursor"])
        for other in (tablet, laptop):
            told = await other.inbox.next("read")
            assert told == {"type": "read", "data": {"room": room, "cursor": acks[0]["cursor"], "unread": 2}}
        body = {"cursor": acks[1]["cursor"]}
        by_http = await pair.b.http.post(f"/api/chat/rooms/{room}/read", json=body, headers=pair.b.headers(ann))
        for device in (phone, tablet, laptop):
            told = await device.inbox.next("read", lambda frame: "id" not in frame and frame["data"]["unread"] == 1)
        await mark(laptop)
        for other in (phone, tablet):
            told = await other.inbox.next("read", lambda frame: frame["data"]["unread"] == 0)
            assert told["data"]["cursor"] == acks[2]["cursor"]

        assert answer["data"] == {"room": room, "cursor": acks[0]["cursor"], "unread": 2}
        assert (by_http.status_code, by_http.json()["unread"]) == (200, 1)
        assert await unread(pair.b, ann) == {room: 0}
        await talker.send("ping")
        await talker.inbox.next("pong")
        assert [len(client.inbox.of_type("read")) for client in (talker, phone, tablet, laptop)] == [0, 3, 3, 3]


async def test_a_mark_that_is_behind_changes_nothing_and_is_told_to_nobody(pair: Pair) -> None:
    room, ann = somewhere(), someone()
    async with chat_client(pair.a, ann, rooms=[room]) as here, chat_client(pair.b, ann, rooms=[room]) as there:
        acks = [await here.say(str(number)) for number in range(3)]
        await mark(here, cursor=acks[1]["cursor"])
        behind = await mark(there, cursor=acks[0]["cursor"])
        last = await mark(there)
        await here.inbox.next("read", lambda frame: frame["data"]["cursor"] == acks[2]["cursor"])

        assert behind["data"] == {"room": room, "cursor": acks[1]["cursor"], "unread": 1}
        assert last["data"]["unread"] == 0
        assert len(here.inbox.of_type("read")) == 2, "the answer to its own, and the last of the other's"


async def test_marks_at_two_edges_at_once_end_at_the_furthest(pair: Pair) -> None:
    room, ann = somewhere(), someone()
    async with chat_client(pair.a, ann, rooms=[room]) as here, chat_client(pair.b, ann, rooms=[room]) as there:
        acks = [await here.say(str(number)) for number in range(20)]
        cursors = [ack["cursor"] for ack in acks[:-1]] * 2
        random.Random(7).shuffle(cursors)

        async def mark_all(client: ChatClient, some: list[str]) -> None:
            for cursor in some:
                answer = await mark(client, cursor=cursor)
                assert Position.parse(answer["data"]["cursor"]).seq >= Position.parse(cursor).seq

        await asyncio.gather(mark_all(here, cursors[::2]), mark_all(there, cursors[1::2]))

        assert await unread(pair.a, ann) == await unread(pair.b, ann) == {room: 1}


async def test_the_count_is_exact_among_other_rooms_and_after_what_was_purged(pair: Pair, nats_url: str) -> None:
    room, other, ann = somewhere(), somewhere(), someone()
    async with chat_client(pair.a, ann, rooms=[room]) as client, connected(nats_url) as operator:
        first = await client.say("read")
        await mark(client, cursor=first["cursor"])
        acks = []
        for number in range(12):
            await client.say(str(number), room=other)
            acks.append(await client.say(str(number)))
        assert await unread(pair.b, ann) == {room: 12}
        await operator.js.purge_stream("CHAT", subject=subjects.chat_message(room), seq=acks[4]["seq"])
        assert await unread(pair.b, ann, room) == {room: 8}
        assert (await mark(client, cursor=acks[1]["cursor"]))["data"]["unread"] == 8, "what it names is gone"
        assert (await mark(client, cursor=acks[5]["cursor"]))["data"]["unread"] == 6
        await operator.js.purge_stream("CHAT", subject=subjects.chat_message(room))
        assert await unread(pair.b, ann, room, other) == {room: 0}
        await client.say("after")
        assert await unread(pair.b, ann) == {room: 1}


async def test_where_a_client_enters_a_room_is_a_place_that_can_be_marked(pair: Pair) -> None:
    busy, room, ann = somewhere(), somewhere(), someone()
    async with chat_client(pair.a, someone(), rooms=[busy]) as talker, chat_client(pair.b, ann) as client:
        await talker.say("elsewhere")
        await client.send("join", {"room": room})
        entered = (await client.inbox.next("joined"))["data"]["cursor"]
        assert (await mark(client, room=room, cursor=entered))["data"] == {"room": room, "cursor": entered, "unread": 0}
        await client.say("one's own counts", room=room)
        assert await unread(pair.a, ann) == {room: 1}


@pytest.mark.parametrize(
    "bad", ["", "nonsense", "e:-1", "0:1", "x" * 65, "{epoch}:9223372036854775807", "{epoch}:{end}0"]
)
async def test_a_cursor_that_cannot_be_is_refused_and_marks_nothing(pair: Pair, bad: str) -> None:
    room, ann = somewhere(), someone()
    async with chat_client(pair.a, ann, rooms=[room]) as client:
        ack = await client.say("one")
        epoch, _, end = ack["cursor"].partition(":")
        cursor = bad.format(epoch=epoch, end=end)
        answer = await mark(client, cursor=cursor)
        by_http = await pair.b.http.post(
            f"/api/chat/rooms/{room}/read", json={"cursor": cursor}, headers=pair.b.headers(ann)
        )

        assert (answer["type"], answer["data"]["code"]) == ("error", "bad_input")
        assert (by_http.status_code, by_http.json()["code"]) == (400, "bad_input")
        assert await unread(pair.a, ann) == {}


async def test_a_private_room_tells_who_is_no_member_nothing(pair: Pair) -> None:
    room, owner, ann = somewhere(), someone(), someone()
    made = {"room": room, "private": True, "members": [ann]}
    assert (await pair.a.http.post("/api/chat/rooms", json=made, headers=pair.a.headers(owner))).status_code == 201
    async with chat_client(pair.b, ann) as client:
        assert (await mark(client, room=room))["type"] == "read"
        body = {"userId": ann}
        await pair.a.http.post(f"/api/chat/rooms/{room}/leave", json=body, headers=pair.a.headers(owner))
        for edge in (pair.a, pair.b):
            headers = edge.headers(ann)
            marked = await edge.http.post(f"/api/chat/rooms/{room}/read", headers=headers)
            asked = await edge.http.get("/api/chat/unread", params={"room": room}, headers=headers)
            assert (marked.status_code, asked.status_code) == (403, 403)
            assert await unread(edge, ann) == {}
        refused = await mark(client, room=room)

        assert (refused["data"]["code"], refused["data"]["room"]) == ("forbidden", room)


async def test_marks_are_commands_and_limited_as_such(more_edges: Edges) -> None:
    edge = await more_edges.chat(command_burst=3, command_rate_hz=0.1)
    async with chat_client(edge, someone(), rooms=[somewhere()]) as client:
        answers = [await mark(client) for _ in range(4)]

        assert [answer["type"] for answer in answers] == ["read", "read", "read", "error"]
        assert answers[-1]["data"]["code"] == "rate_limited"


@pytest.mark.asyncio(loop_scope="function")
async def test_a_marker_outlives_its_edge_and_the_broker(own_edges: Edges, nats_server: NatsServer) -> None:
    edge, room, ann = await own_edges.process("chat"), somewhere(), someone()
    async with chat_client(edge, ann, rooms=[room]) as client:
        acks = [await client.say(str(number)) for number in range(3)]
        await mark(client, cursor=acks[0]["cursor"])
        await edge.kill()
    await nats_server.crash_and_restart()
    another = await own_edges.chat()

    assert await unread(another, ann) == {room: 2}
