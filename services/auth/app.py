"""Puts the auth service together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError

from services.auth.clients import Clients
from services.auth.database import Database
from services.auth.issuer import Issuer
from services.auth.keyring import Keyring, key_store
from services.auth.migrate import migrate
from services.auth.parts import Parts, Policies
from services.auth.passwords import Passwords
from services.auth.revocations import RevocationLog
from services.auth.routes import router, well_known
from services.auth.sessions import Sessions
from services.auth.settings import AuthSettings
from services.auth.throttle import Throttle
from services.auth.users import Users
from shared.auth.tokens import TokenVerifier
from shared.broker.jetstream import JetStreamBroker
from shared.broker.metrics import BrokerMetrics
from shared.broker.port import Broker
from shared.errors import FanfareError
from shared.runtime.app import ServiceApp, build_app
from shared.runtime.lifecycle import Lifecycle
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

NAME = "auth"
PURGE_S = 600.0
UNBOUNDED = 1_000_000


def create_app(
    settings: AuthSettings,
    *,
    lifecycle: Lifecycle | None = None,
    metrics: Metrics | None = None,
    broker: Broker | None = None,
) -> ServiceApp:
    """Return the service's app; it opens the database and the broker's link when it starts, and closes them after."""
    lifecycle, metrics = lifecycle or Lifecycle(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            link = broker or await _connect(settings, metrics, stack)
            yield {"auth": await _start(settings, link, lifecycle, metrics, stack)}

    return build_app(
        NAME, lifespan=lifespan, routers=[router, well_known], settings=settings, lifecycle=lifecycle, metrics=metrics
    )


async def _connect(settings: AuthSettings, metrics: Metrics, stack: AsyncExitStack) -> Broker:
    counts = BrokerMetrics(metrics)
    link = await JetStreamBroker.connect(settings.nats_url, name=f"{NAME}@{settings.instance}", metrics=counts)
    stack.push_async_callback(link.close)
    return link


async def _start(
    settings: AuthSettings, broker: Broker, lifecycle: Lifecycle, metrics: Metrics, stack: AsyncExitStack
) -> Parts:
    database = Database(settings.database_url)
    stack.push_async_callback(database.close)
    await migrate(database)
    keyring = Keyring(key_store(settings, database))
    await keyring.load()
    revocations = RevocationLog(database, broker, metrics)
    sessions = Sessions(database, revocations, metrics, ttl_s=settings.session_ttl_s)
    throttle = Throttle(database, enabled=settings.limited)

    keeper = TaskKeeper()
    stack.push_async_callback(keeper.close)
    keeper.spawn(keyring.run(), "auth-keys")
    keeper.spawn(revocations.run(), "auth-revocations")
    keeper.spawn(_purge(sessions, throttle), "auth-purge")
    keeper.spawn(_watch(broker, lifecycle), "auth-broker")
    lifecycle.add_check("database", database.check)
    lifecycle.add_check("nats", broker.check)
    return _parts(settings, database, keyring, sessions, throttle, metrics, stack)


def _parts(
    settings: AuthSettings,
    database: Database,
    keyring: Keyring,
    sessions: Sessions,
    throttle: Throttle,
    metrics: Metrics,
    stack: AsyncExitStack,
) -> Parts:
    waiting = settings.argon2_waiting if settings.limited else UNBOUNDED
    passwords = Passwords(concurrency=settings.argon2_concurrency, waiting=waiting, metrics=metrics)
    stack.callback(passwords.close)
    issuer, audience = settings.auth_issuer, settings.auth_audience
    return Parts(
        settings=settings,
        users=Users(database, passwords),
        clients=Clients(database),
        sessions=sessions,
        issuer=Issuer(keyring, issuer=issuer, audience=audience, access_ttl_s=settings.access_ttl_s),
        keyring=keyring,
        verifier=TokenVerifier(keyring, issuer, audience),
        throttle=throttle,
        policies=Policies.of(settings),
        logins=metrics.counter("auth_logins", "Logins by name and password", ["result"]),
    )


async def _purge(sessions: Sessions, throttle: Throttle) -> None:
    """Delete what is over, every ten minutes; every replica does, and it hurts nobody."""
    while True:
        await asyncio.sleep(PURGE_S)
        try:
            await sessions.purge()
            await throttle.purge()
        except (FanfareError, SQLAlchemyError) as error:
            get_logger().error("purge_failed", error=repr(error))


async def _watch(broker: Broker, lifecycle: Lifecycle) -> None:
    await broker.closed()
    lifecycle.fail("the link to NATS is closed for good")
