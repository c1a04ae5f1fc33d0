"""Builds the FastAPI app of a service: routes, one error mapping, body limit, request log, health."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from shared.contracts.wire_errors import HTTP_STATUS, problem, problem_headers
from shared.errors import BadInput, FanfareError
from shared.runtime.health import health_router
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.middleware import BodyLimit, RequestLog
from shared.runtime.settings import ServiceSettings
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[Mapping[str, Any]]]


class ServiceApp(FastAPI):
    """FastAPI, with WebSockets that go past its middleware.

    A WebSocket needs none of it (no body, no status, its own errors), and the handshake is what a connection costs: the
    way through the stack is a third of it.
    """

    sockets: Mapping[str, ASGIApp]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        socket = self.sockets.get(scope["path"]) if scope["type"] == "websocket" else None
        await (socket or super().__call__)(scope, receive, send)


def build_app(
    name: str,
    *,
    lifespan: Lifespan,
    routers: Sequence[APIRouter],
    settings: ServiceSettings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    sockets: Mapping[str, ASGIApp] | None = None,
) -> FastAPI:
    """Return the app of service `name`; every error it raises reaches the client as RFC 9457 problem+json.

    Args:
        sockets: WebSocket endpoints by path.
    """
    app = ServiceApp(
        title=f"Fanfare {name}",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestLog, service=name, metrics=metrics),
            Middleware(BodyLimit, max_body_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s),
        ],
    )
    app.sockets = sockets or {}
    for router in (*routers, health_router(lifecycle, metrics)):
        app.include_router(router)
    app.add_exception_handler(FanfareError, _fanfare_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unforeseen)
    return app


def problem_response(error: FanfareError, extra: Mapping[str, Any] | None = None) -> JSONResponse:
    """Return `error` as a problem+json response."""
    body = problem(error) | dict(extra or {})
    return JSONResponse(body, status_code=HTTP_STATUS[error.code], headers=problem_headers(error))


# -- the handlers -----------------------------------------------------------------------------------------------------


async def _fanfare_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, FanfareError)  # noqa: S101  # registered for this type only
    return problem_response(error)


async def _validation_error(_request: Request, error: Exception) -> JSONResponse:
    """Say which fields are wrong and why, without repeating what was sent: it may be a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101  # registered for this type only
    fields = [{"field": ".".join(map(str, item["loc"])), "reason": item["msg"]} for item in error.errors()]
    detail = "; ".join(f"{item['field']}: {item['reason']}" for item in fields[:5])
    return problem_response(BadInput(detail), {"errors": fields[:20]})


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101  # registered for this type only
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "bad_input")
    body = {"type": "about:blank", "title": str(error.detail), "status": error.status_code, "detail": str(error.detail)}
    headers = {"content-type": "application/problem+json"} | dict(error.headers or {})
    return JSONResponse(body | {"code": code, "retryable": False}, status_code=error.status_code, headers=headers)


async def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    get_logger().error("request_failed", path=request.url.path, exc_info=error)
    return problem_response(FanfareError("Something went wrong here; it has been logged."))
