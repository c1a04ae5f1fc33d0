"""A client that was away gets, on any edge, exactly what came after its cursor, or is told that it cannot."""

from __future__ import annotations

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.events import ChatMessage
from shared.contracts.ids import new_id
from shared.edge.continuity.past import MAX_REPLAY
from tests.integration.conftest import Pair
from tests.support.clients import chat_client

pytestmark = pytest.mark.asyncio(loop_scope="module")


def someone() -> str:
    return new_id("user-")


def somewhere() -> str:
    return new_id("room-")


async def publish(broker: JetStreamBroker, room: str, count: int) -> list[int]:
    """Store messages as an edge would, without one."""
    seqs = []
    for number in range(count):
        message = ChatMessage(
            id=new_id("m_"), room=room, user_id="u", username="u", content=str(number), timestamp=now_ms()
        )
        stored = await broker.append(subjects.chat_message(room), message.to_json(), msg_id=message.id)
        seqs.append(stored.seq)
    return seqs


async def test_w6_whoever_returns_on_another_edge_gets_exactly_what_they_missed_and_then_what_is_live(
    pair: Pair,
) -> None:
    room, user = somewhere(), someone()
    async with chat_client(pair.a, someone(), rooms=[room]) as talker:
        async with chat_client(pair.a, user, rooms=[room]) as client:
            seen = await talker.say("seen")
            await client.hears("seen")
            cursor = client.messages[-1]["cursor"]
        missed = [await talker.say(f"missed {number}") for number in range(20)]
        async with chat_client(pair.b, user, rooms=[room], cursors=[cursor]) as back:
            live = await talker.say("live")
            await back.hears("live")

            assert cursor == seen["cursor"]
            assert [message["seq"] for message in back.messages] == [ack["seq"] for ack in [*missed, live]]
            assert not back.inbox.of_type("gap")
            assert not back.inbox.of_type("resync")


async def test_w6_the_cursor_of_connected_is_a_place_to_return_to(pair: Pair) -> None:
    room, user = somewhere(), someone()
    async with chat_client(pair.a, user, rooms=[room]) as client:
        cursor = client.inbox.of_type("connected")[0]["data"]["cursor"]
    await publish(pair.broker, room, 3)
    async with chat_client(pair.b, user, rooms=[room], cursors=[cursor]) as back:
        await back.hears("2")

        assert [message["content"] for message in back.messages] == list("012")


async def test_w6_each_room_has_its_own_cursor(pair: Pair) -> None:
    first, second, user = somewhere(), somewhere(), someone()
    seqs = [await publish(pair.broker, room, 5) for room in (first, second)]
    epoch = (await pair.broker.state(subjects.CHAT)).epoch
    cursors = [str(Position(epoch, seqs[0][3])), str(Position(epoch, seqs[1][1]))]
    async with chat_client(pair.b, user, rooms=[first, second], cursors=cursors) as client:
        await client.inbox.until(lambda inbox: len(inbox.of_type("chat_message")) == 4)

        assert [(message["room"], message["seq"]) for message in client.messages] == [
            (first, seqs[0][4]),
            *((second, seq) for seq in seqs[1][2:]),
        ]


async def test_w6_a_resume_while_others_talk_loses_and_doubles_nothing(pair: Pair) -> None:
    room = somewhere()
    async with chat_client(pair.a, someone(), rooms=[room]) as talker:
        first = await talker.say("first")
        sent = [first["seq"]]
        for round_ in range(5):
            for number in range(8):
                await talker.send("send_message", {"content": f"{round_}.{number}"})
            async with chat_client(pair.b, someone(), rooms=[room], cursors=[first["cursor"]]) as back:
                sent.append((await talker.say(f"end {round_}"))["seq"])
                await back.hears(f"end {round_}")
                await talker.hears(f"end {round_}")

                assert [message["seq"] for message in back.messages] == [
                    message["seq"] for message in talker.messages if message["seq"] > first["seq"]
                ]


async def test_w6_joining_by_frame_takes_a_cursor_too(pair: Pair) -> None:
    room = somewhere()
    seqs = await publish(pair.broker, room, 5)
    epoch = (await pair.broker.state(subjects.CHAT)).epoch
    async with chat_client(pair.a, someone()) as client:
        await client.send("join", {"room": room, "cursor": str(Position(epoch, seqs[2]))})
        await client.hears("4")

        assert [message["seq"] for message in client.messages] == seqs[3:]


@pytest.mark.parametrize("by_frame", [True, False], ids=["frame", "url"])
async def test_a_cursor_of_another_life_of_the_stream_starts_over(pair: Pair, by_frame: bool) -> None:
    room = somewhere()
    async with chat_client(
        pair.a, someone(), rooms=[] if by_frame else [room], cursors=[] if by_frame else ["other:5"]
    ) as client:
        if by_frame:
            await client.send("join", {"room": room, "cursor": "other:5"})
        resync = await client.inbox.next("resync")
        await client.say("live", room=room)
        await client.hears("live")

        cursor = Position.parse(resync["data"].pop("cursor"))
        assert cursor.epoch == (await pair.broker.state(subjects.CHAT)).epoch
        assert resync["data"] == {"room": room, "reason": "epoch_changed"}


async def test_a_cursor_that_nobody_gave_out_starts_over(pair: Pair) -> None:
    room = somewhere()
    epoch = (await pair.broker.state(subjects.CHAT)).epoch
    async with chat_client(pair.a, someone(), rooms=[room], cursors=[f"{epoch}:{10**18}"]) as client:
        assert (await client.inbox.next("resync"))["data"]["reason"] == "unknown_position"


async def test_too_many_missed_messages_are_announced_as_a_gap_and_not_skipped_in_silence(pair: Pair) -> None:
    room = somewhere()
    seqs = await publish(pair.broker, room, MAX_REPLAY + 2)
    epoch = (await pair.broker.state(subjects.CHAT)).epoch
    async with chat_client(pair.b, someone(), rooms=[room], cursors=[str(Position(epoch, seqs[0]))]) as client:
        gap = (await client.inbox.next("gap"))["data"]
        await client.say("live")
        await client.hears("live")

        assert gap["from"] == seqs[0]
        assert gap["to"] >= seqs[-1]
        assert (gap["room"], gap["reason"]) == (room, "too_many")
        assert [message["content"] for message in client.messages] == ["live"]
