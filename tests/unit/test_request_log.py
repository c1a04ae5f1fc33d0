"""What a request leaves in the log, and what a stream that fails answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import structlog
from httpx import ASGITransport, AsyncClient
from starlette.types import Message, Receive, Scope, Send

from shared.errors import Unavailable
from shared.runtime.app import answering
from shared.runtime.middleware import RequestLog
from shared.telemetry.logs import configure_logs
from shared.telemetry.metrics import Metrics

TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture
def _logs() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logs("info", service="x", instance="x-1")
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


async def get(app: object, path: str = "/", **headers: str) -> int:
    transport = ASGITransport(RequestLog(app, service="x", metrics=Metrics()), raise_app_exceptions=False)  # type: ignore[arg-type]
    async with AsyncClient(transport=transport, base_url="http://x") as client:
        return (await client.get(path, headers=headers)).status_code


async def empty(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.usefixtures("_logs")
async def test_a_line_names_the_trace_that_the_request_came_in(caplog: pytest.LogCaptureFixture) -> None:
    await get(empty, traceparent=f"00-{TRACE}-00f067aa0ba902b7-00")
    await get(empty)
    given, made = [record.msg["trace_id"] for record in caplog.records if isinstance(record.msg, dict)]

    assert given == TRACE
    assert len(made) == len(TRACE)
    assert made != TRACE


@pytest.mark.usefixtures("_logs")
async def test_a_line_names_the_path_as_it_was_sent_so_that_nothing_in_it_reaches_a_terminal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await get(empty, "/%1b%5B31m%0aforged")
    (path,) = [record.msg["path"] for record in caplog.records if isinstance(record.msg, dict)]

    assert path.isprintable()
    assert path.lower() == "/%1b%5b31m%0aforged"


@pytest.mark.parametrize(("error", "status"), [(Unavailable("not now"), 503), (ZeroDivisionError(), 500)])
async def test_a_stream_that_fails_before_it_begins_is_answered(error: Exception, status: int) -> None:
    async def fails(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise error

    assert await get(answering(fails)) == status


async def test_a_stream_that_fails_after_it_began_is_not_answered_twice() -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await empty(scope, receive, send)
        raise ZeroDivisionError

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message["type"])

    sent: list[str] = []
    with pytest.raises(ZeroDivisionError):
        await answering(fails)({"type": "http"}, receive, send)

    assert sent == ["http.response.start", "http.response.body"]
