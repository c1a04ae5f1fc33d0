"""The suite as a person starts it: compose up, then everything through the proxy. For `make smoke`, not `make test`.

It builds and starts the whole of docker-compose.yml on free ports as a project of its own, and takes it down with its
volumes at the end. What the containers said is printed when a test fails.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import httpx_sse
import nats
import pytest
import websockets

ROOT = Path(__file__).parents[2]
PROJECT = "fanfare-smoke"
UP_TIMEOUT_S = 900
DOWN_TIMEOUT_S = 120
WAIT_S = 30
"""For anything awaited: far more than it takes."""

pytestmark = pytest.mark.timeout(UP_TIMEOUT_S + 300)

Frame = dict[str, Any]


@dataclass(frozen=True)
class Suite:
    """The running suite, as a browser and a producer see it."""

    port: int
    nats_port: int

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def nats_url(self) -> str:
        """Where a producer outside the suite publishes, as the README has it."""
        return f"nats://producer:producer@127.0.0.1:{self.nats_port}"

    def compose(self, *arguments: str, timeout_s: float = DOWN_TIMEOUT_S) -> str:
        """Run docker compose on this project and return what it printed."""
        ports = [f"PORT={self.port}", f"NATS_PORT={self.nats_port}"]
        done = subprocess.run(
            ["env", *ports, "docker", "compose", "--project-name", PROJECT, *arguments],
            cwd=ROOT,
            timeout=timeout_s,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"docker compose {' '.join(arguments)}\n{done.stdout[-8000:]}"
        return done.stdout


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def suite() -> Iterator[Suite]:
    """Bring everything up, and down again whatever happens."""
    suite = Suite(free_port(), free_port())
    try:
        try:
            suite.compose("up", "--build", "--wait", "--wait-timeout", "300", timeout_s=UP_TIMEOUT_S)
        except (AssertionError, subprocess.TimeoutExpired):
            print(suite.compose("logs", "--no-color", "--tail", "60"))
            raise
        yield suite
    finally:
        suite.compose("down", "--volumes", "--timeout", "20")


@pytest.fixture(autouse=True)
def logs_on_failure(suite: Suite, request: pytest.FixtureRequest) -> Iterator[None]:
    """Print what the containers said if the test fails."""
    failed_before = request.session.testsfailed
    yield
    if request.session.testsfailed > failed_before:
        print(suite.compose("logs", "--no-color", "--tail", "60"))


# -- clients ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class User:
    """A registered user and their access token."""

    id: str
    token: str

    @property
    def headers(self) -> dict[str, str]:
        """What every request of theirs carries."""
        return {"authorization": f"Bearer {self.token}"}


async def register(suite: Suite) -> User:
    """Register somebody new and log them in, through the proxy."""
    account = {"username": f"smoke-{secrets.token_hex(4)}", "password": secrets.token_hex(12)}
    async with httpx.AsyncClient(base_url=suite.url, timeout=WAIT_S) as http:
        registered = await http.post("/api/auth/register", json=account)
        assert registered.status_code == 201, registered.text
        login = await http.post("/api/auth/login", json=account)
        assert login.status_code == 200, login.text
    return User(login.json()["user"]["id"], login.json()["access_token"])


class Chatter:
    """One WebSocket client in one room; it knows its edge and its cursor, and keeps what it saw."""

    def __init__(self, socket: websockets.ClientConnection, connected: Frame, room: str) -> None:
        self._socket, self._room = socket, room
        self.edge = connected["session"].partition(".")[0]
        self.cursor = ""
        self.seen: list[str] = []

    async def next(self, kind: str) -> Frame:
        """Return the data of the next frame of this type; note messages on the way."""
        async with asyncio.timeout(WAIT_S):
            async for text in self._socket:
                frame = json.loads(text)
                self._note(frame)
                if frame["type"] == kind:
                    return dict(frame["data"])
        raise ConnectionError("the server closed the socket")

    async def say(self, content: str) -> None:
        """Send a message and wait until the server has stored it."""
        data = {"content": content, "room": self._room, "clientId": secrets.token_hex(8)}
        await self._socket.send(json.dumps({"type": "send_message", "data": data}))
        while (await self.next("ack"))["clientId"] != data["clientId"]:
            pass

    async def hear(self, *contents: str) -> None:
        """Wait until all of these have been seen."""
        while not set(contents) <= set(self.seen):
            await self.next("chat_message")

    async def lost(self) -> None:
        """Wait until the connection is gone."""
        async with asyncio.timeout(WAIT_S):
            await self._socket.wait_closed()

    def _note(self, frame: Frame) -> None:
        if frame["type"] == "chat_message":
            self.seen.append(frame["data"]["content"])
            self.cursor = frame["data"]["cursor"]
        assert frame["type"] not in ("gap", "resync", "error"), frame


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes at the end of a test what it opened."""
    async with AsyncExitStack() as stack:
        yield stack


