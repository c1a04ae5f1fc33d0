"""All services in one process behind one port: what a proxy does in production, done by prefix here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from services.auth.app import create_app as create_auth
from services.auth.settings import AuthSettings
from services.chat.app import create_app as create_chat
from services.chat.settings import ChatSettings
from services.notifications.app import create_app as create_notifications
from services.notifications.settings import NotificationsSettings
from services.page import Page
from services.price_feed.app import create_app as create_price_feed
from services.price_feed.settings import PriceFeedSettings
from services.settings import SuiteSettings
from shared.runtime.app import ServiceApp, build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.settings import load_settings
from shared.telemetry.metrics import Metrics

PREFIXES = {
    "/api/auth": "auth",
    "/.well-known": "auth",
    "/ws/chat": "chat",
    "/api/chat": "chat",
    "/api/stream": "notifications",
    "/api/stocks": "notifications",
    "/api/notifications": "notifications",
}


class Suite:
    """The four apps as one: opens them in order, and hands each request to the one whose prefix it has."""

    def __init__(
        self, apps: dict[str, ServiceApp], settings: SuiteSettings, lifecycle: Lifecycle, metrics: Metrics
    ) -> None:
        self._apps = apps
        self._states: dict[str, Mapping[str, Any]] = {}
        self._front = build_app(
            "suite", lifespan=self._open, routers=[], settings=settings, lifecycle=lifecycle, metrics=metrics
        )
        self._front.mount("/", Page(), name="page")
        self.state = self._front.state  # where the server finds the metrics

    @property
    def staying(self) -> frozenset[str]:
        """The paths whose connections take the hand-over: those of all."""
        return frozenset[str]().union(*(app.staying for app in self._apps.values()))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        name = None if scope["type"] == "lifespan" else self._service_of(scope["path"])
        if name is None:
            await self._front(scope, receive, send)
            return
        scope["state"] = dict(self._states[name])
        await self._apps[name](scope, receive, send)

    @asynccontextmanager
    async def _open(self, _app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            for name, app in self._apps.items():
                state = await stack.enter_async_context(app.router.lifespan_context(app))
                self._states[name] = state or {}
            yield {}

    @staticmethod
    def _service_of(path: str) -> str | None:
        for prefix, name in PREFIXES.items():
            if path == prefix or path.startswith(prefix + "/"):
                return name
        return None


def create_suite(
    settings: SuiteSettings, lifecycle: Lifecycle, *, nats_url: str, database_url: str, base_url: str
) -> ASGIApp:
    """Return the suite; what one service needs of another's address is known here.

    Args:
        base_url: where the suite can be reached from this machine, for the keys that tokens are checked with.
    """
    metrics = Metrics()
    common = settings.model_dump(include={"host", "port", "drain_s", "instance", "log_level", "log_format"})
    common |= {"nats_url": nats_url, "auth_jwks_url": f"{base_url}/.well-known/jwks.json"}
    auth = load_settings(AuthSettings, **common, database_url=database_url)
    feed, chat = load_settings(PriceFeedSettings, **common), load_settings(ChatSettings, **common)
    notifications = load_settings(NotificationsSettings, **common)
    apps = {
        "auth": create_auth(auth, lifecycle=lifecycle, metrics=metrics),
        "price_feed": create_price_feed(feed, lifecycle=lifecycle, metrics=metrics),
        "chat": create_chat(chat, lifecycle=lifecycle, metrics=metrics),
        "notifications": create_notifications(notifications, lifecycle=lifecycle, metrics=metrics),
    }
    return Suite(apps, settings, lifecycle, metrics)
