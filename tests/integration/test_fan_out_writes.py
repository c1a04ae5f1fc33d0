"""A large room and small ones, written to through io_uring and by a call each: everybody has everything, in order."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from shared.contracts.ids import new_id
from shared.edge.wire.ring import RingRefused, SendRing
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import Edges

AUDIENCE, ROOMS, SAID = 30, 5, 20


def ring_is_given() -> bool:
    try:
        SendRing().close()
    except RingRefused:
        return False
    return True


@pytest.mark.parametrize("io_uring", ["auto", "off"])
async def test_everybody_has_everything_in_order_by_either_way_of_writing(edges: Edges, io_uring: str) -> None:
    edge = await edges.chat(edge_io_uring=io_uring, message_limit=10_000)
    hall, rooms = new_id("room-"), [new_id("room-") for _ in range(ROOMS)]
    async with AsyncExitStack() as stack:

        async def enter(number: int) -> ChatClient:
            """Come into the hall and into two of the rooms, so that neighbours share one."""
            mine = [hall, rooms[number % ROOMS], rooms[(number + 1) % ROOMS]]
            return await stack.enter_async_context(chat_client(edge, new_id("u"), rooms=mine))

        clients = [await enter(number) for number in range(AUDIENCE)]

        async def speak(number: int) -> None:
            for index in range(SAID):
                for room in (hall, rooms[number]):
                    await clients[number].send("send_message", {"content": f"{index}", "room": room})

        await asyncio.gather(*(speak(number) for number in range(ROOMS)))
        for client in clients:
            await client.inbox.until(lambda inbox: len(inbox.of_type("chat_message")) == SAID * (ROOMS + 2))

        assert edge.gauge("pool_ring") == (io_uring == "auto" and ring_is_given())
        in_the_hall = [_said(client, hall) for client in clients]
        assert in_the_hall == [in_the_hall[0]] * AUDIENCE
        for number, client in enumerate(clients):
            for room in (rooms[number % ROOMS], rooms[(number + 1) % ROOMS]):
                assert [content for _, content in _said(client, room)] == [str(index) for index in range(SAID)]


def _said(client: ChatClient, room: str) -> list[tuple[str, str]]:
    """Return who said what in a room, as the client heard it."""
    return [(said["userId"], said["content"]) for said in client.messages if said["room"] == room]
