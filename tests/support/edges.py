"""Edges as their clients meet them: real uvicorn on a port of its own, in this process or in one that can be killed."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from services.chat.app import create_app as create_chat
from services.chat.settings import ChatSettings
from services.notifications.app import create_app as create_notifications
from services.notifications.settings import NotificationsSettings
from shared.contracts.ids import new_id
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import DrainingServer, listen, make_server
from shared.runtime.settings import ServiceSettings
from shared.telemetry.metrics import Metrics
from tests.support.tokens import Mint

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 30

both_engines = pytest.mark.parametrize("edges", ["epoll", "asgi"], indirect=True)
"""Runs a test with each way that an edge can hold its connections."""


@dataclass
class Edge:
    """A running edge.

    Attributes:
        name: its instance name, which stands before the dot of every session on it.
    """

    name: str
    url: str
    http: httpx.AsyncClient
    mint: Mint

    @property
    def ws_url(self) -> str:
        """The same address for WebSockets."""
        return self.url.replace("http", "ws", 1)

    def headers(self, user: str, **token: Any) -> dict[str, str]:
        """Return the header by which `user` is known; `token` as in Mint.token."""
        return {"authorization": f"Bearer {self.mint.token(user, **token)}"}


@dataclass
class LocalEdge(Edge):
    """An edge in this process: its metrics and its lifecycle can be looked at."""

    metrics: Metrics
    lifecycle: Lifecycle
    server: DrainingServer

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a counter, 0 if it never counted."""
        return self.metrics.registry.get_sample_value(f"fanfare_{name}_total", labels) or 0.0

    def gauge(self, name: str, **labels: str) -> float:
        """Return the value of a gauge, 0 if it was never set."""
        return self.metrics.registry.get_sample_value(f"fanfare_{name}", labels) or 0.0


@dataclass
class EdgeProcess(Edge):
    """An edge in a process of its own, to be signalled."""

    process: asyncio.subprocess.Process
    log: Path

    async def kill(self) -> None:
        """End it as a crash does."""
        self.process.kill()
        await self.process.wait()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)


class Edges:
    """Starts edges on one broker; all end with the test.

    Attributes:
        max_descriptors: what `ulimit -n` says to the processes that follow; 0 for what it says to the tests.
    """

    def __init__(self, stack: AsyncExitStack, nats_url: str, jwks_url: str, mint: Mint, tmp_path: Path) -> None:
        self._stack, self._tmp_path = stack, tmp_path
        self.nats_url, self.jwks_url, self.mint = nats_url, jwks_url, mint
        self.engine = "epoll"
        self.max_descriptors = 0
        self._servers: list[DrainingServer] = []

    def stop(self) -> None:
        """Begin to stop all edges of this process at once; the end of the stack waits for each."""
        for server in self._servers:
            server.should_exit = True

    async def chat(self, **settings: Any) -> LocalEdge:
        """Start an edge of the chat in this process; `settings` as in ChatSettings."""
        return await self._local(ChatSettings(**self._common() | settings))

    async def notifications(self, **settings: Any) -> LocalEdge:
        """Start an edge of the notifications in this process; `settings` as in NotificationsSettings."""
        return await self._local(NotificationsSettings(**self._common() | settings))

    async def process(self, service: str, **environment: str) -> EdgeProcess:
        """Start `python -m services.<service>` and wait until it is ready; `environment` as in .env.example."""
        port, name = free_port(), f"{service}-{new_id()[:8]}"
        log = self._tmp_path / f"{name}.log"
        variables = os.environ | {  # noqa: TID251  # the child needs PATH and HOME as well
            "PORT": str(port),
            "INSTANCE": name,
            "EDGE_ENGINE": self.engine,
            "NATS_URL": self.nats_url,
            "AUTH_JWKS_URL": self.jwks_url,
            "DRAIN_S": "0.5",
        }
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                f"services.{service}",
                cwd=ROOT,
                env=variables | environment,
                stdout=output,
                stderr=output,
                preexec_fn=partial(_limit_descriptors, self.max_descriptors) if self.max_descriptors else None,
            )
        self._stack.push_async_callback(_end, process)
        url = f"http://127.0.0.1:{port}"
        edge = EdgeProcess(name, url, await self._client(url), self.mint, process, log)
        await until_ready(edge.http)
        return edge

    def _common(self) -> dict[str, Any]:
        return {
            "port": 0,
            "nats_url": self.nats_url,
            "auth_jwks_url": self.jwks_url,
            "drain_s": 0.2,
            "edge_engine": self.engine,
            "instance": f"edge-{new_id()[:8]}",
        }

    async def _local(self, settings: ChatSettings | NotificationsSettings) -> LocalEdge:
        lifecycle, metrics = Lifecycle(), Metrics()
        app: Any
        if isinstance(settings, ChatSettings):
            app = create_chat(settings, lifecycle=lifecycle, metrics=metrics)
        else:
            app = create_notifications(settings, lifecycle=lifecycle, metrics=metrics)
        server = await self._stack.enter_async_context(serving(app, settings, lifecycle))
        self._servers.append(server)
        url = f"http://127.0.0.1:{server.port}"
        edge = LocalEdge(settings.instance, url, await self._client(url), self.mint, metrics, lifecycle, server)
        await until_ready(edge.http)
        return edge

    async def _client(self, url: str) -> httpx.AsyncClient:
        return await self._stack.enter_async_context(httpx.AsyncClient(base_url=url, timeout=30))


@asynccontextmanager
async def serving(app: Any, settings: ServiceSettings, lifecycle: Lifecycle) -> AsyncIterator[DrainingServer]:
    """Serve `app` as the product does, until the block ends."""
    server = make_server(app, settings, lifecycle)
    listener = listen(settings)
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            listening = asyncio.ensure_future(server.listening.wait())
            await asyncio.wait({listening, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            await task
            raise AssertionError("the service did not start")
        yield server
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def open_edges(nats_url: str, tmp_path: Path) -> AsyncIterator[Edges]:
    """Yield what starts edges on the server at `nats_url`, with an issuer of their own."""
    async with AsyncExitStack() as stack:
        mint = Mint()
        keys = await stack.enter_async_context(_serving_keys(mint))
        edges = Edges(stack, nats_url, _jwks_url(keys), mint, tmp_path)
        try:
            yield edges
        finally:
            keys.should_exit = True
            edges.stop()


async def until_ready(http: httpx.AsyncClient) -> None:
    """Return once `/readyz` says so."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            try:
                if (await http.get("/readyz")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)


@asynccontextmanager
async def serving_keys(mint: Mint) -> AsyncIterator[str]:
    """Serve the mint's keys as the auth service serves its own; yields their address."""
    async with _serving_keys(mint) as server:
        yield _jwks_url(server)


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        number: int = probe.getsockname()[1]
        return number


def _serving_keys(mint: Mint) -> AbstractAsyncContextManager[DrainingServer]:
    async def jwks(_request: object) -> Response:
        return Response(mint.jwks, media_type="application/json")

    return serving(Starlette(routes=[Route("/.well-known/jwks.json", jwks)]), ServiceSettings(port=0), Lifecycle())


def _jwks_url(server: DrainingServer) -> str:
    return f"http://127.0.0.1:{server.port}/.well-known/jwks.json"


def _limit_descriptors(number: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (number, number))


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.send_signal(signal.SIGCONT)
        process.kill()
        await process.wait()
