"""Rooms: who may be in them, and that whoever may not any more is out on every edge at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.chat.session import ChatSession
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.events import ChatMessage
from shared.contracts.ids import new_id
from shared.edge.topics.hub import Hub
from shared.errors import Unavailable
from tests.integration.conftest import Pair
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import Edge, Edges
from tests.support.hostile import BAD_IDS

pytestmark = pytest.mark.asyncio(loop_scope="module")


def someone() -> str:
    return new_id("user-")


def somewhere() -> str:
    return new_id("room-")


async def make_room(edge: Edge, owner: str, *members: str, private: bool = True, room: str = "") -> str:
    body = {"room": room or somewhere(), "title": "A room", "private": private, "members": members}
    answer = await edge.http.post("/api/chat/rooms", json=body, headers=edge.headers(owner))
    assert answer.status_code == 201, answer.text
    return str(body["room"])


async def change_member(edge: Edge, by: str, room: str, what: str, user: str) -> int:
    answer = await edge.http.post(f"/api/chat/rooms/{room}/{what}", json={"userId": user}, headers=edge.headers(by))
    return answer.status_code


async def error(client: ChatClient, given_id: str) -> str:
    frame = await client.inbox.next("error", lambda frame: frame.get("id") == given_id)
    return str(frame["data"]["code"])


# -- open rooms -------------------------------------------------------------------------------------------------------


async def test_a_title_is_one_line_without_what_deceives_a_reader(pair: Pair) -> None:
    room = somewhere()
    body = {"room": room, "title": "exe\u202e.gpj\x00\n\x1b[31m  " + "\ufb2c" * 100}
    answer = await pair.a.http.post("/api/chat/rooms", json=body, headers=pair.a.headers("owner"))

    assert answer.status_code == 201, answer.text
    assert answer.json()["title"].startswith("exe.gpj [31m \u05e9")
    assert len(answer.json()["title"]) == 128


async def test_w8_a_client_follows_what_it_joins_and_not_what_it_leaves(pair: Pair) -> None:
    room, bob_id = somewhere(), someone()
    async with chat_client(pair.a, someone()) as alice, chat_client(pair.b, bob_id, rooms=[room]) as bob:
        await alice.send("join", {"room": room}, id="j")
        joined = await alice.inbox.next("joined")
        first = await bob.say("heard")
        await alice.hears("heard")
        await alice.send("leave", {"room": room}, id="l")
        left = await alice.inbox.next("left")
        await bob.say("not heard")
        await alice.send("join", {"room": room, "cursor": first["cursor"]})
        await alice.hears("not heard")

        assert (joined["id"], joined["data"]["room"]) == ("j", room)
        assert bob_id in joined["data"]["members"]
        assert (left["id"], left["data"]) == ("l", {"room": room})
        assert [message["content"] for message in alice.messages] == ["heard", "not heard"]


async def test_joining_again_from_a_cursor_repeats_the_past_once_and_doubles_nothing_live(pair: Pair) -> None:
    room = somewhere()
    async with chat_client(pair.a, someone(), rooms=[room]) as client:
        acks = [await client.say(str(number)) for number in range(3)]
        await client.hears("2")
        await client.send("join", {"room": room, "cursor": acks[0]["cursor"]})
        await client.inbox.next("joined")
        await client.send("join", {"room": room})
        await client.inbox.next("joined")
        await client.say("live")
        await client.hears("live")

        assert [message["content"] for message in client.messages] == ["0", "1", "2", "1", "2", "live"]


async def test_w8_a_message_goes_to_its_room_alone(pair: Pair) -> None:
    mine, other = somewhere(), somewhere()
    async with (
        chat_client(pair.a, someone(), rooms=[mine]) as alice,
        chat_client(pair.b, someone(), rooms=[other]) as bob,
        chat_client(pair.b, someone(), rooms=[mine, other]) as carol,
    ):
        await alice.say("to mine")
        await bob.say("to other")
        for client in (alice, bob, carol):
            await client.hears("to mine" if client is alice else "to other")
        await carol.inbox.until(lambda inbox: len(inbox.of_type("chat_message")) == 2)

        assert [message["content"] for message in alice.messages] == ["to mine"]
        assert [message["content"] for message in bob.messages] == ["to other"]


async def test_a_connection_follows_a_bounded_number_of_rooms(more_edges: Edges) -> None:
    edge = await more_edges.chat(max_rooms_per_socket=2)
    first, second, third = somewhere(), somewhere(), somewhere()
    async with chat_client(edge, someone(), rooms=[first, second]) as client:
        await client.send("join", {"room": third}, id="j")
        assert await error(client, "j") == "bad_input"
        await client.send("leave", {"room": first})
        await client.send("join", {"room": third})
        await client.inbox.next("joined")
    async with chat_client(edge, someone(), rooms=[first, second, third], greeted=False) as client:
        assert (await client.inbox.next("error"))["data"]["code"] == "bad_input"
        assert await client.closed() == 4003


@pytest.mark.parametrize(
    ("rooms", "cursors"),
    [(["a", "a"], []), (["a"], ["e:1", "e:2"]), (["a"], ["nonsense"]), (["a"], ["e:-1"]), (["a"], ["x" * 3_000])],
)
async def test_rooms_and_cursors_that_do_not_pair_are_refused(pair: Pair, rooms: list[str], cursors: list[str]) -> None:
    async with chat_client(pair.a, someone(), rooms=rooms, cursors=cursors, greeted=False) as client:
        assert (await client.inbox.next("error"))["data"]["code"] in {"bad_input", "conflict"}
        assert await client.closed() == 4003


@pytest.mark.parametrize("bad", [bad for bad in BAD_IDS if bad])
async def test_a_room_of_the_url_that_is_no_id_is_refused(pair: Pair, bad: str) -> None:
    async with chat_client(pair.a, someone(), rooms=[bad], greeted=False) as client:
        assert (await client.inbox.next("error"))["data"]["code"] == "bad_id"
        assert await client.closed() == 4003


# -- private rooms ----------------------------------------------------------------------------------------------------


async def test_who_is_no_member_can_neither_enter_nor_send_nor_read(pair: Pair) -> None:
    owner, stranger = someone(), someone()
    room = await make_room(pair.a, owner)
    for edge in (pair.a, pair.b):
        headers = edge.headers(stranger)
        async with chat_client(edge, stranger, rooms=[somewhere(), room], greeted=False) as client:
            refusal = (await client.inbox.next("error"))["data"]
            assert (refusal["code"], refusal["room"]) == ("forbidden", room)
            assert await client.closed() == 4003
        async with chat_client(edge, stranger) as client:
            await client.send("join", {"room": room}, id="1")
            assert await error(client, "1") == "forbidden"
            await client.send("send_message", {"room": room, "content": "hi"}, id="2")
            assert await error(client, "2") == "forbidden"
            await client.send("ping")
            await client.inbox.next("pong")
        calls = [
            await edge.http.post("/api/chat/messages", json={"room": room, "content": "hi"}, headers=headers),
            await edge.http.get(f"/api/chat/rooms/{room}/messages", headers=headers),
            await edge.http.get(f"/api/chat/rooms/{room}/presence", headers=headers),
            await edge.http.get(f"/api/chat/rooms/{room}/members", headers=headers),
        ]
        assert [answer.status_code for answer in calls] == [403] * 4


async def test_members_meet_on_any_edge(pair: Pair) -> None:
    owner, member, added = someone(), someone(), someone()
    room = await make_room(pair.a, owner, member)
    assert await change_member(pair.b, owner, room, "join", added) == 200
    async with (
        chat_client(pair.a, owner, rooms=[room]) as one,
        chat_client(pair.b, member, rooms=[room]) as two,
        chat_client(pair.a, added, rooms=[room]) as three,
    ):
        await two.say("between us")
        for client in (one, two, three):
            await client.hears("between us")


async def test_a_removed_member_is_out_on_every_edge_and_hears_nothing_more(pair: Pair) -> None:
    owner, removed = someone(), someone()
    room = await make_room(pair.a, owner, removed)
    async with (
        chat_client(pair.a, owner, rooms=[room]) as host,
        chat_client(pair.a, removed, rooms=[room]) as here,
        chat_client(pair.b, removed, rooms=[room]) as there,
    ):
        await host.say("before")
        for client in (here, there):
            await client.hears("before")
        assert await change_member(pair.b, owner, room, "leave", removed) == 200
        for client in (here, there):
            left = await client.inbox.next("left")
            assert left["data"] == {"room": room, "reason": "not a member"}
        await host.say("after")
        await host.hears("after")
        for client in (here, there):
            await client.send("send_message", {"room": room, "content": "let me in"}, id="s")
            assert await error(client, "s") == "forbidden"
            await client.send("join", {"room": room}, id="j")
            assert await error(client, "j") == "forbidden"
            assert [message["content"] for message in client.messages] == ["before"]


@pytest.mark.parametrize("own", [True, False], ids=["in the room itself", "in a room before it"])
async def test_who_is_removed_while_they_are_replayed_to_reads_nothing_that_was_said_later(
    pair: Pair, own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that takes what it missed slowly has been admitted, and must not outlast its removal so."""
    owner, removed, big = someone(), someone(), somewhere()
    room = await make_room(pair.a, owner, removed)
    slow_room = room if own else big
    async with chat_client(pair.a, owner, rooms=[big, room]) as host:
        cursors = {each: (await host.say("first", room=each))["cursor"] for each in (big, room)}
        for number in range(40):
            await host.say(f"{number}" + "x" * 2_000, room=slow_room)
        waiting, go_on = asyncio.Event(), asyncio.Event()

        async def writable(session: ChatSession) -> None:
            if session.user_id == removed:
                waiting.set()
                await go_on.wait()

        monkeypatch.setattr(ChatSession, "writable", writable)
        rooms = [room] if own else [big, room]
        async with chat_client(pair.b, removed, rooms=rooms, cursors=[cursors[each] for each in rooms]) as slow:
            await asyncio.wait_for(waiting.wait(), 10)
            assert await change_member(pair.a, owner, room, "leave", removed) == 200
            await slow.inbox.next("left")
            await host.say("a secret", room=room)
            await host.hears("a secret")
            go_on.set()
            if not own:
                await slow.inbox.next("chat_message", lambda frame: frame["data"]["content"].startswith("39"))
            await slow.send("ping")
            await slow.inbox.next("pong")

            heard = [message["content"] for message in slow.messages if message["room"] == room]
            assert "a secret" not in heard
            assert len(heard) < 20 if own else heard == []


