"""The portable connection, over an ASGI server that a test plays."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.websockets import WebSocket

from shared.contracts.close_codes import CloseCode
from shared.edge.delivery.event import make_event
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.wire.connection import AsgiWebSocket


class Server:
    """What the server says to the app and hears from it; `taking` is whether the peer reads."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.sent: list[dict[str, Any]] = []
        self.taking = asyncio.Event()
        self.taking.set()
        self.gone = False

    async def receive(self) -> dict[str, Any]:
        return await self.incoming.get()

    async def send(self, message: Any) -> None:
        await self.taking.wait()
        if self.gone:
            raise OSError
        self.sent.append(dict(message))

    def frame(self, text: str) -> None:
        self.incoming.put_nowait({"type": "websocket.receive", "text": text})

    def leave(self) -> None:
        self.gone = True
        self.incoming.put_nowait({"type": "websocket.disconnect", "code": 1006})

    async def accepted(self, lossless_bytes: int = 100_000) -> AsgiWebSocket:
        websocket = WebSocket({"type": "websocket"}, self.receive, self.send)
        self.incoming.put_nowait({"type": "websocket.connect"})
        await websocket.accept()
        self.sent.clear()
        return AsgiWebSocket(websocket, OverflowLimits(lossless_bytes=lossless_bytes))


async def nothing() -> None:
    """Begin with no work."""


async def test_nobody_acts_any_more_whose_connection_is_being_closed_even_if_the_peer_is_slow_to_see_it() -> None:
    server, handled = Server(), list[str]()
    connection = await server.accepted()
    server.taking.clear()

    async def on_frame(raw: str | bytes) -> None:
        handled.append(str(raw))
        connection.close(CloseCode.UNAUTHORIZED, "no")
        asyncio.get_running_loop().call_later(0.05, server.taking.set)

    server.frame("first")
    server.frame("second")
    await connection.run(nothing(), on_frame)

    assert handled == ["first"]
    assert server.sent == [{"type": "websocket.close", "code": 4008, "reason": "no"}]


async def test_what_waits_is_sent_before_the_close() -> None:
    server = Server()
    connection = await server.accepted()
    connection.deliver(make_event("error", {}))
    connection.close(CloseCode.FORBIDDEN)
    connection.deliver(make_event("late", {}))
    await connection.run(nothing(), _ignore)

    assert [message["type"] for message in server.sent] == ["websocket.send", "websocket.close"]


async def test_what_came_before_the_peer_left_is_handled_though_nothing_can_be_answered() -> None:
    server, handled = Server(), list[str]()
    connection = await server.accepted()

    async def on_frame(raw: str | bytes) -> None:
        handled.append(str(raw))
        connection.deliver(make_event("ack", {}))
        await asyncio.sleep(0)

    for text in ("first", "second", "third"):
        server.frame(text)
    server.leave()
    await connection.run(nothing(), on_frame)

    assert handled == ["first", "second", "third"]


async def test_a_replay_to_a_peer_that_left_is_let_go() -> None:
    server = Server()
    connection = await server.accepted()

    async def replay() -> None:
        connection.deliver(make_event("message", {"content": "x" * 70_000}))
        server.leave()
        await connection.writable()

    async with asyncio.timeout(5):
        await connection.run(replay(), _ignore)


async def test_one_who_does_not_read_is_closed_when_the_backlog_is_full() -> None:
    server = Server()
    connection = await server.accepted(lossless_bytes=1_000)
    server.taking.clear()
    running = asyncio.ensure_future(connection.run(nothing(), _ignore))
    while not connection.closing:
        connection.deliver(make_event("message", {"content": "x" * 100}))
        await asyncio.sleep(0)
    server.taking.set()
    await running

    assert server.sent[-1]["code"] == 4080
    assert len(server.sent) <= 3  # accepted, what was begun, the close: what waited comes with its cursor


async def _ignore(_raw: str | bytes) -> None:
    """Handle nothing."""
