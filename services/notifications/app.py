"""Wires the notifications service together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from services.notifications.logs import LogBoard
from services.notifications.notices import Notices, encode_notice
from services.notifications.opening import PATH, stream_endpoint
from services.notifications.parts import NotificationsParts, State
from services.notifications.prices import PriceBoard
from services.notifications.routes import notifications_router, stocks_router, stream_router
from services.notifications.settings import NotificationsSettings
from services.notifications.statuses import StatusBoard
from services.notifications.stream import StreamSession
from services.notifications.watchlists import Watchlist, Watchlists
from shared.contracts import subjects
from shared.edge.admission import AdmissionLimits
from shared.edge.commands import Commands
from shared.edge.line.hub import LineHub
from shared.edge.sessions import SessionLimits
from shared.edge.turns import Turns
from shared.runtime.app import ServiceApp, build_app
from shared.runtime.contract import contract_router
from shared.runtime.edge import Edge, open_edge
from shared.runtime.lifecycle import Lifecycle
from shared.telemetry.metrics import Metrics

NAME = "notifications"
TRANSPORT = "sse"


def create_app(
    settings: NotificationsSettings, *, lifecycle: Lifecycle | None = None, metrics: Metrics | None = None
) -> ServiceApp:
    """Return the notifications' app; it connects when its lifespan begins."""
    lifecycle, metrics = lifecycle or Lifecycle(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: ServiceApp) -> AsyncIterator[State]:
        async with open_edge(NAME, settings, lifecycle, metrics, heartbeat_s=settings.heartbeat_s) as edge:
            parts = await _make_parts(settings, edge)
            app.guard = parts.admission.guard
            yield {"notifications": parts}

    return build_app(
        NAME,
        lifespan=lifespan,
        routers=[stream_router(), stocks_router(), notifications_router(), contract_router()],
        streams={PATH: stream_endpoint},
        settings=settings,
        lifecycle=lifecycle,
        metrics=metrics,
    )


async def _make_parts(settings: NotificationsSettings, edge: Edge) -> NotificationsParts:
    broker, metrics, deadletters = edge.broker, edge.metrics, edge.deadletters
    line = LineHub(
        broker,
        subjects.NOTIFY,
        subjects.ALL_NOTIFY,
        encode=encode_notice,
        deadletters=deadletters,
        metrics=metrics,
    )
    sessions, admission = edge.make_doors(
        TRANSPORT,
        SessionLimits(settings.max_streams_per_user, settings.max_streams),
        AdmissionLimits(settings.max_streams_per_address, arrivals_per_s=settings.arrival_rate_hz),
    )
    # Prices have a link of their own: what they flood holds up no notification (ADR 0017).
    price_link = await edge.open_link("prices")
    prices = PriceBoard(price_link, deadletters, edge.wheel, metrics, stale_after_s=settings.stale_after_s)
    statuses, logs = StatusBoard(broker, deadletters), LogBoard(broker, deadletters, metrics)

    def watchlist_changed(user: str, watchlist: Watchlist) -> None:
        for session in sessions.of_user(user):
            if isinstance(session, StreamSession):
                session.watchlist_changed(watchlist)

    watchlists = Watchlists(
        broker, on_change=watchlist_changed, users=lambda: sessions.users, max_symbols=settings.max_symbols
    )
    commands = Commands(broker, settings.instance)
    await edge.start(line, prices, commands, watchlists)
    await statuses.start()
    edge.tasks.keep(logs.run, "logs")
    edge.listen(line, subjects.notify_canary(settings.instance))
    edge.hold(sessions)
    return NotificationsParts(
        settings=settings,
        admission=admission,
        authenticator=edge.authenticator,
        calls=edge.limit_users("calls", settings.call_rate_hz, settings.call_burst),
        commands=commands,
        limits=edge.bound_backlogs(TRANSPORT, settings.backlog_bytes, stuck_s=settings.send_timeout_s),
        line=line,
        logs=logs,
        notices=Notices(broker, line),
        pool=edge.pool,
        prices=prices,
        sessions=sessions,
        statuses=statuses,
        tasks=edge.tasks,
        turns=Turns(),
        watchlists=watchlists,
        wheel=edge.wheel,
    )
