"""Puts the auth service together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from starlette.types import Scope

from services.auth.clients import Clients
from services.auth.database import Database
from services.auth.issuer import Issuer
from services.auth.keyring import Keyring, key_store
from services.auth.migrate import migrate
from services.auth.parts import Parts, Policies
from services.auth.passwords import Passwords
from services.auth.revocations import RevocationLog
from services.auth.routes import router, well_known
from services.auth.sessions import SessionLimits, Sessions
from services.auth.settings import AuthSettings
from services.auth.throttle import Throttle
from services.auth.users import Users
from shared.auth.tokens import TokenVerifier
from shared.edge.admission import address_of
from shared.errors import FanfareError
from shared.limits import Buckets
from shared.runtime.app import ServiceApp, build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.link import connect_broker
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

NAME = "auth"
PURGE_S = 600.0
UNBOUNDED = 1_000_000


def create_app(
    settings: AuthSettings, *, lifecycle: Lifecycle | None = None, metrics: Metrics | None = None
) -> ServiceApp:
    """Return the service's app; it opens the database and the broker's link when it starts, and closes them after."""
    lifecycle, metrics = lifecycle or Lifecycle(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: ServiceApp) -> AsyncIterator[Mapping[str, Any]]:
        if settings.limited:
            app.guard = _guard(settings, metrics)
        async with AsyncExitStack() as stack:
            yield {"auth": await _start(settings, lifecycle, metrics, stack)}

    return build_app(
        NAME, lifespan=lifespan, routers=[router, well_known], settings=settings, lifecycle=lifecycle, metrics=metrics
    )


async def _start(settings: AuthSettings, lifecycle: Lifecycle, metrics: Metrics, stack: AsyncExitStack) -> Parts:
    database, keeper = Database(settings.database_url), TaskKeeper()
    stack.push_async_callback(database.close)
    broker = await connect_broker(NAME, settings, lifecycle, metrics, keeper)
    stack.push_async_callback(broker.close)
    stack.push_async_callback(keeper.close)
    await migrate(database)
    keyring = Keyring(key_store(settings, database))
    await keyring.load()
    revocations = RevocationLog(database, broker, metrics)
    limits = SessionLimits(settings.max_sessions_per_user, settings.refresh_rate_hz)
    sessions = Sessions(
        database,
        revocations,
        metrics,
        ttl_s=settings.session_ttl_s,
        limits=limits if settings.limited else SessionLimits(),
    )
    throttle = Throttle(database, enabled=settings.limited)

    keeper.keep(keyring.run, "auth-keys")
    keeper.keep(revocations.run, "auth-revocations")
    keeper.keep(lambda: _purge(sessions, throttle), "auth-purge")
    lifecycle.add_check("database", database.check)
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


def _guard(settings: AuthSettings, metrics: Metrics) -> Callable[[Scope], None]:
    """Return what refuses the calls of an address that calls too often, before they cost anything."""
    forgotten = metrics.counter("rate_limit_forgotten", "Rate limits that a full table forgot", ["limit"])
    calls = Buckets(settings.call_rate_hz, settings.call_burst, count_forgotten=forgotten.labels("addresses").inc)

    def guard(scope: Scope) -> None:
        if address := address_of(scope):
            calls.require(address, "calls from this address")

    return guard


async def _purge(sessions: Sessions, throttle: Throttle) -> None:
    """Delete what is over, every ten minutes; every replica does, and it hurts nobody."""
    while True:
        await asyncio.sleep(PURGE_S)
        try:
            await sessions.purge()
            await throttle.purge()
        except (FanfareError, SQLAlchemyError) as error:
            get_logger().error("purge_failed", error=repr(error))
