"""Fanfare as it is measured: `python -m services.<name>`, real NATS, real EdDSA tokens of as many users as clients."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import httpx

from bench.load import Door, get, upgrade
from bench.servers import Publish, Server
from shared.contracts.claims import Scope
from tests.support.edges import ROOT as CHECKOUT
from tests.support.edges import EdgeProcess, Edges, open_edges
from tests.support.nats_server import NatsServer

WEBSOCKET, SSE, WITHOUT_RING = "Fanfare WebSocket", "Fanfare SSE", "Fanfare without io_uring"
RELAY = "Fanfare relay"
ROOM = TOPIC = "bench"
WELCOME = b'"connected"'
TOKEN_TTL_S = 12 * 3600
"""To connect a million takes longer than a token holds by default."""
SETTINGS = {"FANFARE_LIMITS": "off", "LOG_LEVEL": "warning"}


def from_now(_number: int) -> str:
    """Return the cursor of a client that was never here."""
    return ""


@dataclass(frozen=True)
class Fanfare:
    """A NATS server, an issuer of tokens, and edges as they are asked for.

    Attributes:
        settings: of the edges, where they are not the defaults, as in `.env.example`.
        tokens: of each client, by its number.
    """

    nats: NatsServer
    edges: Edges
    settings: dict[str, str]
    tokens: dict[int, str] = field(default_factory=dict)

    async def chat(
        self, room_of: Callable[[int], str] = lambda _number: ROOM, cursor_of: Callable[[int], str] = from_now
    ) -> Server:
        """Start an edge of the chat; client `n` follows room `room_of(n)`, and what is published goes to ROOM."""
        edge = await self.edges.process("chat", **self.settings)
        headers = edge.headers("publisher", ttl_s=TOKEN_TTL_S)

        def enter(number: int) -> bytes:
            return upgrade(f"/ws/chat?room={room_of(number)}&cursor={cursor_of(number)}", self._bearer(edge, number))

        async def publish(text: str) -> None:
            answer = await edge.http.post("/api/chat/messages", json={"room": ROOM, "content": text}, headers=headers)
            answer.raise_for_status()

        return self._server(WEBSOCKET, edge, enter, publish)

    async def relay(self, room_of: Callable[[int], str], rooms: Iterable[str]) -> Server:
        """Start an edge of the chat where `rooms` relay; client `n` follows room `room_of(n)`."""
        server = await self.chat(room_of)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{server.door.port}") as client:
            for room in rooms:
                body, headers = {"room": room, "relay": True}, {"Authorization": f"Bearer {self.edges.mint.token('o')}"}
                (await client.post("/api/chat/rooms", json=body, headers=headers)).raise_for_status()
        return replace(server, name=RELAY)

    async def notifications(self, query: str = f"topics={TOPIC}", cursor_of: Callable[[int], str] = from_now) -> Server:
        """Start an edge of the notifications; clients stream with `query`, and what is published goes to TOPIC."""
        edge = await self.edges.process("notifications", **self.settings)
        headers = edge.headers("publisher", scope=f"{Scope.NOTIFY_WRITE}", ttl_s=TOKEN_TTL_S)

        def enter(number: int) -> bytes:
            cursor = cursor_of(number)
            return get(f"/api/stream?{query}{'&last_event_id=' if cursor else ''}{cursor}", self._bearer(edge, number))

        async def publish(text: str) -> None:
            notice = {"to": {"topic": TOPIC}, "title": "bench", "body": text}
            (await edge.http.post("/api/notifications", json=notice, headers=headers)).raise_for_status()

        return self._server(SSE, edge, enter, publish)

    def _server(self, name: str, edge: EdgeProcess, enter: Callable[[int], bytes], publish: Publish) -> Server:
        door = Door(int(edge.url.rpartition(":")[2]), enter, WELCOME)
        return Server(name, _version(), edge.process.pid, door, publish, beside={"nats-server": self.nats.pid})

    def _bearer(self, edge: EdgeProcess, number: int) -> str:
        """Return the header of a user of its own for each client; one that comes back has the token that it had."""
        token = self.tokens.get(number) or self.tokens.setdefault(number, edge.mint.token(f"user-{number:06d}"))
        return f"Authorization: Bearer {token}"


@asynccontextmanager
async def fanfare(directory: Path, **settings: str) -> AsyncIterator[Fanfare]:
    """Run what edges need, until the block ends; `settings` are the edges' own."""
    async with NatsServer(directory / "nats") as nats, open_edges(nats.url, directory) as edges:
        yield Fanfare(nats, edges, SETTINGS | settings)


@dataclass(frozen=True)
class WithoutRing:
    """A chat edge as it runs where policy forbids io_uring, as in a container by default: it takes a peer's place."""

    name: str = WITHOUT_RING

    async def make(self) -> None:
        """Nothing has to be made."""

    @asynccontextmanager
    async def run(self, directory: Path, room_of: Callable[[int], str] = lambda _number: ROOM) -> AsyncIterator[Server]:
        """Run it, with a NATS of its own, until the block ends."""
        async with fanfare(directory / "without-ring", EDGE_IO_URING="off") as suite:
            yield replace(await suite.chat(room_of), name=self.name)


def _version() -> str:
    """Return the commit that is measured, and what it stands on."""
    stands_on = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "nats-py"))
    return f"Fanfare {_commit()}, {stands_on}"


def _commit() -> str:
    if shutil.which("git") is None:
        return "unknown"
    describe = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(describe, cwd=CHECKOUT, capture_output=True, text=True, check=False).stdout.strip()
