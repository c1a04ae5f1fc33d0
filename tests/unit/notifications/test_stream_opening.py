"""A stream opens past FastAPI and behaves as if it did not: the same query, the same refusals, the same head."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from fastapi.exceptions import RequestValidationError
from sse_starlette import EventSourceResponse

from services.notifications.app import create_app
from services.notifications.opening import MAX_KEPT_QUERY_BYTES, StreamQuery, read_query
from services.notifications.settings import NotificationsSettings
from shared.auth.credentials import MAX_QUERY_FIELDS
from shared.edge.wire.response import HEAD
from shared.errors import BadInput


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (b"", StreamQuery()),
        (b"topics=a,b&topics=c", StreamQuery(topics=("a,b", "c"))),
        (b"max_rate=2.5&events=named&token=secret", StreamQuery(max_rate=2.5, events="named")),
        (b"events=unnamed&events=named", StreamQuery(events="named")),
        (b"last_event_id=e%3A5&topics=", StreamQuery(last_event_id="e:5", topics=("",))),
    ],
)
def test_a_query_is_read_as_fastapi_reads_it(query: bytes, wanted: StreamQuery) -> None:
    assert read_query(query) == wanted


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (b"max_rate=0", "max_rate"),
        (b"max_rate=nan", "max_rate"),
        (b"max_rate=", "max_rate"),
        (b"events=loud", "events"),
        (b"logs=loud", "logs"),
        (b"logs=", "logs"),
        (b"last_event_id=" + b"1" * 2049, "last_event_id"),
    ],
)
def test_what_is_wrong_with_a_query_is_named(query: bytes, field: str) -> None:
    with pytest.raises(RequestValidationError) as refused:
        read_query(query)

    assert [error["loc"] for error in refused.value.errors()] == [("query", field)]


def test_a_query_of_too_many_fields_is_not_looked_at() -> None:
    with pytest.raises(BadInput):
        read_query(b"a=1&" * (MAX_QUERY_FIELDS + 1))


def test_the_head_is_that_of_sse_starlette() -> None:
    async def nothing() -> AsyncIterator[bytes]:
        yield b""

    assert sorted(EventSourceResponse(nothing()).raw_headers) == sorted(HEAD["headers"])


def test_openapi_knows_the_stream_and_all_that_its_query_may_say() -> None:
    described = create_app(NotificationsSettings()).openapi()["paths"]["/api/stream"]["get"]

    assert {field["name"] for field in described["parameters"]} == set(StreamQuery.model_fields)
    assert "text/event-stream" in described["responses"]["200"]["content"]


def test_only_short_queries_are_remembered() -> None:
    """They are read before anybody is asked who they are, so what is kept of them has to be small."""
    short, long = b"topics=news&token=a", b"topics=" + b"n" * MAX_KEPT_QUERY_BYTES

    assert read_query(short) is read_query(short.replace(b"=a", b"=b"))
    assert read_query(long) == read_query(long)
    assert read_query(long) is not read_query(long)
