"""Messages: the article's frames, acks that mean stored, repetitions that are harmless, and the same over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.events import ChatMessage
from shared.contracts.ids import new_id
from tests.integration.conftest import Pair
from tests.support.clients import chat_client
from tests.support.hostile import BAD_IDS
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


def someone() -> str:
    return new_id("user-")


def somewhere() -> str:
    return new_id("room-")


async def stored(pair: Pair, room: str) -> list[ChatMessage]:
    """Return what the stream holds of a room."""
    page = await pair.broker.read_after(subjects.CHAT, subjects.chat_message(room), 0, limit=500)
    return [ChatMessage.model_validate_json(message.data) for message in page.messages]


# -- over the WebSocket -----------------------------------------------------------------------------------------------


async def test_w1_w3_a_message_reaches_the_room_on_both_edges_in_the_articles_shape(pair: Pair) -> None:
    room, alice_id = somewhere(), someone()
    async with (
        chat_client(pair.a, alice_id, rooms=[room], name="Alice") as alice,
        chat_client(pair.b, someone(), rooms=[room]) as bob,
    ):
        began_ms = now_ms()
        ack = await alice.say("hello", clientId="c1")
        for client in (alice, bob):
            frame = await client.inbox.next("chat_message")

            assert set(frame) == {"type", "data"}
            assert frame["data"].pop("timestamp") in range(began_ms, now_ms() + 1)
            assert frame["data"] == {
                "id": ack["id"],
                "room": room,
                "seq": ack["seq"],
                "cursor": ack["cursor"],
                "userId": alice_id,
                "username": "Alice",
                "content": "hello",
                "clientId": "c1",
            }


async def test_w4_the_articles_frames_work_unchanged_and_a_forged_user_does_not_count(pair: Pair) -> None:
    alice_id, bob_id = someone(), someone()
    async with chat_client(pair.b, bob_id) as bob, chat_client(pair.a, query=()) as alice:
        await alice.socket.send(json.dumps({"type": "auth", "token": pair.mint.token(alice_id)}))
        await alice.inbox.next("connected")
        content = new_id("hi ")
        message = {"userId": bob_id, "content": content, "timestamp": 1}
        await alice.socket.send(json.dumps({"type": "send_message", "data": message}))
        typing = {"userId": bob_id, "isTyping": True, "timestamp": 1}
        await alice.socket.send(json.dumps({"type": "typing_status", "data": typing}))
        heard = await bob.hears(content)
        shown = await bob.inbox.next("typing_indicator", lambda frame: frame["data"]["userId"] == alice_id)

        assert heard["userId"] == alice_id
        assert heard["room"] == "general"
        assert heard["timestamp"] > 1
        assert shown["data"]["isTyping"] is True


async def test_w4_a_frame_that_names_no_room_goes_to_the_room_of_the_url(pair: Pair) -> None:
    first, second = somewhere(), somewhere()
    async with chat_client(pair.a, someone(), rooms=[first, second]) as client:
        assert (await client.say("hi"))["room"] == first
        assert (await client.say("hi", room=second))["room"] == second


async def test_w5_a_binary_frame_with_utf_8_json_is_understood(pair: Pair) -> None:
    room = somewhere()
    async with chat_client(pair.a, someone(), rooms=[room]) as client:
        frame = {"type": "send_message", "data": {"content": "grüße 👋"}}
        await client.socket.send(json.dumps(frame, ensure_ascii=False).encode())

        assert (await client.hears("grüße 👋"))["room"] == room


async def test_an_ack_means_stored(pair: Pair) -> None:
    room, user = somewhere(), someone()
    async with chat_client(pair.a, user, rooms=[room]) as client:
        ack = await client.say("kept")
        (message,) = await stored(pair, room)

        assert (message.id, message.user_id, message.content) == (ack["id"], user, "kept")
        assert ack["cursor"].endswith(f":{ack['seq']}")
        assert await pair.broker.last_seq(subjects.CHAT, subjects.chat_message(room)) == ack["seq"]


async def test_an_ack_repeats_the_frames_id_and_client_id(pair: Pair) -> None:
    async with chat_client(pair.a, someone(), rooms=[somewhere()]) as client:
        await client.send("send_message", {"content": "hi", "clientId": "mine"}, id="frame 1 ✓")
        frame = await client.inbox.next("ack")

        assert frame["id"] == "frame 1 ✓"
        assert frame["data"]["clientId"] == "mine"
        assert frame["data"]["duplicate"] is False


async def test_a_repeated_client_id_is_one_message_whichever_edge_it_came_to(pair: Pair) -> None:
    room, user = somewhere(), someone()
    async with (
        chat_client(pair.a, user, rooms=[room]) as here,
        chat_client(pair.b, user, rooms=[room]) as there,
        chat_client(pair.b, someone(), rooms=[room]) as other,
    ):
        first = await here.say("once", clientId="c1")
        again = await there.say("once", clientId="c1")
        await there.say("end")
        await other.hears("end")

        assert first["duplicate"] is False
        assert again == first | {"duplicate": True}
        assert [message["content"] for message in other.messages] == ["once", "end"]
        assert len(await stored(pair, room)) == 2


async def test_a_client_id_is_the_users_own_and_the_rooms_own(pair: Pair) -> None:
    room, user = somewhere(), someone()
    async with (
        chat_client(pair.a, user, rooms=[room]) as client,
        chat_client(pair.a, someone(), rooms=[room]) as other,
    ):
        acks = [
            await client.say("a", clientId="same"),
            await other.say("b", clientId="same"),
            await client.say("c", clientId="same", room=somewhere()),
        ]

        assert [ack["duplicate"] for ack in acks] == [False] * 3
        assert len({ack["id"] for ack in acks}) == 3


async def test_messages_that_were_sent_before_the_client_left_are_stored(pair: Pair) -> None:
    room = somewhere()
    async with chat_client(pair.a, someone(), rooms=[room]) as client:
        for number in range(5):
            await client.send("send_message", {"content": str(number)})
        await client.close()

    async def the_last_is_stored() -> bool:
        return any(message.content == "4" for message in await stored(pair, room))

    await eventually(the_last_is_stored)
    assert [message.content for message in await stored(pair, room)] == list("01234")


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("e\u0301", "é"),
        ("pay \u202eexe.doc\u202c now", "pay exe.doc now"),
        ("a\x00b\x07c", "abc"),
        ("  two\nlines\t ", "two\nlines"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("👨‍👩‍👧 ok", "👨‍👩‍👧 ok"),
    ],
)
async def test_text_is_kept_as_written_less_what_could_deceive(pair: Pair, sent: str, kept: str) -> None:
    async with chat_client(pair.a, someone(), rooms=[somewhere()]) as client:
        await client.say(sent)

        assert (await client.inbox.next("chat_message"))["data"]["content"] == kept


async def test_w6_a_ping_frame_is_answered(pair: Pair) -> None:
    async with chat_client(pair.a, someone()) as client:
        await client.send("ping", id="p1")

        assert (await client.inbox.next("pong"))["id"] == "p1"


# -- over HTTP --------------------------------------------------------------------------------------------------------


async def test_h1_a_message_by_http_reaches_websockets_on_both_edges_with_the_same_ids(pair: Pair) -> None:
    room, user = somewhere(), someone()
    body = {"content": "by http", "room": room, "clientId": "c1"}
    async with (
        chat_client(pair.a, someone(), rooms=[room]) as here,
        chat_client(pair.b, user, rooms=[room]) as there,
    ):
        answer = await pair.a.http.post("/api/chat/messages", json=body, headers=pair.a.headers(user))
        receipt = answer.json()
        again = await there.say("by http", clientId="c1")

        assert answer.status_code == 201
        assert receipt["duplicate"] is False
        assert again == receipt | {"duplicate": True}
        assert (await here.hears("by http"))["id"] == (await there.hears("by http"))["id"] == receipt["id"]


async def test_h1_the_articles_body_is_enough(pair: Pair) -> None:
    answer = await pair.a.http.post("/api/chat/messages", json={"content": "hi"}, headers=pair.a.headers(someone()))

    assert answer.status_code == 201
    assert answer.json()["room"] == "general"


@pytest.mark.parametrize(
    "body",
    [{}, {"content": None}, {"content": ""}, {"content": " \u202e\n"}, {"content": "x" * 4_097}, [], "text", None, 1],
)
async def test_h1_a_body_without_text_is_refused(pair: Pair, body: Any) -> None:
    answer = await pair.a.http.post("/api/chat/messages", json=body, headers=pair.a.headers(someone()))

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_input"


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_h1_a_room_that_is_no_id_is_refused(pair: Pair, bad: str) -> None:
    body = {"content": "hi", "room": bad}
    answer = await pair.a.http.post("/api/chat/messages", json=body, headers=pair.a.headers(someone()))

    assert answer.status_code == 400
    assert "room" in answer.json()["detail"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/chat/messages"),
        ("GET", "/api/chat/rooms"),
        ("GET", "/api/chat/rooms/general/messages"),
        ("GET", "/api/chat/rooms/general/presence"),
        ("POST", "/api/chat/rooms/general/leave"),
    ],
)
async def test_every_call_needs_a_credential(pair: Pair, method: str, path: str) -> None:
    answer = await pair.a.http.request(method, path, json={})

    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_foreign_page_cannot_send_with_a_browsers_cookie(pair: Pair) -> None:
    headers = {"cookie": f"auth_token={pair.mint.token(someone())}", "origin": "https://evil.example"}
    answer = await pair.a.http.post("/api/chat/messages", json={"content": "hi"}, headers=headers)

    assert (answer.status_code, answer.json()["code"]) == (403, "origin_refused")


# -- history ----------------------------------------------------------------------------------------------------------


class History:
    """Reads a room's past as one user."""

    def __init__(self, pair: Pair, room: str) -> None:
        self._pair, self._path = pair, f"/api/chat/rooms/{room}/messages"
        self._headers = pair.b.headers(someone())

    async def get(self, **query: Any) -> Any:
        return await self._pair.b.http.get(self._path, params=query, headers=self._headers)

    async def page(self, **query: Any) -> tuple[list[str], bool, str]:
        answer = await self.get(**query)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return [message["content"] for message in body["messages"]], body["more"], body["cursor"]


