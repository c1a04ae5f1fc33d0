"""Who is there and who types, over both edges: told once, and never for ever."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from services.chat import typing
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.edge.delivery.listener import Listener
from shared.edge.roster import MAX_ROSTER_USERS, roster
from shared.edge.topics.hub import Hub
from tests.integration.conftest import Pair
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import Edge
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def someone() -> str:
    return new_id("user-")


def somewhere() -> str:
    return new_id("room-")


async def sees(client: ChatClient, user: str, status: str, room: str = "") -> None:
    await client.inbox.next(
        "presence_update",
        lambda frame: (
            (frame["data"]["userId"], frame["data"]["status"]) == (user, status) and room in {"", frame["data"]["room"]}
        ),
    )


def seen(client: ChatClient, user: str, room: str = "") -> list[str]:
    updates = [frame["data"] for frame in client.inbox.of_type("presence_update")]
    return [data["status"] for data in updates if data["userId"] == user and room in {"", data["room"]}]


def knows(client: ChatClient, user: str, room: str) -> bool:
    """Whether a client was told that `user` is in one of the rooms that it began with."""
    (connected,) = client.inbox.of_type("connected")
    listed = {each["room"]: each["members"] for each in connected["data"]["rooms"]}[room]
    return user in listed or seen(client, user, room)[-1:] == ["online"]


async def online(edge: Edge, room: str) -> list[str]:
    answer = await edge.http.get(f"/api/chat/rooms/{room}/presence", headers=edge.headers(someone()))
    return [member["userId"] for member in answer.json()["online"]]


async def is_online(edge: Edge, room: str, user: str, *, not_there: bool = False) -> bool:
    return (user in await online(edge, room)) != not_there


# -- presence ---------------------------------------------------------------------------------------------------------


async def test_w1_coming_and_going_is_seen_on_both_edges_once_each(pair: Pair) -> None:
    room, bob = somewhere(), someone()
    async with (
        chat_client(pair.a, someone(), rooms=[room]) as here,
        chat_client(pair.b, someone(), rooms=[room]) as there,
    ):
        async with chat_client(pair.b, bob, rooms=[room], name="Bob"):
            for witness in (here, there):
                await sees(witness, bob, "online")
        for witness in (here, there):
            await sees(witness, bob, "offline")

            assert seen(witness, bob) == ["online", "offline"]
        frame = next(frame for frame in here.inbox.of_type("presence_update") if frame["data"]["userId"] == bob)
        assert set(frame["data"]) == {"room", "userId", "username", "status", "timestamp"}
        assert frame["data"]["username"] == "Bob"


async def test_those_who_come_to_new_rooms_at_two_edges_at_once_see_each_other(pair: Pair) -> None:
    meetings = [([somewhere() for _ in range(5)], someone(), someone()) for _ in range(20)]
    async with AsyncExitStack() as stack:
        coming = [
            stack.enter_async_context(chat_client(edge, user, rooms=rooms))
            for rooms, here, there in meetings
            for edge, user in ((pair.a, here), (pair.b, there))
        ]
        clients = await asyncio.gather(*coming)
        others = [(user, rooms) for rooms, here, there in meetings for user in (there, here)]
        wanted = [(client, user, room) for client, (user, rooms) in zip(clients, others, strict=True) for room in rooms]

        await eventually(lambda: all(knows(*each) for each in wanted), deadline_s=5)  # before the keys are read again
        assert all(seen(client, user, room) in ([], ["online"]) for client, user, room in wanted)


async def test_who_comes_and_goes_while_a_client_is_replayed_to_is_told_to_it_afterwards(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    room, alice, bob, carol = somewhere(), someone(), someone(), someone()
    attach, replaying, go_on = Hub.attach, asyncio.Event(), asyncio.Event()

    async def slowly(hub: Hub, stream: str, subject: str, listener: Listener, after: Position, **outlet: Any) -> Any:
        if listener.user_id == bob:
            replaying.set()
            await go_on.wait()
        return await attach(hub, stream, subject, listener, after, **outlet)

    monkeypatch.setattr(Hub, "attach", slowly)
    async with AsyncExitStack() as leaving:
        await leaving.enter_async_context(chat_client(pair.b, alice, rooms=[room], name="Alice"))
        await eventually(lambda: is_online(pair.a, room, alice))
        async with chat_client(pair.a, bob, rooms=[room]) as client, chat_client(pair.b, carol, rooms=[room]):
            await replaying.wait()
            await leaving.aclose()
            await eventually(lambda: is_online(pair.a, room, carol))
            await eventually(lambda: is_online(pair.a, room, alice, not_there=True))
            assert knows(client, alice, room)
            assert (seen(client, alice), seen(client, carol)) == ([], [])
            go_on.set()

            await sees(client, carol, "online")
            await sees(client, alice, "offline")
            assert (seen(client, alice), seen(client, carol)) == (["offline"], ["online"])
            (gone,) = [each for each in client.inbox.of_type("presence_update") if each["data"]["userId"] == alice]
            assert gone["data"]["username"] == "Alice"


async def test_w1_a_newcomer_is_told_who_is_there_and_anyone_may_ask(pair: Pair) -> None:
    room, alice, bob = somewhere(), someone(), someone()
    async with chat_client(pair.a, alice, rooms=[room]):

        async def alice_is_known() -> bool:
            return await online(pair.b, room) == [alice]

        await eventually(alice_is_known)
        async with chat_client(pair.b, bob, rooms=[room]) as newcomer:
            (connected,) = newcomer.inbox.of_type("connected")

            assert set(connected["data"]["rooms"][0]["members"]) == {alice, bob}


async def test_in_an_audience_nobody_gets_a_list_or_hears_of_who_comes(pair: Pair) -> None:
    room, edge = somewhere(), new_id("edge-")
    users = {f"user-{number:03}": "somebody" for number in range(MAX_ROSTER_USERS - 1)}
    await pair.broker.put(subjects.PRESENCE, room, edge, value=roster(users), ttl_s=60)
    await pair.broker.put(subjects.LEASES, "edge", edge, value=b"{}", ttl_s=60)
    async with chat_client(pair.a, someone(), rooms=[room]) as last_listed:

        async def is_an_audience() -> bool:
            return len(await online(pair.b, room)) == MAX_ROSTER_USERS

        await eventually(is_an_audience)
        bob = someone()
        async with chat_client(pair.b, bob, rooms=[room]) as newcomer:
            await newcomer.send("join", {"room": room})
            joined = await newcomer.inbox.next("joined")
            await eventually(lambda: is_in_roster(pair, room, bob, edges=1))
            await newcomer.say("fence")
            await last_listed.hears("fence")

            lists = [
                client.inbox.of_type("connected")[0]["data"]["rooms"][0]["members"]
                for client in (last_listed, newcomer)
            ]
            assert [*map(len, lists), len(joined["data"]["members"])] == [MAX_ROSTER_USERS, 0, 0]
            assert seen(last_listed, bob) == []
    # Others' edges must not wait for it to sweep up after one that has died.
    await pair.broker.delete(subjects.LEASES, "edge", edge)
    await pair.broker.delete(subjects.PRESENCE, room, edge)


async def test_w8_two_tabs_of_a_user_on_two_edges_count_once(pair: Pair) -> None:
    room, bob = somewhere(), someone()
    async with chat_client(pair.a, someone(), rooms=[room]) as witness:
        async with chat_client(pair.a, bob, rooms=[room]):
            async with chat_client(pair.a, bob, rooms=[room]), chat_client(pair.b, bob, rooms=[room]):
                await sees(witness, bob, "online")
                await eventually(lambda: is_in_roster(pair, room, bob, edges=2))
            await eventually(lambda: is_in_roster(pair, room, bob, edges=1))
            await witness.say("only one tab left")
        await sees(witness, bob, "offline")

        assert seen(witness, bob) == ["online", "offline"]


async def is_in_roster(pair: Pair, room: str, user: str, *, edges: int) -> bool:
    """Say whether as many edges as that have `user` in their roster of `room`, as the broker keeps it."""
    entries = [await pair.broker.get("presence", room, edge.name) for edge in (pair.a, pair.b)]
    return sum(entry is not None and user in entry.value.decode() for entry in entries) == edges


async def test_w8_leaving_takes_the_user_out_of_every_room(pair: Pair) -> None:
    rooms, bob = [somewhere() for _ in range(3)], someone()
    async with chat_client(pair.a, someone(), rooms=rooms) as witness:
        async with chat_client(pair.b, bob, rooms=rooms):
            await witness.inbox.until(lambda _inbox: seen(witness, bob).count("online") == 3)
        await witness.inbox.until(lambda _inbox: seen(witness, bob).count("offline") == 3)
        assert {
            frame["data"]["room"]
            for frame in witness.inbox.of_type("presence_update")
            if frame["data"]["status"] == "offline"
        } == set(rooms)
        for room in rooms:
            assert bob not in await online(pair.a, room)


async def test_a_reload_or_a_change_of_edge_is_no_leave(pair: Pair) -> None:
    room, bob, last = somewhere(), someone(), someone()
    async with chat_client(pair.a, someone(), rooms=[room]) as witness:
        async with chat_client(pair.a, bob, rooms=[room]):
            await sees(witness, bob, "online")
        async with chat_client(pair.b, bob, rooms=[room]):
            # One who really leaves after bob's reload: when that is seen, bob's leave would have been.
            async with chat_client(pair.a, last, rooms=[room]):
                await sees(witness, last, "online")
            await sees(witness, last, "offline")

            assert seen(witness, bob) == ["online"]


async def test_a_room_that_is_left_by_frame_sees_it(pair: Pair) -> None:
    room, bob = somewhere(), someone()
    async with (
        chat_client(pair.a, someone(), rooms=[room]) as witness,
        chat_client(pair.b, bob, rooms=[room]) as client,
    ):
        await sees(witness, bob, "online")
        await client.send("leave", {"room": room})
        await sees(witness, bob, "offline")

        assert seen(witness, bob) == ["online", "offline"]
        assert [frame["data"]["room"] for frame in client.inbox.of_type("left")] == [room]


# -- typing -----------------------------------------------------------------------------------------------------------


async def test_w1_typing_reaches_the_others_on_both_edges_and_not_the_typist(pair: Pair) -> None:
    room, bob = somewhere(), someone()
    async with (
        chat_client(pair.a, bob, rooms=[room]) as typist,
        chat_client(pair.a, someone(), rooms=[room]) as here,
        chat_client(pair.b, someone(), rooms=[room]) as there,
    ):
        for is_typing in (True, False):
            await typist.send("typing_status", {"isTyping": is_typing})
            for other in (here, there):
                shown = (await other.inbox.next("typing_indicator"))["data"]

                assert (shown["room"], shown["userId"], shown["isTyping"]) == (room, bob, is_typing)
        await typist.say("end")
        await typist.hears("end")
        assert typist.inbox.of_type("typing_indicator") == []


async def test_w1_typing_that_nobody_ends_ends_by_itself(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typing.EXPIRES_S == 6.0
    monkeypatch.setattr(typing, "EXPIRES_S", 0.2)
    room = somewhere()
    async with (
        chat_client(pair.a, someone(), rooms=[room]) as typist,
        chat_client(pair.b, someone(), rooms=[room]) as other,
    ):
        await typist.send("typing_status", {"isTyping": True})
        shown = [(await other.inbox.next("typing_indicator"))["data"]["isTyping"] for _ in range(2)]

        assert shown == [True, False]


async def test_typing_in_a_room_that_one_is_not_in_is_shown_to_nobody(pair: Pair) -> None:
    room = somewhere()
    async with chat_client(pair.a, someone()) as stranger, chat_client(pair.b, someone(), rooms=[room]) as member:
        await stranger.send("typing_status", {"isTyping": True, "room": room})
        await stranger.say("fence", room=room)
        await member.hears("fence")

        assert member.inbox.of_type("typing_indicator") == []


async def test_too_much_typing_is_dropped_and_costs_no_message(pair: Pair) -> None:
    room = somewhere()
    async with (
        chat_client(pair.a, someone(), rooms=[room]) as typist,
        chat_client(pair.b, someone(), rooms=[room]) as other,
    ):
        before = pair.a.count("typing_ignored", reason="rate")
        for _ in range(50):
            await typist.send("typing_status", {"isTyping": True})
        await typist.say("still heard")
        await other.hears("still heard")

        assert pair.a.count("typing_ignored", reason="rate") - before >= 40
        assert 5 <= len(other.inbox.of_type("typing_indicator")) <= 10
