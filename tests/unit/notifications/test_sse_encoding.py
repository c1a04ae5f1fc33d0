"""What an event becomes on an SSE stream is read back as it was, by a client that knows nothing of the suite."""

from __future__ import annotations

import json
from typing import Any

import httpx
from httpx_sse import EventSource, ServerSentEvent
from hypothesis import given
from hypothesis import strategies as st

from shared.edge.delivery.event import Event, make_event

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
NASTY = st.sampled_from(
    ["\r", "\n", "\r\n", "\n\ndata: x", "\x00", "\u2028", "\u2029", "\x85", "\x0b", "\x1c", "\ufeff"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT | NASTY,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT | NASTY, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
DATA = st.dictionaries((TEXT | NASTY).filter(lambda name: name != "type"), JSON, max_size=4)


def read(chunk: bytes) -> list[ServerSentEvent]:
    response = httpx.Response(200, headers={"content-type": "text/event-stream"}, content=chunk)
    return list(EventSource(response).iter_sse())


@given(data=DATA, named=st.booleans(), cursor=st.sampled_from(["", "e:1"]))
def test_any_json_comes_back_as_it_was(data: dict[str, Any], named: bool, cursor: str) -> None:
    event = make_event("notification", data).at(cursor)

    (got,) = read(event.to_sse(named=named))

    assert json.loads(got.data) == {"type": "notification"} | data
    assert got.event == ("notification" if named else "message")
    assert got.id == cursor


@given(bodies=st.lists(DATA, min_size=1, max_size=5))
def test_events_written_as_one_chunk_come_back_one_by_one(bodies: list[dict[str, Any]]) -> None:
    chunk = b"".join(make_event("x", data).at(f"e:{number}").to_sse(named=False) for number, data in enumerate(bodies))

    assert [json.loads(got.data) for got in read(chunk)] == [{"type": "x"} | data for data in bodies]


def test_an_event_without_a_place_does_not_move_the_cursor() -> None:
    assert b"id:" not in Event("price_update", b"{}").to_sse(named=True)