async def join(suite: Suite, stack: AsyncExitStack, user: User, room: str, cursor: str = "") -> Chatter:
    """Connect to a room through the proxy, on whichever edge it chooses; tried again while an edge is going away."""
    url = f"ws://127.0.0.1:{suite.port}/ws/chat?room={room}&cursor={cursor}"
    deadline_s = time.monotonic() + WAIT_S
    while True:
        try:
            socket = await websockets.connect(url, additional_headers=user.headers, proxy=None, open_timeout=10)
            break
        except (OSError, websockets.WebSocketException):
            if time.monotonic() > deadline_s:
                raise
    stack.push_async_callback(socket.close)
    first = json.loads(await socket.recv())
    assert first["type"] == "connected", first
    return Chatter(socket, first["data"], room)


async def join_elsewhere(suite: Suite, stack: AsyncExitStack, user: User, room: str, edge: str) -> Chatter:
    """Connect to a room on any edge but `edge`."""
    for _ in range(20):
        chatter = await join(suite, stack, user, room)
        if chatter.edge != edge:
            return chatter
    pytest.fail(f"20 connections, all on {edge}")


@asynccontextmanager
async def events(suite: Suite, user: User, **query: str) -> AsyncIterator[AsyncIterator[Frame]]:
    """Open the event stream and give its events' data."""
    timeout = httpx.Timeout(WAIT_S)
    async with (
        httpx.AsyncClient(base_url=suite.url, timeout=timeout) as http,
        httpx_sse.aconnect_sse(http, "GET", "/api/stream", params=query, headers=user.headers) as source,
    ):
        source.response.raise_for_status()
        yield (json.loads(event.data) async for event in source.aiter_sse() if event.data)


async def next_event(stream: AsyncIterator[Frame], kind: str) -> Frame:
    """Return the next event of this type."""
    async with asyncio.timeout(WAIT_S):
        async for event in stream:
            if event["type"] == kind:
                return event
    raise ConnectionError("the stream ended")


def room_name() -> str:
    """Return a room that nobody else uses."""
    return f"smoke-{secrets.token_hex(6)}"


# -- what the suite promises ------------------------------------------------------------------------------------------


async def test_the_page_comes_with_its_guard_and_the_services_internals_do_not(suite: Suite) -> None:
    async with httpx.AsyncClient(base_url=suite.url, timeout=WAIT_S) as http:
        page = await http.get("/")
        assert page.status_code == 200
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert (await http.get("/.well-known/jwks.json")).json()["keys"]
        for hidden in ("/metrics", "/readyz", "/healthz", "/openapi.json", "/asyncapi.json", "/api/unknown"):
            assert (await http.get(hidden)).status_code == 404, hidden


async def test_the_account_that_the_page_offers_can_log_in(suite: Suite) -> None:
    async with httpx.AsyncClient(base_url=suite.url, timeout=WAIT_S) as http:
        login = await http.post("/api/auth/login", json={"username": "demo", "password": "demo-password"})

    assert login.status_code == 200, login.text


async def test_two_users_on_two_edges_chat(suite: Suite, stack: AsyncExitStack) -> None:
    alice, bob = await register(suite), await register(suite)
    room = room_name()
    on_one = await join(suite, stack, alice, room)
    on_other = await join_elsewhere(suite, stack, bob, room, on_one.edge)

    await on_one.say("from alice")
    await on_other.say("from bob")
    await on_one.hear("from alice", "from bob")
    await on_other.hear("from alice", "from bob")

    assert on_one.edge != on_other.edge
    assert sorted(on_one.seen) == sorted(on_other.seen) == ["from alice", "from bob"]