async def test_who_joins_and_cannot_be_brought_up_to_date_is_out_and_joins_again(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In, but deaf, they would hear nothing and be told nothing."""
    room, attach, failures = somewhere(), Hub.attach, 1

    async def fails_once(hub: Hub, stream: str, subject: str, *args: Any, **more: Any) -> Any:
        nonlocal failures
        if subject == subjects.chat_message(room) and failures:
            failures -= 1
            raise Unavailable
        return await attach(hub, stream, subject, *args, **more)

    monkeypatch.setattr(Hub, "attach", fails_once)
    async with chat_client(pair.a, someone(), rooms=[somewhere()]) as client, chat_client(pair.b, someone()) as other:
        await client.send("join", {"room": room}, id="j")
        assert await error(client, "j") == "unavailable"
        await client.send("join", {"room": room}, id="k")
        await client.inbox.next("joined", lambda frame: frame["id"] == "k")
        await other.say("heard", room=room)

        assert (await client.hears("heard"))["room"] == room


async def test_rooms_are_listed_a_part_at_a_time_and_none_is_left_out(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.chat.rooms.LISTED_AT_ONCE", 2)
    owner = someone()
    made = {await make_room(pair.a, owner, private=bool(number % 2)) for number in range(5)}
    found: list[str] = []
    calls, after = 0, 0
    while after is not None:
        answer = await pair.b.http.get("/api/chat/rooms", params={"after": after}, headers=pair.b.headers(owner))
        assert len(answer.json()["rooms"]) <= 2
        found += [record["room"] for record in answer.json()["rooms"]]
        calls, after = calls + 1, answer.json()["next"]

    assert made <= set(found)
    assert len(found) == len(set(found))
    assert calls >= 3
    too_far = await pair.b.http.get("/api/chat/rooms", params={"after": 2**63}, headers=pair.b.headers(owner))
    assert too_far.status_code == 400


async def test_only_the_owner_changes_the_members_but_a_member_may_go(pair: Pair) -> None:
    owner, member, stranger = someone(), someone(), someone()
    room = await make_room(pair.a, owner, member)

    assert await change_member(pair.a, stranger, room, "join", stranger) == 403
    assert await change_member(pair.a, member, room, "join", stranger) == 403
    assert await change_member(pair.a, member, room, "leave", owner) == 403
    assert await change_member(pair.b, member, room, "leave", member) == 200
    assert await change_member(pair.a, owner, somewhere(), "join", member) == 404


async def test_a_room_is_made_once_and_listed_to_those_who_may_enter(pair: Pair) -> None:
    owner, member, stranger = someone(), someone(), someone()
    private, public = await make_room(pair.a, owner, member), await make_room(pair.b, owner, private=False)

    async def listed(user: str) -> set[str]:
        answer = await pair.b.http.get("/api/chat/rooms", headers=pair.b.headers(user))
        assert (answer.json()["default"], answer.json()["next"]) == ("general", None)
        return {record["room"] for record in answer.json()["rooms"]} & {private, public}

    again = await pair.b.http.post("/api/chat/rooms", json={"room": private}, headers=pair.b.headers(stranger))
    assert again.status_code == 409
    assert [await listed(user) for user in (owner, member, stranger)] == [{private, public}] * 2 + [{public}]


async def delete_room(edge: Edge, by: str, room: str) -> int:
    return (await edge.http.delete(f"/api/chat/rooms/{room}", headers=edge.headers(by))).status_code


async def try_to_make(edge: Edge, owner: str, room: str = "") -> tuple[int, str]:
    body = {"room": room or somewhere()}
    answer = await edge.http.post("/api/chat/rooms", json=body, headers=edge.headers(owner))
    return answer.status_code, answer.json().get("code", "")


async def test_nobody_can_make_the_default_room_theirs_nor_one_that_is_in_use(pair: Pair) -> None:
    used = somewhere()
    async with chat_client(pair.a, someone(), rooms=[used]) as client:
        await client.say("I was here first")
        for room in ("general", used):
            assert await try_to_make(pair.b, someone(), room) == (409, "conflict")
        await client.say("and still am")


# -- deleted rooms ----------------------------------------------------------------------------------------------------


async def test_a_deleted_room_puts_all_out_on_every_edge_and_nothing_is_left_of_it(pair: Pair) -> None:
    owner, member, stranger = someone(), someone(), someone()
    room = await make_room(pair.a, owner, member)
    async with chat_client(pair.a, owner, rooms=[room]) as one, chat_client(pair.b, member, rooms=[room]) as two:
        await one.say("secret")
        await two.hears("secret")
        refused = [await delete_room(pair.a, user, room) for user in (stranger, member)]
        done = await delete_room(pair.b, owner, room)
        for client in (one, two):
            left = await client.inbox.next("left")
            assert left["data"] == {"room": room, "reason": "the room was deleted"}
            await client.send("send_message", {"room": room, "content": "let me in"}, id="s")
            assert await error(client, "s") == "forbidden"
            await client.send("join", {"room": room}, id="j")
            assert await error(client, "j") == "forbidden"

    assert (refused, done) == ([403, 403], 204)
    assert await pair.broker.last_seq(subjects.CHAT, subjects.chat_message(room)) == 0
    assert await try_to_make(pair.a, stranger, room) == (409, "conflict")
    assert await change_member(pair.a, owner, room, "join", stranger) == 404
    assert await delete_room(pair.a, owner, room) == 204  # whoever did not hear the answer may ask again
    assert await delete_room(pair.a, owner, somewhere()) == 404


async def test_who_takes_the_name_of_a_deleted_room_reads_nothing_of_it_not_even_what_came_too_late(
    more_edges: Edges, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.chat.rooms.PURGED_AGAIN_AFTER_S", 0.5)
    monkeypatch.setattr("services.chat.rooms.CLOSED_S", 2)
    edge, elsewhere = await more_edges.chat(), await more_edges.chat()
    owner, heir, room = someone(), someone(), somewhere()
    subject = subjects.chat_message(room)
    await make_room(edge, owner, room=room)
    async with chat_client(edge, owner, rooms=[room]) as client:
        cursor = (await client.say("secret"))["cursor"]
        assert await delete_room(edge, owner, room) == 204
        await client.inbox.next("left")
    late = ChatMessage.encode("m_late", room, owner, "Late", "too late", now_ms())
    await pair.broker.append(subject, late, msg_id=new_id())  # by an edge that had not heard of it
    async with asyncio.timeout(10):
        while await try_to_make(elsewhere, heir, room) != (201, ""):
            await asyncio.sleep(0.1)
    history = await elsewhere.http.get(f"/api/chat/rooms/{room}/messages", headers=edge.headers(heir))
    async with chat_client(elsewhere, heir, rooms=[room], cursors=[cursor]) as client:
        await client.say("mine")
        await client.hears("mine")

        assert [message["content"] for message in client.messages] == ["mine"]
    assert history.json()["messages"] == []


# -- how many a user owns ---------------------------------------------------------------------------------------------


async def test_a_user_owns_no_more_rooms_than_they_may_however_many_edges_they_ask_at_once(more_edges: Edges) -> None:
    edges, user = [await more_edges.chat(max_rooms_per_user=3) for _ in range(2)], someone()
    answers = await asyncio.gather(*(try_to_make(edges[number % 2], user) for number in range(10)))

    assert sorted(answers) == [(201, "")] * 3 + [(409, "quota_exceeded")] * 7
    assert await try_to_make(edges[0], someone()) == (201, "")


async def test_whoever_deletes_a_room_may_make_another_at_any_edge(more_edges: Edges) -> None:
    edges, user, room = [await more_edges.chat(max_rooms_per_user=1) for _ in range(2)], someone(), somewhere()
    assert await try_to_make(edges[0], user, room) == (201, "")
    assert await try_to_make(edges[0], user, room) == (409, "conflict")
    assert await try_to_make(edges[1], user) == (409, "quota_exceeded")
    assert await delete_room(edges[1], user, room) == 204

    assert await try_to_make(edges[0], user) == (201, "")


async def test_for_benchmarks_a_user_owns_any_number_of_rooms(more_edges: Edges) -> None:
    edge, user = await more_edges.chat(max_rooms_per_user=1, FANFARE_LIMITS="off"), someone()

    assert [await try_to_make(edge, user) for _ in range(3)] == [(201, "")] * 3


# -- rooms that cannot be ---------------------------------------------------------------------------------------------


BAD_ROOMS: list[Any] = [{"room": bad} for bad in BAD_IDS]
BAD_ROOMS += [
    {},
    {"room": "r", "members": ["*"]},
    {"room": "r", "members": ["m"] * 501},
    {"room": "r", "title": "x" * 129},
]


@pytest.mark.parametrize("body", BAD_ROOMS)
async def test_a_room_that_cannot_be_is_not_made(pair: Pair, body: Any) -> None:
    answer = await pair.a.http.post("/api/chat/rooms", json=body, headers=pair.a.headers(someone()))

    assert answer.status_code == 400
