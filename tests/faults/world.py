"""The world of a fault: NATS on one node or three, edges in processes of their own, and a balancer that knows them."""

from __future__ import annotations

import asyncio
import random
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nats

from tests.faults.crowd import Announcer, Crowd, Size
from tests.faults.record import Recorder
from tests.support.edges import EdgeProcess, Edges, serving_keys
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsNode, NatsServer
from tests.support.proxy import Proxy
from tests.support.tokens import Mint

DISK_BYTES = 64 << 20

ENVIRONMENT = {
    # A client is silent for at most 2.5 of these before it gives up: faults are noticed in seconds, not in a minute.
    "HEARTBEAT_S": "2",
    # The crowd is small and talks much; that the limit holds is tested elsewhere, that it fails open or shut is here.
    "MESSAGE_LIMIT": "100000",
    "DRAIN_S": "2",
}


@dataclass
class Pool:
    """The edges of one service that take clients: a balancer without stickiness."""

    edges: list[EdgeProcess] = field(default_factory=list)
    proxies: dict[str, Proxy] = field(default_factory=dict)

    def pick(self) -> str:
        """Return the address of any edge, or of the proxy before it; one that refuses connections is passed over."""
        edges = [edge for edge in self.edges if edge.process.returncode is None]
        if not edges:
            return ""
        edge = random.choice(edges)
        return self.proxies[edge.name].url if edge.name in self.proxies else edge.url


class World:
    """What a fault may do something to.

    Attributes:
        nodes: the NATS servers by name; `cluster` is None if there is one only.
        chat, notifications: the edges that the balancer knows.
        nats_proxy: for each edge, what it reaches NATS over; none in a cluster, whose nodes a client finds by itself.
        keys_proxy: what edges reach the auth service's keys over.
        crowd, announcer, recorder: set by `peopled`.
        over: set by a fault from when on service must come back, if that is before it has tidied up.
    """

    def __init__(self, stack: AsyncExitStack, tmp_path: Path, environment: dict[str, str]) -> None:
        self._stack, self._tmp_path, self._environment = stack, tmp_path, environment
        self.mint = Mint()
        self.nodes: dict[str, NatsNode] = {}
        self.cluster: NatsCluster | None = None
        self.nats_url = ""
        self.disk = tmp_path
        self.chat, self.notifications = Pool(), Pool()
        self.nats_proxy: dict[str, Proxy] = {}
        self.keys_proxy: Proxy
        self.recorder = Recorder()
        self.over = asyncio.Event()
        self.announcer: Announcer
        self.crowd: Crowd

    async def start_nats(self, nodes: int) -> None:
        """Start one node, or a cluster."""
        if nodes == 1:
            self.disk = self._stack.enter_context(small_disk(self._tmp_path / "nats"))
            server = await self._stack.enter_async_context(NatsServer(self.disk))
            self.nodes, self.nats_url = {server.name: server}, server.url
        else:
            self.cluster = await self._stack.enter_async_context(NatsCluster(self._tmp_path / "nats"))
            self.nodes, self.nats_url = dict(self.cluster.nodes), self.cluster.url

    async def start_keys(self) -> None:
        """Serve the keys that edges check tokens with."""
        jwks_url = await self._stack.enter_async_context(serving_keys(self.mint))
        self.keys_proxy = await self._stack.enter_async_context(Proxy(jwks_url))
        url = self.keys_proxy.url + "/.well-known/jwks.json"
        self._edges = Edges(self._stack, self.nats_url, url, self.mint, self._tmp_path)

    async def start_edge(self, service: str) -> EdgeProcess:
        """Start an edge, known to the balancer once it is ready."""
        variables = dict(self._environment)
        proxy: Proxy | None = None
        if self.cluster is None:
            proxy = await self._stack.enter_async_context(Proxy(self.nats_url))
            variables["NATS_URL"] = proxy.url
        edge = await self._edges.process(service, **variables)
        if proxy is not None:
            self.nats_proxy[edge.name] = proxy
        self.pool_of(edge).edges.append(edge)
        return edge

    async def replace(self, edge: EdgeProcess) -> EdgeProcess:
        """Start another edge of the same service in the place of one that has ended."""
        self.forget(edge)
        return await self.start_edge(edge.name.partition("-")[0])

    def forget(self, edge: EdgeProcess) -> None:
        """Send no more clients to an edge, as a balancer does whose health check fails."""
        pool = self.pool_of(edge)
        pool.edges = [other for other in pool.edges if other is not edge]

    def pool_of(self, edge: EdgeProcess) -> Pool:
        """Return the edges of its service."""
        return self.chat if edge.name.startswith("chat") else self.notifications

    async def proxies_before_edges(self) -> list[Proxy]:
        """Put a proxy before every edge, and have every client come back over it."""
        for pool in (self.chat, self.notifications):
            for edge in pool.edges:
                if edge.name not in pool.proxies:
                    pool.proxies[edge.name] = await self._stack.enter_async_context(Proxy(edge.url))
        for client in self.crowd.clients:
            client.cut()
        await self.crowd.recovered(within_s=30)
        return [*self.chat.proxies.values(), *self.notifications.proxies.values()]

    @property
    def edges(self) -> list[EdgeProcess]:
        """Every edge that the balancer knows."""
        return [*self.chat.edges, *self.notifications.edges]

    @asynccontextmanager
    async def peopled(self, size: Size, *, within_s: float = 60.0) -> AsyncIterator[Crowd]:
        """Yield a crowd, all of it connected."""
        self.recorder = Recorder()
        self.over.clear()
        client = await nats.connect(
            self.nats_url.split(","), max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=_expected
        )
        self.announcer = Announcer(client, self.recorder)
        self.crowd = Crowd(size, self.chat, self.notifications, self.announcer, self.mint, self.recorder)
        try:
            await self.crowd.come(within_s=within_s)
            yield self.crowd
        finally:
            await self.crowd.go()
            await client.close()


@asynccontextmanager
async def open_world(
    tmp_path: Path, *, nodes: int, chat: int = 2, notifications: int = 2, **environment: str
) -> AsyncIterator[World]:
    """Yield a world of so many NATS nodes and edges; `environment` is that of the edges, as in .env.example."""
    async with AsyncExitStack() as stack:
        world = World(stack, tmp_path, ENVIRONMENT | environment)
        await world.start_nats(nodes)
        await world.start_keys()
        await _all([world.start_edge("chat") for _ in range(chat)])
        await _all([world.start_edge("notifications") for _ in range(notifications)])
        yield world


@contextmanager
def small_disk(path: Path) -> Iterator[Path]:
    """Make a directory on a disk of its own that can be filled; that takes root, and Linux."""
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "faults", str(path)], check=False)
    try:
        yield path
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", str(path)], check=True)


async def _all(starting: Iterable[object]) -> None:
    await asyncio.gather(*starting)  # type: ignore[call-overload]


async def _expected(_error: Exception) -> None:
    """What a producer's link says while its server is away is no news."""
