"""The relay (W5, X1): bytes of the clients' own go to all others in the room, on every edge, and nowhere else."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.chat import relay
from shared.clock import monotonic_s
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.contracts.relay import MAX_RELAY_BYTES, encode_relayed
from shared.edge.topics.hub import Hub
from shared.errors import Unavailable
from tests.integration.conftest import Pair
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import Edge, Edges
from tests.support.relay import to_relay
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def make_room(edge: Edge, owner: str, **more: object) -> str:
    body = {"room": new_id("room-"), "relay": True} | more
    answer = await edge.http.post("/api/chat/rooms", json=body, headers=edge.headers(owner))
    assert answer.status_code == 201, answer.text
    assert answer.json()["relay"] is body["relay"]
    return str(body["room"])


def heard(client: ChatClient) -> list[bytes]:
    return [frame["data"]["payload"] for frame in client.inbox.of_type("relay")]


async def hears(client: ChatClient, payload: bytes) -> dict[str, object]:
    return dict((await client.inbox.next("relay", lambda frame: frame["data"]["payload"] == payload))["data"])


async def refusal(client: ChatClient) -> str:
    return str((await client.inbox.next("error"))["data"]["code"])


async def test_w5_bytes_reach_all_others_in_the_room_on_every_edge_and_the_senders_other_devices(pair: Pair) -> None:
    ann, bob = new_id("user-"), new_id("user-")
    room = await make_room(pair.a, ann)
    async with (
        chat_client(pair.a, ann, rooms=[room]) as sender,
        chat_client(pair.b, ann, rooms=[room]) as other_device,
        chat_client(pair.a, bob, rooms=[room]) as here,
        chat_client(pair.b, bob, rooms=[room]) as elsewhere,
    ):
        payload = bytes(range(256))
        await sender.socket.send(to_relay(payload, room))
        for client in (other_device, here, elsewhere):
            assert await hears(client, payload) == {"room": room, "userId": ann, "payload": payload}
        # What the sender would get of its own comes before this, by the same way.
        await elsewhere.socket.send(to_relay(b"back"))
        await hears(sender, b"back")

        assert heard(sender) == [b"back"]
        assert heard(here) == [payload, b"back"]


async def test_x1_many_small_moves_come_in_the_order_of_each_player(pair: Pair) -> None:
    room, players = await make_room(pair.a, "owner"), [new_id("user-") for _ in range(3)]
    moves = 30  # together fewer than one connection's burst, and than may wait for one that is slow
    async with (
        chat_client(pair.a, players[0], rooms=[room]) as first,
        chat_client(pair.b, players[1], rooms=[room]) as second,
        chat_client(pair.a, players[2], rooms=[room]) as watching,
    ):
        for number in range(moves):
            await first.socket.send(to_relay(b"a%d" % number))
            await second.socket.send(to_relay(b"b%d" % number))
        await watching.inbox.until(lambda inbox: len(inbox.of_type("relay")) == 2 * moves)

        for player, sign in zip(players, (b"a", b"b"), strict=False):
            said = [frame["data"] for frame in watching.inbox.of_type("relay") if frame["data"]["userId"] == player]
            assert [data["payload"] for data in said] == [sign + b"%d" % number for number in range(moves)]


async def test_nothing_is_kept_for_who_comes_later_and_messages_go_on_beside_it(pair: Pair) -> None:
    room = await make_room(pair.a, "owner")
    async with chat_client(pair.a, new_id("user-"), rooms=[room]) as ann:
        async with chat_client(pair.b, new_id("user-"), rooms=[room]) as bob:
            await ann.socket.send(to_relay(b"now"))
            await hears(bob, b"now")
            ack = await ann.say("stored")
            await bob.hears("stored")
        cursor = f"{ack['cursor'].split(':')[0]}:{ack['seq'] - 1}"
        async with chat_client(pair.b, new_id("user-"), rooms=[room], cursors=[cursor]) as late:
            await late.hears("stored")
            await ann.socket.send(to_relay(b"later"))
            await hears(late, b"later")

            assert heard(late) == [b"later"]


async def test_a_room_that_was_not_made_for_it_relays_nothing_so_no_client_gets_what_it_does_not_know(
    pair: Pair,
) -> None:
    plain = await make_room(pair.a, "owner", relay=False)
    async with chat_client(pair.a, new_id("user-"), rooms=["general", plain]) as ann:
        for room in ("general", plain):
            await ann.socket.send(to_relay(b"x", room))
            assert await refusal(ann) == "bad_input"
        await ann.send("ping")
        await ann.inbox.next("pong")


async def test_only_who_is_in_the_room_may_relay_there(pair: Pair) -> None:
    room = await make_room(pair.a, "owner")
    async with (
        chat_client(pair.a, new_id("user-"), rooms=[new_id("room-")]) as outside,
        chat_client(pair.b, new_id("user-"), rooms=[room]) as inside,
    ):
        await outside.socket.send(to_relay(b"from outside", room))
        assert await refusal(outside) == "forbidden"
        await outside.send("join", {"room": room})
        await outside.inbox.next("joined")
        await outside.socket.send(to_relay(b"from inside", room))
        await hears(inside, b"from inside")

        assert heard(inside) == [b"from inside"]


async def test_who_is_put_out_of_a_private_room_neither_hears_nor_says_anything_there(pair: Pair) -> None:
    owner, member, guest = (new_id("user-") for _ in range(3))
    room = await make_room(pair.a, owner, private=True, members=[member, guest])
    async with (
        chat_client(pair.a, owner, rooms=[room]) as ann,
        chat_client(pair.b, member, rooms=[room]) as bob,
        chat_client(pair.b, guest, rooms=[room]) as eve,
    ):
        path, headers = f"/api/chat/rooms/{room}/leave", pair.a.headers(owner)
        assert (await pair.a.http.post(path, json={"userId": guest}, headers=headers)).status_code == 200
        await eve.inbox.next("left")
        await eve.socket.send(to_relay(b"from outside", room))
        assert await refusal(eve) == "forbidden"
        await ann.socket.send(to_relay(b"secret"))
        await hears(bob, b"secret")

        assert heard(bob) == [b"secret"]
        assert heard(eve) == []


async def test_no_room_is_made_to_relay_over_the_heads_of_who_is_there_already(pair: Pair) -> None:
    room, owner = new_id("room-"), new_id("user-")
    body, headers = {"room": room, "relay": True}, pair.b.headers(owner)
    async with chat_client(pair.a, new_id("user-"), rooms=[room]) as early:

        async def known_there() -> bool:
            answer = await pair.b.http.get(f"/api/chat/rooms/{room}/presence", headers=headers)
            return bool(answer.json()["online"])

        async def refused() -> bool:
            return (await pair.b.http.post("/api/chat/rooms", json=body, headers=headers)).status_code == 409

        await eventually(known_there)
        assert await refused()
        await early.send("leave", {"room": room})
        await early.inbox.next("left")

        async def made() -> bool:
            return not await refused()

        await eventually(made)  # who has left may come back within a moment


async def test_what_is_cut_off_too_large_or_names_no_room_is_refused_and_the_connection_stays(pair: Pair) -> None:
    room = await make_room(pair.a, "owner")
    async with chat_client(pair.a, new_id("user-"), rooms=[room]) as ann:
        for raw, code in (
            (b"\x01", "bad_input"),
            (b"\x01\x09room", "bad_input"),
            (to_relay(b"x", "a.b"), "bad_id"),
            (to_relay(b"x", ">"), "bad_id"),
            (to_relay(bytes(MAX_RELAY_BYTES + 1)), "bad_input"),
        ):
            await ann.socket.send(raw)
            assert await refusal(ann) == code
        await ann.send("ping")
        await ann.inbox.next("pong")


async def test_bytes_before_auth_are_no_first_frame(pair: Pair) -> None:
    async with chat_client(pair.a) as nobody:
        await nobody.socket.send(to_relay(b"x"))
        assert await refusal(nobody) == "unauthorized"
        assert await nobody.closed() == 4008


async def test_who_relays_too_fast_is_told_and_then_closed_and_messages_are_not_limited_by_it(
    more_edges: Edges,
) -> None:
    edge = await more_edges.chat(relay_rate_hz=16, refused_before_close=3)
    room = await make_room(edge, "owner")
    async with chat_client(edge, new_id("user-"), rooms=[room]) as ann:
        for number in range(17):
            await ann.socket.send(to_relay(b"%d" % number))
        error = (await ann.inbox.next("error"))["data"]
        assert (error["code"], error["retryable"]) == ("rate_limited", True)
        assert 0 < error["retryAfterMs"] <= 1000 / 16 + 1
        await ann.say("as ever")
        for number in range(40):
            await ann.socket.send(to_relay(b"%d" % number))
        assert await ann.closed() == 4029


async def test_a_user_has_one_allowance_on_an_edge_and_pays_for_what_is_large(more_edges: Edges) -> None:
    edge, user = await more_edges.chat(relay_rate_hz=16), new_id("user-")
    room = await make_room(edge, "owner")
    async with (
        chat_client(edge, user, rooms=[room]) as one,
        chat_client(edge, user, rooms=[room]) as other,
        chat_client(edge, new_id("user-"), rooms=[room]) as somebody,
    ):
        await one.socket.send(to_relay(bytes(MAX_RELAY_BYTES)))
        await hears(somebody, bytes(MAX_RELAY_BYTES))
        await other.socket.send(to_relay(bytes(2_000)))
        assert await refusal(other) == "rate_limited"
        await somebody.socket.send(to_relay(b"not limited by it"))
        await hears(one, b"not limited by it")


async def test_who_goes_on_where_nothing_is_allowed_is_closed(more_edges: Edges) -> None:
    edge = await more_edges.chat(command_burst=20, command_rate_hz=1)
    async with (
        chat_client(edge, new_id("user-"), rooms=[new_id("room-")]) as bad,
        chat_client(edge, new_id("user-"), rooms=[new_id("room-")]) as neighbour,
    ):
        flood = to_relay(b"", "elsewhere")
        for _ in range(200):
            await bad.socket.send(flood)
        await neighbour.say("served")
        assert await bad.closed() == 4029


async def test_what_an_edge_cannot_carry_on_in_time_is_dropped_and_told(
    more_edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await more_edges.chat(relay_rate_hz=100_000)
    room = await make_room(edge, "owner")
    async with (
        chat_client(edge, new_id("user-"), rooms=[room]) as ann,
        chat_client(edge, new_id("user-"), rooms=[room]) as bob,
    ):
        monkeypatch.setattr(Hub, "waiting", lambda _hub, _subject: relay.MAX_WAITING)
        for number in range(5):
            await ann.socket.send(to_relay(b"%d" % number))
        await eventually(lambda: edge.count("relay_dropped") == 5)
        monkeypatch.undo()
        await ann.socket.send(to_relay(b"carried"))
        await hears(bob, b"carried")

        for client in (ann, bob):
            assert (await client.inbox.next("dropped"))["data"] == {"kind": "relay", "count": 5}
        assert heard(bob) == [b"carried"]


async def test_who_reads_too_slowly_is_told_how_many_were_dropped_and_stays(more_edges: Edges) -> None:
    edge = await more_edges.chat(relay_rate_hz=100_000)
    room = await make_room(edge, "owner")
    async with (
        chat_client(edge, new_id("user-"), rooms=[room]) as ann,
        chat_client(edge, new_id("user-"), rooms=[room]) as slow,
        chat_client(edge, new_id("user-"), rooms=[room]) as witness,
    ):
        slow.reading.clear()
        sent = 1_500
        for number in range(sent):
            await ann.socket.send(to_relay(b"%06d" % number + bytes(8_000)))
            await witness.inbox.until(lambda inbox, n=number: len(inbox.of_type("relay")) > n)  # type: ignore[misc]
        slow.reading.set()
        dropped = (await slow.inbox.next("dropped"))["data"]
        await ann.say("as ever")
        await slow.hears("as ever")

        numbers = [int(payload[:6]) for payload in heard(slow)]
        assert dropped == {"kind": "relay", "count": sent - len(numbers)}
        assert numbers == sorted(numbers)


async def test_what_is_not_of_its_room_reaches_nobody_and_is_counted(pair: Pair) -> None:
    room = await make_room(pair.a, "owner")
    async with chat_client(pair.a, new_id("user-"), rooms=[room]) as ann:
        before = pair.a.count("relay_ignored")
        for wrong in (b"", b"12345678", b"12345678" + encode_relayed("other", "u", b"x")):
            await pair.broker.publish(subjects.relay(room), wrong)
        await pair.broker.publish(subjects.relay(room), b"12345678" + encode_relayed(room, "backend", b"right"))
        await hears(ann, b"right")

        assert pair.a.count("relay_ignored") == before + 3
        assert heard(ann) == [b"right"]


async def test_an_edge_stops_to_listen_to_a_room_that_nobody_here_is_in(
    more_edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LINGER_S", 0.2)
    edge = await more_edges.chat(relay_rate_hz=100_000)
    room = await make_room(edge, "owner")
    async with (
        chat_client(edge, new_id("user-"), rooms=[room]) as ann,
        chat_client(edge, new_id("user-"), rooms=[room]) as bob,
    ):
        began_s, number = monotonic_s(), 0
        while monotonic_s() < began_s + 1:  # it looks several times meanwhile who is there
            number += 1
            await ann.socket.send(to_relay(b"%d" % number))
            await hears(bob, b"%d" % number)
        assert edge.gauge("relay_rooms") == 1
    await eventually(lambda: edge.gauge("relay_rooms") == 0)


async def test_who_was_replayed_to_for_longer_than_an_edge_lingers_hears_the_relay(
    more_edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "LINGER_S", 0.05)
    edge = await more_edges.chat()
    room, ann = await make_room(edge, "owner"), new_id("user-")
    attach, attached = Hub.attach, asyncio.Event()

    async def late(hub: Hub, *args: Any, **more: Any) -> Any:
        if args[1] == subjects.chat_message(room) and not attached.is_set():
            await eventually(lambda: edge.gauge("relay_rooms") == 0)
        gap = await attach(hub, *args, **more)
        attached.set()
        return gap

    monkeypatch.setattr(Hub, "attach", late)
    async with chat_client(edge, ann, rooms=[room]) as one:
        await attached.wait()
        async with chat_client(edge, new_id("user-"), rooms=[new_id("room-")]) as other:
            await eventually(lambda: edge.gauge("relay_rooms") == 1)
            await other.send("join", {"room": room})
            await other.inbox.next("joined")
            await other.socket.send(to_relay(b"hello", room))
            await hears(one, b"hello")


async def test_who_could_not_enter_for_want_of_the_relay_and_comes_again_is_not_shown_as_gone(
    more_edges: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    edge = await more_edges.chat()
    room, bob, carol = await make_room(edge, "owner"), new_id("user-"), new_id("user-")
    async with (
        chat_client(edge, new_id("user-"), rooms=[room]) as watcher,
        chat_client(edge, carol, rooms=[room]) as leaving,
    ):

        async def unavailable(_relay: relay.Relay, _room: str) -> None:
            raise Unavailable

        with monkeypatch.context() as broken:
            broken.setattr(relay.Relay, "follow", unavailable)
            async with chat_client(edge, bob, rooms=[room], greeted=False) as refused:
                assert (await refused.inbox.next("error"))["data"]["code"] == "unavailable"
                assert await refused.closed() == 1012
        async with chat_client(edge, bob, rooms=[room]):
            await leaving.close()  # what is to be told of bob would be told before this
            gone = await watcher.inbox.next("presence_update", lambda frame: frame["data"]["status"] == "offline")
            assert gone["data"]["userId"] == carol
