"""Builds the FastAPI app of a service: routes, one error mapping, body limit, request log, health."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.contracts.wire_errors import HTTP_STATUS, problem, problem_headers
from shared.errors import BadInput, FanfareError
from shared.runtime.admin import admin_router
from shared.runtime.health import health_router
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.middleware import BodyLimit, RequestLog
from shared.runtime.settings import ServiceSettings
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

API = "/api/"
Handler = Callable[[Request, Exception], Awaitable[JSONResponse]]
Lifespan = Callable[["ServiceApp"], AbstractAsyncContextManager[Mapping[str, Any]]]


class ServiceApp(FastAPI):
    """FastAPI, with connections that stay going past it: what such a one costs is its beginning.

    A WebSocket needs nothing of the stack (no body, no status, its own errors), and the way through is a third of its
    handshake. A stream needs the log and the errors, and neither routing nor dependencies.

    Attributes:
        guard: called with the scope of each call to the API before anything else looks at it; what it raises is the
            answer. What a flood of calls costs is the way to a route, and a line of the log for each.
    """

    sockets: Mapping[str, ASGIApp]
    streams: dict[str, ASGIApp]
    guard: Callable[[Scope], None] | None = None

    @property
    def staying(self) -> frozenset[str]:
        """The paths whose connections take the hand-over as soon as they are admitted."""
        return frozenset((*self.sockets, *self.streams))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        endpoint: ASGIApp | None = None
        if scope["type"] == "websocket":
            endpoint = self.sockets.get(scope["path"])
        elif scope["type"] == "http" and scope["method"] == "GET":
            endpoint = self.streams.get(scope["path"])
        elif scope["type"] == "lifespan":
            send = _saying_why(send, self.state.lifecycle)
        if endpoint is None and self.guard is not None and scope.get("path", "").startswith(API):
            try:
                self.guard(scope)
            except FanfareError as error:
                await problem_response(error)(scope, receive, send)
                return
        await (endpoint or super().__call__)(scope, receive, send)


def build_app(
    name: str,
    *,
    lifespan: Lifespan,
    routers: Sequence[APIRouter],
    settings: ServiceSettings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    sockets: Mapping[str, ASGIApp] | None = None,
    streams: Mapping[str, ASGIApp] | None = None,
) -> ServiceApp:
    """Return the app of service `name`; every error it raises reaches the client as RFC 9457 problem+json.

    Args:
        sockets: WebSocket endpoints by path.
        streams: endpoints of GET requests whose answer does not end, by path; logged, and answered when they raise, as
            routes are.
    """
    app = ServiceApp(
        title=f"Fanfare {name}",
        # A quarter of what a call costs, for what `RequestLog` has traced and counted already.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        middleware=[
            Middleware(RequestLog, service=name, metrics=metrics),
            Middleware(BodyLimit, max_body_bytes=settings.max_body_bytes, timeout_s=settings.body_timeout_s),
        ],
    )
    app.sockets, app.streams = sockets or {}, {}
    for path, endpoint in (streams or {}).items():
        app.streams[path] = RequestLog(answering(endpoint), service=name, metrics=metrics)
    if settings.admin_port:
        app.include_router(admin_router(lifecycle, settings.admin_port))
    for router in (*routers, health_router(lifecycle, metrics)):
        app.include_router(router)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, _unforeseen)
    app.state.metrics, app.state.lifecycle = metrics, lifecycle
    return app


def answering(endpoint: ASGIApp) -> ASGIApp:
    """Return a stream's endpoint whose errors are answered as a route's: what Starlette's two middlewares do."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await endpoint(scope, receive, noted)
        except Exception as error:  # whatever it is: the handler of the unforeseen logs it
            if begun:
                raise  # half an answer is the server's to end
            handle = next((_HANDLERS[kind] for kind in _HANDLERS if isinstance(error, kind)), _unforeseen)
            response = await handle(Request(scope), error)
            await response(scope, receive, send)

    return answered


def problem_response(error: FanfareError, extra: Mapping[str, Any] | None = None) -> JSONResponse:
    """Return `error` as a problem+json response."""
    body = problem(error) | dict(extra or {})
    return JSONResponse(body, status_code=HTTP_STATUS[error.code], headers=problem_headers(error))


# -- a start that fails -----------------------------------------------------------------------------------------------


def _saying_why(send: Send, lifecycle: Lifecycle) -> Send:
    """Return `send` that says in one line why a start failed, where that was foreseen: no NATS, no database.

    Starlette sends its traceback while it handles the error. That stays for whatever is no FanfareError.
    """

    async def said(message: Message) -> None:
        error = sys.exception()
        if message["type"] == "lifespan.startup.failed" and isinstance(error, FanfareError):
            lifecycle.fail(f"cannot start: {error}")
            message["message"] = ""
        await send(message)

    return said


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


_HANDLERS: Final[dict[Any, Handler]] = {
    FanfareError: _fanfare_error,
    RequestValidationError: _validation_error,
    HTTPException: _http_error,
}
