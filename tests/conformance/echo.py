"""An echo behind the product's own wire: its server, guards, hand-over, codec and pool, with authentication in front.

What comes back is what came, text as text and binary as binary: all that the Autobahn suite needs. A client is known by
`?token=`, as the chat's are.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from shared.auth.authenticator import Authenticator
from shared.auth.keys import StaticKeys, parse_jwks
from shared.auth.revocations import Revocations
from shared.auth.tokens import TokenVerifier
from shared.broker.memory import MemoryBroker
from shared.contracts.wire_errors import refusal_code
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.timers import Wheel
from shared.edge.wire import frames
from shared.edge.wire.handover import handover_of
from shared.edge.wire.pool import Pool
from shared.edge.wire.websocket import PooledWebSocket, SocketContext
from shared.errors import FanfareError
from shared.runtime.app import build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.settings import ServiceSettings
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics
from tests.support.edges import serving
from tests.support.tokens import AUDIENCE, ISSUER, Mint

HEARTBEAT_S = 25.0
PATH = "/echo"
SMALLEST_FRAGMENT_BYTES = 64  # of the suite's big messages

Engine = Literal["epoll", "asgi"]


@dataclass(frozen=True, slots=True)
class Echo:
    """A running echo: where it is, and with which credential."""

    url: str
    token: str

    @property
    def path(self) -> str:
        """The endpoint, with the credential that a client gives who can set no header."""
        return f"{PATH}?token={self.token}"

    @property
    def ws_url(self) -> str:
        """The same as a client of WebSockets wants it."""
        return self.url.replace("http", "ws", 1) + self.path


@asynccontextmanager
async def serving_echo(engine: Engine, *, max_message_bytes: int) -> AsyncIterator[Echo]:
    """Serve an echo on a port of its own until the block ends."""
    settings = ServiceSettings(port=0, edge_engine=engine)
    mint, metrics, lifecycle = Mint(), Metrics(), Lifecycle()
    app = build_app(
        "echo",
        lifespan=lambda _app: _lifespan(mint, metrics, max_message_bytes),
        routers=[],
        sockets={PATH: _echo_socket},
        settings=settings,
        lifecycle=lifecycle,
        metrics=metrics,
    )
    async with serving(app, settings, lifecycle) as server:
        server.config.ws_max_size = max_message_bytes  # where connections stay with the server
        yield Echo(f"http://127.0.0.1:{server.port}", mint.token("autobahn"))


# -- private ----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _lifespan(mint: Mint, metrics: Metrics, max_message_bytes: int) -> AsyncIterator[dict[str, object]]:
    tasks, wheel, broker = TaskKeeper(), Wheel(), MemoryBroker()
    pool = Pool(metrics, heartbeat_s=HEARTBEAT_S)
    pool.start()
    tasks.spawn(wheel.run(), "wheel")
    verifier = TokenVerifier(StaticKeys(parse_jwks(mint.jwks)), ISSUER, AUDIENCE)
    limits = frames.Limits(max_message_bytes, max_fragments=max(4096, max_message_bytes // SMALLEST_FRAGMENT_BYTES))
    try:
        yield {
            "authenticator": Authenticator(verifier, broker, Revocations(broker), []),
            "sockets": SocketContext(pool, OverflowLimits(), limits, tasks, wheel),
        }
    finally:
        pool.close()
        await tasks.close()
        await broker.close()


async def _echo_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Accept, authenticate, leave the server if it lets go: the order of the chat's endpoint."""
    websocket = WebSocket(scope, receive, send)
    await websocket.accept()
    try:
        await websocket.state.authenticator.request(scope)
    except FanfareError as error:
        await websocket.close(refusal_code(error))
        return
    departed = handover_of(scope)
    if departed is None:
        await _echo_over_asgi(websocket)
        return
    connection = _EchoConnection(websocket.state.sockets, departed.fd)
    connection.session = _EchoSession(connection)
    await connection.begin(asyncio.sleep(0), departed)


async def _echo_over_asgi(websocket: WebSocket) -> None:
    with suppress(WebSocketDisconnect):
        await _echo_for_ever(websocket)


async def _echo_for_ever(websocket: WebSocket) -> None:
    while (message := await websocket.receive())["type"] == "websocket.receive":
        if message.get("text") is not None:
            await websocket.send_text(message["text"])
        else:
            await websocket.send_bytes(message["bytes"])


class _EchoConnection(PooledWebSocket):
    """The product's connection, which also remembers which messages were text: no session of the product asks."""

    __slots__ = ("texts",)

    def __init__(self, context: SocketContext, fd: int) -> None:
        super().__init__(context, fd)
        self.texts: deque[bool] = deque()

    def _take(self, events: list[frames.Event]) -> None:
        messages = (event for event in events if isinstance(event, frames.Text | frames.Binary))
        self.texts.extend(isinstance(message, frames.Text) for message in messages)
        super()._take(events)


class _EchoSession:
    """Sends back what comes."""

    def __init__(self, connection: _EchoConnection) -> None:
        self._connection = connection

    async def receive(self, raw: str | bytes) -> None:
        assert isinstance(raw, bytes)
        encode = frames.encode_text if self._connection.texts.popleft() else frames.encode_binary
        self._connection.send(encode(raw))

    def end(self, error: FanfareError) -> None:
        """Say nothing: the close code says it."""

    def close(self) -> None:
        """Nothing is held."""
