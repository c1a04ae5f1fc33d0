"""What no client of a stream should ask for: a refusal or a stream like any other, never a failure."""

from __future__ import annotations

import pytest

from shared.contracts.ids import new_id
from tests.support.clients import stream_client
from tests.support.edges import Edges, both_engines
from tests.support.raw import RawSocket


@both_engines
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "BREW"])
async def test_another_method_opens_no_stream(edges: Edges, method: str) -> None:
    edge = await edges.notifications()
    raw = await RawSocket.connect(edge)
    authorization = edge.headers(new_id("u"))["authorization"]
    head = f"{method} /api/stream HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n"
    await raw.send(head.encode())
    answer = await raw.until_closed()
    raw.close()

    assert answer.split()[1] in {b"400", b"405"}
    assert edge.gauge("sessions", transport="sse") == 0


@both_engines
@pytest.mark.parametrize("headers", [{"accept": "application/json"}, {"range": "bytes=0-10"}, {"te": "trailers"}])
async def test_headers_that_ask_for_something_else_change_nothing(edges: Edges, headers: dict[str, str]) -> None:
    edge = await edges.notifications()
    async with stream_client(edge, new_id("u"), headers=headers) as client:
        assert client.response.status_code == 200
        assert client.response.headers["content-type"].startswith("text/event-stream")


@both_engines
@pytest.mark.parametrize("path", ["/api/stream/", "//api/stream", "/api/stream/..", "/API/STREAM", "/api/stream%00"])
async def test_a_path_that_only_looks_like_the_streams_is_not_found(edges: Edges, path: str) -> None:
    edge = await edges.notifications()
    raw = await RawSocket.connect(edge)
    authorization = edge.headers(new_id("u"))["authorization"]
    await raw.send(
        f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {authorization}\r\n\r\n".encode()
    )
    answer = await raw.until_closed()
    raw.close()

    assert answer.split()[1] in {b"400", b"404", b"405"}


@both_engines
async def test_too_many_topics_or_query_fields_are_refused(edges: Edges) -> None:
    edge = await edges.notifications()
    for query in ("topics=" + ",".join(f"t{number}" for number in range(511)), "a=1&" * 511):
        answer = await edge.http.get(f"/api/stream?{query}", headers=edge.headers(new_id("u")))

        assert (answer.status_code, answer.json()["code"]) == (400, "bad_input")
