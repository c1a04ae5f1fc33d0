"""The ASGI contract of a WebSocket's handshake, for app and client: by our protocol and by uvicorn's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from shared.edge.wire.handover import handover_of
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import DrainingServer
from shared.runtime.settings import ServiceSettings
from tests.support.edges import serving
from tests.support.raw import handshake

both = pytest.mark.parametrize("engine", ["epoll", "asgi"])

Endpoint = Callable[[Scope, Receive, Send], Awaitable[None]]


@dataclass
class Served:
    """A server with one WebSocket endpoint, and what that endpoint has seen."""

    server: DrainingServer
    scopes: list[Scope] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.server.port}/ws/caf%C3%A9?a=1&b=%20"

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.server.port)


@asynccontextmanager
async def served(engine: Any, endpoint: Endpoint) -> AsyncIterator[Served]:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["type"] == "http":
            await asyncio.sleep(0.2)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body"})
        else:
            one.scopes.append(scope)
            assert await receive() == {"type": "websocket.connect"}
            await endpoint(scope, receive, send)

    settings = ServiceSettings(port=0, edge_engine=engine)
    async with serving(app, settings, Lifecycle()) as server:
        one = Served(server)
        yield one


def saying(*messages: Message) -> Endpoint:
    """Return an endpoint that sends these."""

    async def endpoint(_scope: Scope, _receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    return endpoint


@both
async def test_an_app_learns_what_was_asked_for_and_by_whom(engine: str) -> None:
    async with served(engine, saying({"type": "websocket.close"})) as one:
        with pytest.raises(InvalidStatus):
            await connect(one.url, additional_headers={"X-Who": "me"}, subprotocols=[Subprotocol("chat")])
        scope, port = one.scopes[0], one.server.port

    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/ws/café", b"/ws/caf%C3%A9", b"a=1&b=%20")
    assert (scope["scheme"], scope["http_version"], scope["root_path"]) == ("ws", "1.1", "")
    assert scope["subprotocols"] == ["chat"]
    assert (b"x-who", b"me") in scope["headers"]
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"
    assert scope["server"][1] == port
    assert "websocket.http.response" in scope["extensions"]


@both
async def test_an_app_accepts_with_a_subprotocol_and_headers_and_closes_with_a_code(engine: str) -> None:
    accept = {"type": "websocket.accept", "subprotocol": "chat.v2", "headers": [(b"x-edge", b"e1")]}
    said = {"type": "websocket.send", "text": "hello"}, {"type": "websocket.send", "bytes": b"\x00"}
    close = {"type": "websocket.close", "code": 4003, "reason": "no"}
    async with (
        served(engine, saying(accept, *said, close)) as one,
        connect(one.url, subprotocols=[Subprotocol("chat.v1"), Subprotocol("chat.v2")]) as client,
    ):
        assert client.subprotocol == "chat.v2"
        assert client.response is not None
        assert client.response.headers["x-edge"] == "e1"
        assert [await client.recv(), await client.recv()] == ["hello", b"\x00"]
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4003, "no")


async def fail(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise LookupError("a bug")


REFUSALS: dict[str, tuple[int, Endpoint]] = {
    "close": (403, saying({"type": "websocket.close", "code": 4008})),
    "response": (
        429,
        saying(
            {"type": "websocket.http.response.start", "status": 429, "headers": [(b"retry-after", b"5")]},
            {"type": "websocket.http.response.body", "body": b"too ", "more_body": True},
            {"type": "websocket.http.response.body", "body": b"many"},
        ),
    ),
    "nothing": (500, saying()),
    "an exception": (500, fail),
}


@both
@pytest.mark.parametrize("by", REFUSALS)
async def test_an_app_refuses_and_the_client_sees_a_status(engine: str, by: str) -> None:
    status, endpoint = REFUSALS[by]
    async with served(engine, endpoint) as one:
        with pytest.raises(InvalidStatus) as refused:
            await connect(one.url)
        response = refused.value.response

    assert response.status_code == status
    if by == "response":
        assert (response.headers["retry-after"], response.body) == ("5", b"too many")


@both
async def test_a_client_that_goes_before_the_answer_is_seen_to_go(engine: str) -> None:
    seen: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    async def wait(_scope: Scope, receive: Receive, _send: Send) -> None:
        seen.set_result(await receive())

    async with served(engine, wait) as one:
        _, writer = await one.dial()
        writer.write(handshake("/ws", {}))
        await writer.drain()
        writer.close()
        async with asyncio.timeout(5):
            message = await seen

    assert (message["type"], message["code"]) == ("websocket.disconnect", 1006)


@both
async def test_a_handshake_that_waits_for_its_app_ends_with_the_server(engine: str) -> None:
    async def wait(_scope: Scope, receive: Receive, _send: Send) -> None:
        await receive()

    async with served(engine, wait) as one:
        reader, writer = await one.dial()
        writer.write(handshake("/ws", {}))
        async with asyncio.timeout(5):
            while not one.scopes:
                await asyncio.sleep(0.01)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()

    assert int(answer.split()[1]) in {500, 503}


async def test_an_app_that_will_not_take_the_hand_over_is_told_so() -> None:
    told: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def read(_scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        try:
            await receive()
        except RuntimeError as error:
            told.set_result(str(error))

    async with served("epoll", read) as one, connect(one.url):
        async with asyncio.timeout(5):
            assert "fanfare.handover" in await told


async def test_what_comes_before_the_hand_over_is_bounded_and_kept() -> None:
    left: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    full = asyncio.Event()

    async def leave(scope: Scope, _receive: Receive, send: Send) -> None:
        await full.wait()
        await send({"type": "websocket.accept"})
        departed = handover_of(scope)
        assert departed is not None
        left.set_result(departed.early)

    async with served("epoll", leave) as one:
        _, writer = await one.dial()
        writer.write(handshake("/ws", {}))
        sent = bytes(range(256)) * 256 * 64  # 4 MiB
        writer.write(sent)
        async with asyncio.timeout(5):
            while not one.scopes:
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # what was sent has come as far as it will: there is nothing to await on our side
        full.set()
        async with asyncio.timeout(5):
            early = await left
        writer.transport.abort()

    assert 64 * 1024 < len(early) < 1024 * 1024
    assert sent.startswith(early)


async def test_a_handshake_behind_a_request_that_is_not_answered_yet_is_refused() -> None:
    async with served("epoll", saying({"type": "websocket.accept"})) as one:
        reader, writer = await one.dial()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + handshake("/ws", {}))
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()

        assert answer.startswith(b"HTTP/1.1 400 ")
        assert not one.scopes


@pytest.mark.parametrize("target", ["*", "/\xe9", "http://", "//"])
async def test_a_target_that_is_no_path_is_no_handshake(target: str) -> None:
    async with served("epoll", saying({"type": "websocket.close"})) as one:
        reader, writer = await one.dial()
        writer.write(handshake(target, {}))
        async with asyncio.timeout(5):
            answer = await reader.read()
        writer.close()

    assert int(answer.split()[1]) in {400, 403}