async def filled(pair: Pair, room: str, count: int) -> list[dict[str, Any]]:
    async with chat_client(pair.a, someone(), rooms=[room]) as client:
        return [await client.say(str(number)) for number in range(count)]


async def test_history_is_read_backwards_and_forwards_by_cursor_or_sequence(pair: Pair) -> None:
    room = somewhere()
    acks = await filled(pair, room, 10)
    history = History(pair, room)

    newest, more, cursor = await history.page(limit=4)
    assert (newest, more, cursor) == (list("6789"), True, acks[9]["cursor"])
    assert await history.page(limit=4, before=acks[6]["cursor"]) == (list("2345"), True, history_cursor(acks[6], -1))
    assert (await history.page(limit=4, before=acks[2]["seq"]))[:2] == (list("01"), False)
    assert (await history.page(limit=3, after=acks[3]["cursor"]))[:2] == (list("456"), True)
    assert await history.page(after=acks[9]["seq"]) == ([], False, acks[9]["cursor"])


def history_cursor(ack: dict[str, Any], offset: int) -> str:
    epoch, _, seq = ack["cursor"].partition(":")
    return f"{epoch}:{int(seq) + offset}"


async def test_the_cursor_of_the_newest_page_is_where_a_live_reader_goes_on(pair: Pair) -> None:
    room = somewhere()
    acks = await filled(pair, room, 3)
    _, _, cursor = await History(pair, room).page(limit=2)
    async with chat_client(pair.a, someone(), rooms=[room]) as talker:
        await talker.say("since")
    async with chat_client(pair.a, someone(), rooms=[room], cursors=[cursor]) as client:
        await client.hears("since")

        assert cursor == acks[2]["cursor"]
        assert [message["content"] for message in client.messages] == ["since"]


