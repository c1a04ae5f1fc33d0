"""An operator sends some of an edge's clients elsewhere, at a pace, from this machine alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import httpx
import pytest
import pytest_asyncio

from shared.contracts.ids import new_id
from tests.support.clients import ChatClient, chat_client, stream_client
from tests.support.edges import EdgeProcess, Edges, free_port, open_edges

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLIENTS = 10


class Admin:
    """The operator's side of one edge."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}/admin/shed"

    async def shed(self, **wanted: float) -> httpx.Response:
        async with httpx.AsyncClient() as http:
            return await http.post(self.url, json=wanted)


async def start(edges: Edges, service: str = "chat") -> tuple[EdgeProcess, Admin]:
    port = free_port()
    return await edges.process(service, ADMIN_PORT=str(port), FANFARE_LIMITS="off"), Admin(port)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edges]:
    """Starts edges that end with the module."""
    async with open_edges(nats_url, tmp_path_factory.mktemp("shed")) as edges:
        yield edges


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def idle(edges: Edges) -> tuple[EdgeProcess, Admin]:
    """An edge of the chat for tests that shed nobody."""
    return await start(edges)


async def connect(stack: AsyncExitStack, edge: EdgeProcess, room: str) -> list[ChatClient]:
    return [await stack.enter_async_context(chat_client(edge, new_id("user-"), rooms=[room])) for _ in range(CLIENTS)]


async def left(clients: list[ChatClient]) -> list[ChatClient]:
    return [client for client in clients if client.inbox.of_type("reconnect")]


async def test_a_share_of_the_clients_is_asked_to_come_back_elsewhere_with_their_cursor(edges: Edges) -> None:
    edge, admin = await start(edges)
    other, room = await edges.chat(), new_id("room-")
    async with AsyncExitStack() as stack:
        clients = await connect(stack, edge, room)
        await clients[0].say("before")
        for client in clients:
            await client.hears("before")
        began_s = time.monotonic()
        answer = await admin.shed(fraction=0.4, perSecond=4)
        assert (answer.status_code, answer.json()) == (
            202,
            {"sessions": CLIENTS, "asked": 4, "perSecond": 4.0, "overSeconds": 1.0},
        )
        assert (await admin.shed(count=1)).status_code == 409

        async with asyncio.timeout(10):
            while len(gone := await left(clients)) < 4:
                await asyncio.sleep(0.02)
        assert 0.5 < time.monotonic() - began_s < 5
        asked = gone[0].inbox.of_type("reconnect")[0]["data"]
        assert await gone[0].closed() == 1012
        assert asked["rooms"] == [{"room": room, "cursor": asked["cursor"]}]
        assert 0 <= asked["afterMs"] < 2_000
        stays = next(client for client in clients if client not in gone)
        await stays.say("meanwhile")
        async with chat_client(other, new_id("user-"), rooms=[room], cursors=[asked["cursor"]]) as moved:
            await moved.hears("meanwhile")
            assert [message["content"] for message in moved.messages] == ["meanwhile"]
        assert len(await left(clients)) == 4


@pytest.mark.parametrize("wanted", [{}, {"count": 1, "fraction": 0.5}, {"count": 0}, {"fraction": 1.5}, {"count": -1}])
async def test_what_makes_no_sense_is_refused(idle: tuple[EdgeProcess, Admin], wanted: dict[str, float]) -> None:
    _edge, admin = idle

    assert (await admin.shed(**wanted)).status_code == 400


async def test_the_public_port_does_not_shed_and_the_admin_port_is_closed_to_other_addresses(
    idle: tuple[EdgeProcess, Admin],
) -> None:
    edge, admin = idle
    for headers in ({}, {"host": admin.url.split("/")[2]}, {"x-forwarded-host": "127.0.0.1"}):
        answer = await edge.http.post("/admin/shed", json={"count": 1}, headers=headers)
        assert answer.status_code == 404
    with pytest.raises(httpx.ConnectError):  # another address of this machine
        async with httpx.AsyncClient() as http:
            await http.post(admin.url.replace("127.0.0.1", "127.0.0.2"), json={"count": 1})


async def test_streams_are_shed_too(edges: Edges) -> None:
    edge, admin = await start(edges, "notifications")
    async with stream_client(edge, new_id("user-")) as stream:
        assert (await admin.shed(count=5)).json()["asked"] == 1

        assert set(await stream.next("reconnect")) >= {"afterMs", "cursor"}
