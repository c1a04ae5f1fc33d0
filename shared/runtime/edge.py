"""What every edge service opens at its start: the broker, who may come in, timers, dead letters, and what ends it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import httpx

from shared.auth.authenticator import Authenticator
from shared.auth.keys import RemoteKeys
from shared.auth.revocations import Revocations
from shared.auth.tokens import TokenVerifier
from shared.broker.port import Broker
from shared.edge.admission import Admission, AdmissionLimits
from shared.edge.continuity.canary import Canary
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.line.hub import LineHub
from shared.edge.moving import Mover
from shared.edge.sessions import SessionLimits, Sessions
from shared.edge.timers import Wheel
from shared.edge.topics.hub import Hub
from shared.edge.wire.pool import Pool
from shared.edge.wire.ring import RingRefused, SendRing
from shared.limits import Buckets
from shared.runtime.lag import LoopLag
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.link import MAIN, connect_broker
from shared.runtime.settings import ServiceSettings
from shared.runtime.status import publish_status
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics


class Part(Protocol):
    """Something of a service that runs from its start to its end."""

    async def start(self) -> None:
        """Begin; what it stands on is there."""

    async def close(self) -> None:
        """End, also when it has not begun."""


@dataclass(frozen=True, slots=True)
class Edge:
    """The ground that an edge service stands on."""

    broker: Broker
    authenticator: Authenticator
    deadletters: DeadLetters
    wheel: Wheel
    tasks: TaskKeeper
    pool: Pool | None
    metrics: Metrics
    _name: str
    _settings: ServiceSettings
    _revocations: Revocations
    _lifecycle: Lifecycle
    _connect: Callable[[str], Awaitable[Broker]]
    _stack: AsyncExitStack

    async def open_link(self, link: str) -> Broker:
        """Open another link to NATS, for traffic that must not hold up the rest; it ends with the edge.

        When one link is too slow, the server cuts it and leaves the others. Readiness and metrics know it by name.
        """
        return await self._connect(link)

    async def start(self, *parts: Part) -> None:
        """Start parts of the service in this order; they end in the other, and before the ground they stand on."""
        for part in parts:
            self._stack.push_async_callback(part.close)
            await part.start()

    def make_doors(self, transport: str, caps: SessionLimits, at_door: AdmissionLimits) -> tuple[Sessions, Admission]:
        """Return what counts connections by user and process, and by address; no caps where limits are off."""
        if not self._settings.limited:
            caps, at_door = SessionLimits(), AdmissionLimits()
        return Sessions(caps, self.metrics, transport), Admission(at_door, self.metrics, transport)

    def limit_users(self, what: str, rate_hz: float, burst: float) -> Buckets | None:
        """Return what limits each user's use of something (`calls`: of HTTP); None where limits are off."""
        if not self._settings.limited:
            return None
        forgotten = self.metrics.counter("rate_limit_forgotten", "Rate limits that a full table forgot", ["limit"])
        return Buckets(rate_hz, burst, count_forgotten=forgotten.labels(what).inc)

    def bound_backlogs(self, transport: str, lossless_bytes: int, stuck_s: float = 30.0) -> OverflowLimits:
        """Return the bounds of each connection's backlog; who is closed over one is counted."""
        too_slow = self.metrics.counter("clients_too_slow", "Clients closed over a full backlog", ["transport"])
        return OverflowLimits(lossless_bytes, stuck_s=stuck_s, count_too_slow=too_slow.labels(transport).inc)

    def listen(self, hub: Hub | LineHub, canary_subject: str) -> None:
        """Not be ready while a service's hub hears nothing, or cannot compare what it heard with the broker."""
        canary = Canary(self.broker, hub, canary_subject, self._name, self.metrics)
        self._lifecycle.add_check(f"{self._name}.hub", hub.ready)
        self._lifecycle.add_check(f"{self._name}.canary", canary.ready)
        self.tasks.keep(canary.run, "canary")

    def hold(self, sessions: Sessions) -> None:
        """Look after a service's sessions: end the revoked ones, ask all to leave at a stop, say how many there are."""
        self._revocations.on_revoked(sessions.revoked)
        mover = Mover(sessions, self.tasks)
        self._lifecycle.on_drain(lambda: mover.drain(self._settings.drain_s))
        self._lifecycle.shedder = mover
        who = self._name, self._settings.instance
        self.tasks.keep(
            lambda: publish_status(self.broker, *who, self._lifecycle, lambda: {"sessions": len(sessions)}), "status"
        )


@asynccontextmanager
async def open_edge(
    name: str, settings: ServiceSettings, lifecycle: Lifecycle, metrics: Metrics, *, heartbeat_s: float
) -> AsyncIterator[Edge]:
    """Open what an edge needs; readiness depends on it, and the process ends if the broker's link is gone for good."""
    tasks = TaskKeeper()
    # Links end last: whatever ends before them may still have a word to send.
    async with AsyncExitStack() as links, AsyncExitStack() as stack:

        async def connect(link: str) -> Broker:
            broker = await connect_broker(name, settings, lifecycle, metrics, tasks, link=link)
            links.push_async_callback(broker.close)
            return broker

        broker = await connect(MAIN)
        client = await links.enter_async_context(httpx.AsyncClient())
        deadletters = DeadLetters(broker, metrics)
        stack.push_async_callback(deadletters.close)
        stack.push_async_callback(tasks.close)
        keys = RemoteKeys(settings.auth_jwks_url, client, metrics=metrics)
        revocations, wheel, lag = Revocations(broker, metrics=metrics), Wheel(), LoopLag(metrics)
        lifecycle.add_check(f"{name}.keys", keys.check)
        lifecycle.add_check(f"{name}.revocations", revocations.ready)
        lifecycle.add_check(f"{name}.loop", lag.ready)
        tasks.keep(keys.run, "keys")
        tasks.keep(revocations.run, "revocations")
        tasks.keep(wheel.run, "wheel")
        tasks.keep(lag.run, "loop-lag")
        verifier = TokenVerifier(keys, settings.auth_issuer, settings.auth_audience)
        yield Edge(
            broker=broker,
            authenticator=Authenticator(verifier, broker, revocations, settings.allowed_origins),
            deadletters=deadletters,
            wheel=wheel,
            tasks=tasks,
            pool=_start_pool(settings, metrics, tasks, stack, heartbeat_s),
            metrics=metrics,
            _name=name,
            _settings=settings,
            _revocations=revocations,
            _lifecycle=lifecycle,
            _connect=connect,
            _stack=stack,
        )


def _start_pool(
    settings: ServiceSettings, metrics: Metrics, tasks: TaskKeeper, stack: AsyncExitStack, heartbeat_s: float
) -> Pool | None:
    if settings.edge_engine != "epoll":
        return None
    pool = Pool(metrics, heartbeat_s=heartbeat_s, ring=_open_ring(settings))
    stack.callback(pool.close)
    pool.start()
    tasks.keep(pool.sweep_for_ever, "pool-sweep")
    return pool


def _open_ring(settings: ServiceSettings) -> SendRing | None:
    if settings.edge_io_uring == "off":
        return None
    try:
        return SendRing()
    except RingRefused as refused:  # Docker's default policy does; all works without, for a little more time
        get_logger().info("io_uring_refused", reason=str(refused))
        return None
