"""ASGI middleware that every service has: a bound on bodies, and one log line and one count for each request."""

from __future__ import annotations

import asyncio
import json
import time
from functools import cache

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.typing import FilteringBoundLogger

from shared.contracts.wire_errors import HTTP_STATUS, problem, problem_headers
from shared.errors import BadInput, FanfareError, TooLarge
from shared.telemetry import tracing
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})


class BodyLimit:
    """Refuses bodies that are too large (413) or too slow (400), whether they say their length or not."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int, timeout_s: float) -> None:
        self._app, self._max_body_bytes, self._timeout_s = app, max_body_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body, then run the app with it."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(receive)
        except FanfareError as error:
            await send_problem(send, error)
            return
        if body is not None:
            await self._app(scope, _replay(body, receive), send)

    async def _read(self, receive: Receive) -> bytes | None:
        """Return the whole body, None if the client left. Bodies are small, so they are read before the app runs."""
        body = bytearray()
        deadline = time.monotonic() + self._timeout_s
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    message = await receive()
            except TimeoutError:
                raise BadInput(f"the body was not complete after {self._timeout_s:g} s") from None
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            if len(body) > self._max_body_bytes:
                raise TooLarge("body", self._max_body_bytes)
            if not message.get("more_body", False):
                return bytes(body)


class RequestLog:
    """Counts and logs each request by route, never with its query: a query may hold a ticket."""

    def __init__(self, app: ASGIApp, *, service: str, metrics: Metrics) -> None:
        self._app, self._service = app, service
        self._log: FilteringBoundLogger | None = None
        requests = metrics.counter("http_requests", "HTTP requests answered", ["service", "method", "status"])
        self._count = cache(requests.labels)  # `labels` costs more than to count
        seconds = metrics.histogram("http_request_seconds", "Time to the response's head", ["service"])
        self._seconds = seconds.labels(service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the app inside a span, with its trace id in every log line."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        with tracing.span(scope["type"], _carrier(scope)):
            if scope["type"] == "http":
                await self._http(scope, receive, send)
            else:
                await self._app(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.perf_counter()

        async def watched(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._answered(scope, message["status"], time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, watched)

    def _answered(self, scope: Scope, status: int, seconds: float) -> None:
        method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "DELETE") else "other"
        tracing.describe(
            {"http.request.method": method, "url.path": scope["path"], "http.response.status_code": status}
        )
        self._count(self._service, method, status).inc()
        self._seconds.observe(seconds)
        if scope["path"] not in QUIET_PATHS:
            # Bound once: to find its settings anew costs a logger more than to find that it has nothing to write.
            self._log = self._log or get_logger().bind()
            path = scope["raw_path"].decode("latin-1")  # as it was sent: no control character in it reaches a terminal
            self._log.info("request", method=method, path=path, status=status, ms=round(seconds * 1000, 2))


async def send_problem(send: Send, error: FanfareError) -> None:
    """Answer with `error` as problem+json, below any framework."""
    body = json.dumps(problem(error)).encode()
    headers = [(name.encode(), value.encode()) for name, value in problem_headers(error).items()]
    headers += [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": HTTP_STATUS[error.code], "headers": headers})
    await send({"type": "http.response.body", "body": body})


# -- private ----------------------------------------------------------------------------------------------------------


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def replayed() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _carrier(scope: Scope) -> dict[str, str]:
    for name, value in scope["headers"]:
        if name == b"traceparent":
            return {"traceparent": value.decode("latin-1")}
    return {}
