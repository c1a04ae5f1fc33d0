"""What every edge service opens at its start: the broker, who may come in, timers, dead letters, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx

from shared.auth.authenticator import Authenticator
from shared.auth.keys import RemoteKeys
from shared.auth.revocations import Revocations
from shared.auth.tokens import TokenVerifier
from shared.broker.jetstream import JetStreamBroker
from shared.broker.metrics import BrokerMetrics
from shared.broker.port import Broker
from shared.edge.continuity.canary import Canary
from shared.edge.deadletters import DeadLetters
from shared.edge.line.hub import LineHub
from shared.edge.moving import Mover
from shared.edge.sessions import Sessions
from shared.edge.timers import Wheel
from shared.edge.topics.hub import Hub
from shared.edge.wire.pool import Pool
from shared.runtime.lag import LoopLag
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.settings import ServiceSettings
from shared.runtime.status import publish_status
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

MAIN = "main"


@dataclass(frozen=True, slots=True)
class Edge:
    """The ground that an edge service stands on."""

    broker: Broker
    authenticator: Authenticator
    deadletters: DeadLetters
    wheel: Wheel
    tasks: TaskKeeper
    pool: Pool | None
    _name: str
    _settings: ServiceSettings
    _revocations: Revocations
    _lifecycle: Lifecycle
    _connect: Callable[[str], Awaitable[Broker]]

    async def open_link(self, link: str) -> Broker:
        """Open another link to NATS, for traffic that must not hold up the rest; it ends with the edge.

        When one link is too slow, the server cuts it and leaves the others. Readiness and metrics know it by name.
        """
        return await self._connect(link)

    def listen(self, hub: Hub | LineHub, canary_subject: str, metrics: Metrics) -> None:
        """Not be ready while a service's hub hears nothing, or cannot compare what it heard with the broker."""
        canary = Canary(self.broker, hub, canary_subject, self._name, metrics)
        self._lifecycle.add_check(f"{self._name}.hub", hub.ready)
        self._lifecycle.add_check(f"{self._name}.canary", canary.ready)
        self.tasks.spawn(canary.run(), "canary")

    def hold(self, sessions: Sessions) -> None:
        """Look after a service's sessions: end the revoked ones, ask all to leave at a stop, say how many there are."""
        self._revocations.on_revoked(sessions.revoked)
        mover = Mover(sessions, self.tasks)
        self._lifecycle.on_drain(lambda: mover.drain(self._settings.drain_s))
        self._lifecycle.shedder = mover
        status = publish_status(
            self.broker, self._name, self._settings.instance, self._lifecycle, lambda: {"sessions": len(sessions)}
        )
        self.tasks.spawn(status, "status")


@asynccontextmanager
async def open_edge(
    name: str, settings: ServiceSettings, lifecycle: Lifecycle, metrics: Metrics, *, heartbeat_s: float
) -> AsyncIterator[Edge]:
    """Open what an edge needs; readiness depends on it, and the process ends if the broker's link is gone for good."""
    tasks = TaskKeeper()
    links: list[Broker] = []

    async def connect(link: str) -> Broker:
        links.append(await connect_broker(name, settings, lifecycle, metrics, tasks, link=link))
        return links[-1]

    broker = await connect(MAIN)
    deadletters = DeadLetters(broker, metrics)
    revocations = Revocations(broker, metrics=metrics)
    wheel = Wheel()
    pool: Pool | None = None
    async with httpx.AsyncClient() as client:
        keys = RemoteKeys(settings.auth_jwks_url, client, metrics=metrics)
        lifecycle.add_check(f"{name}.keys", keys.check)
        lifecycle.add_check(f"{name}.revocations", revocations.ready)
        verifier = TokenVerifier(keys, settings.auth_issuer, settings.auth_audience)
        tasks.spawn(keys.run(), "keys")
        tasks.spawn(revocations.run(), "revocations")
        tasks.spawn(wheel.run(), "wheel")
        lag = LoopLag(metrics)
        lifecycle.add_check(f"{name}.loop", lag.ready)
        tasks.spawn(lag.run(), "loop-lag")
        try:
            authenticator = Authenticator(verifier, broker, revocations, settings.allowed_origins)
            pool = _start_pool(settings, metrics, tasks, heartbeat_s)
            yield Edge(
                broker,
                authenticator,
                deadletters,
                wheel,
                tasks,
                pool,
                name,
                settings,
                revocations,
                lifecycle,
                connect,
            )
        finally:
            if pool is not None:
                pool.close()
            await tasks.close()
            await deadletters.close()
            for link in reversed(links):
                await link.close()


def _start_pool(settings: ServiceSettings, metrics: Metrics, tasks: TaskKeeper, heartbeat_s: float) -> Pool | None:
    if settings.edge_engine != "epoll":
        return None
    pool = Pool(metrics, heartbeat_s=heartbeat_s)
    pool.start()
    tasks.spawn(pool.sweep_for_ever(), "pool-sweep")
    return pool


async def connect_broker(
    name: str,
    settings: ServiceSettings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    tasks: TaskKeeper,
    *,
    link: str = MAIN,
) -> Broker:
    """Connect; readiness asks the server, and a link that cannot come back ends the process."""
    suffix = "" if link == MAIN else f".{link}"
    broker = await JetStreamBroker.connect(
        settings.nats_url, name=f"{name}@{settings.instance}{suffix}", metrics=BrokerMetrics(metrics, link)
    )
    lifecycle.add_check(f"{name}.broker{suffix}", broker.check)

    async def end_when_closed() -> None:
        await broker.closed()
        lifecycle.fail(f"the {link} link to NATS is closed for good")

    tasks.spawn(end_when_closed(), "broker-closed")
    return broker