async def test_a_stream_brings_prices_and_what_a_producer_outside_the_suite_publishes(suite: Suite) -> None:
    user = await register(suite)
    title = f"hello {secrets.token_hex(4)}"
    async with events(suite, user) as stream:
        connected = await next_event(stream, "connected")
        symbol = await first_symbol(suite, user)
        await watch(suite, user, symbol)
        price = await next_event(stream, "price_update")

        producer = await nats.connect(suite.nats_url)
        await producer.publish(f"notify.user.{user.id}", json.dumps({"title": title}).encode())
        await producer.drain()
        notification = await next_event(stream, "notification")

    assert connected["userId"] == user.id
    assert price["symbol"] == symbol
    assert notification["title"] == title


async def test_a_stream_is_refused_before_it_starts_without_a_token(suite: Suite) -> None:
    async with httpx.AsyncClient(base_url=suite.url, timeout=WAIT_S) as http:
        refused = await http.get("/api/stream")

    assert refused.status_code == 401
    assert refused.headers["content-type"] == "application/problem+json"


async def test_broken_uploads_take_no_replica_out_of_service(suite: Suite) -> None:
    broken = b"POST /api/auth/login HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nno chunk\r\n"
    for _ in ("auth-1", "auth-2"):
        reader, writer = await asyncio.open_connection("127.0.0.1", suite.port)
        writer.write(broken)
        async with asyncio.timeout(WAIT_S):
            assert b"HTTP/1.1 " in await reader.readline()
        writer.close()
        await writer.wait_closed()

    async with httpx.AsyncClient(base_url=suite.url, timeout=2) as http:
        assert (await http.get("/api/auth/me")).status_code == 401


async def test_clients_of_a_killed_edge_go_on_elsewhere_and_nothing_is_lost_or_doubled(
    suite: Suite, stack: AsyncExitStack
) -> None:
    alice, bob = await register(suite), await register(suite)
    room = room_name()
    stays = await join(suite, stack, alice, room)
    falls = await join_elsewhere(suite, stack, bob, room, stays.edge)
    await stays.say("before 1")
    await stays.say("before 2")
    await falls.hear("before 1", "before 2")

    kill(suite, falls.edge)
    await falls.lost()
    await stays.say("while away 1")
    await stays.say("while away 2")
    back = await join(suite, stack, bob, room, cursor=falls.cursor)
    await stays.say("after")
    await back.hear("while away 1", "while away 2", "after")

    assert back.edge == stays.edge
    assert falls.seen + back.seen == ["before 1", "before 2", "while away 1", "while away 2", "after"]
    assert stays.seen == falls.seen + back.seen


# -- helpers ----------------------------------------------------------------------------------------------------------


async def first_symbol(suite: Suite, user: User) -> str:
    """Return a symbol that has a price, once the feed has begun."""
    async with httpx.AsyncClient(base_url=suite.url, timeout=WAIT_S, headers=user.headers) as http:
        async with asyncio.timeout(WAIT_S):
            while not (known := (await http.get("/api/stocks")).raise_for_status().json()["symbols"]):
                await asyncio.sleep(0.2)
    return str(known[0]["symbol"])


async def watch(suite: Suite, user: User, symbol: str) -> None:
    """Add a symbol to the user's watchlist, by a POST that may reach another edge than their stream."""
    async with httpx.AsyncClient(base_url=suite.url, timeout=WAIT_S, headers=user.headers) as http:
        (await http.post("/api/stocks/subscribe", json={"symbols": [symbol]})).raise_for_status()


def kill(suite: Suite, edge: str) -> None:
    """Kill the chat edge of this name as a crash would: SIGKILL, nothing flushed. The edge is named after its host."""
    for service in ("chat-1", "chat-2"):
        container = suite.compose("ps", "--quiet", service).strip()
        if edge.startswith(container[:12]):
            suite.compose("kill", "--signal", "KILL", service)
            return
    pytest.fail(f"no container runs the edge {edge}")