async def test_the_history_of_an_empty_room_is_empty(pair: Pair) -> None:
    messages, more, _ = await History(pair, somewhere()).page()

    assert (messages, more) == ([], False)


@pytest.mark.parametrize("query", [{"before": "0"}, {"before": "1"}, {"after": str(2**64)}, {"after": "9" * 60}])
async def test_a_place_outside_the_stream_is_an_empty_page_with_a_valid_cursor(pair: Pair, query: Any) -> None:
    room = somewhere()
    await filled(pair, room, 1)
    history = History(pair, room)
    messages, _, cursor = await history.page(**query)

    assert messages == []
    assert (await history.get(after=cursor)).status_code == 200


@pytest.mark.parametrize("name", ["before", "after"])
@pytest.mark.parametrize(
    "value", ["-1", "abc", "1.5", "1e3", "x:y", "a:1:2", "\u0661", "a" * 65, "other:5", "\x00", "e:-1"]
)
async def test_a_place_that_is_none_is_refused(pair: Pair, name: str, value: str) -> None:
    answer = await History(pair, somewhere()).get(**{name: value})

    assert answer.status_code == 400
    assert answer.json()["code"] == "bad_input"


@pytest.mark.parametrize("limit", ["0", "-1", "201", "1000000000", "x", ""])
async def test_a_page_size_out_of_bounds_is_refused(pair: Pair, limit: str) -> None:
    assert (await History(pair, somewhere()).get(limit=limit)).status_code == 400


async def test_what_is_no_message_reaches_nobody_and_hides_nothing(pair: Pair) -> None:
    room, other = somewhere(), somewhere()
    misplaced = ChatMessage(id="m", room=other, user_id="u", username="u", content="misplaced", timestamp=1)
    async with chat_client(pair.a, someone(), rooms=[room]) as client:
        await client.say("before")
        payloads = [b"not json", b'{"content":"half"}', b"\xff", misplaced.to_json()]
        for payload in payloads:
            await pair.broker.append(subjects.chat_message(room), payload, msg_id=new_id())
        await client.say("after")
        await client.hears("after")
        messages, _, _ = await History(pair, room).page()

        assert [message["content"] for message in client.messages] == messages == ["before", "after"]

        async def all_dead() -> bool:
            subject = subjects.deadletter(subjects.chat_message(room))
            page = await pair.broker.read_after(subjects.DEADLETTER, subject, 0, limit=10)
            return sorted(message.data for message in page.messages) == sorted(payloads)

        await eventually(all_dead)
