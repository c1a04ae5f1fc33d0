"""The auth service as its clients meet it: real uvicorn on a port of its own, a real database, a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from services.auth.app import create_app
from services.auth.settings import AuthSettings
from shared.contracts.ids import new_id
from shared.runtime.lifecycle import Lifecycle
from shared.telemetry.metrics import Metrics
from tests.support.edges import serving

PASSWORD = "correct horse battery"


@dataclass
class RunningAuth:
    """One replica, and a client that keeps no cookies between calls."""

    url: str
    http: httpx.AsyncClient
    metrics: Metrics
    settings: AuthSettings

    async def post(self, call: str, json: Any = None, token: str | None = None, **more: Any) -> httpx.Response:
        """POST to `/api/auth/<call>`, with a bearer token if one is given."""
        headers = dict(more.pop("headers", {})) | ({"authorization": f"Bearer {token}"} if token else {})
        answer = await self.http.post(f"/api/auth/{call}", json=json, headers=headers, **more)
        self.http.cookies.clear()
        return answer

    async def me(self, token: str) -> httpx.Response:
        """Ask who holds `token`."""
        return await self.http.get("/api/auth/me", headers={"authorization": f"Bearer {token}"})

    async def login(self, username: str, password: str = PASSWORD) -> dict[str, Any]:
        """Log in and return the answer."""
        answer = await self.post("login", {"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body

    async def new_user(self) -> dict[str, Any]:
        """Register somebody new, log them in, and return the answer."""
        name = f"user-{new_id()[:12]}"
        answer = await self.post("register", {"username": name, "password": PASSWORD})
        assert answer.status_code == 201, answer.text
        return await self.login(name)

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a counter, 0 if it never counted."""
        return self.metrics.registry.get_sample_value(f"fanfare_{name}_total", labels) or 0.0


@asynccontextmanager
async def running_auth(settings: AuthSettings) -> AsyncIterator[RunningAuth]:
    """Run one replica; it serves when this yields."""
    lifecycle, metrics = Lifecycle(), Metrics()
    async with serving(create_app(settings, lifecycle=lifecycle, metrics=metrics), settings, lifecycle) as server:
        url = f"http://127.0.0.1:{server.port}"
        async with httpx.AsyncClient(base_url=url, timeout=30) as http:
            yield RunningAuth(url, http, metrics, settings)
