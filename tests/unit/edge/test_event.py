"""Events are encoded once, and what is spliced into bytes reads as what a JSON library would have written."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.edge.delivery.event import BinaryEvent, Event, make_event, placed
from shared.edge.wire.frames import encode_binary, encode_text

Text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
Values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | Text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(Text, inner, max_size=3),
    max_leaves=8,
)
Data = st.dictionaries(Text, Values, max_size=5)
Types = st.from_regex(r"[a-z_]{1,20}", fullmatch=True)


@given(data=Data, seq=st.integers(0, 2**53), epoch=st.from_regex(r"[0-9a-z]{1,16}", fullmatch=True))
def test_a_place_is_added_as_if_it_had_been_there(data: dict[str, Any], seq: int, epoch: str) -> None:
    data = {"any": 1} | {name: value for name, value in data.items() if name not in {"seq", "cursor"}}
    body = make_event("any", data).body

    assert json.loads(placed(body, epoch, seq)) == data | {"seq": seq, "cursor": f"{epoch}:{seq}"}


def test_a_websocket_frame_is_made_once() -> None:
    event = make_event("any", {"a": 1})

    assert event.ws_frame == encode_text(event.frame_payload)
    assert event.ws_frame is event.ws_frame


@given(body=st.binary(max_size=300))
def test_bytes_go_as_they_are_in_a_binary_frame(body: bytes) -> None:
    assert BinaryEvent("relay", body).ws_frame == encode_binary(body)


@given(type_=Types, data=Data)
def test_a_frame_is_the_type_and_the_data(type_: str, data: dict[str, Any]) -> None:
    event = make_event(type_, data)

    assert json.loads(event.frame_payload) == {"type": type_, "data": data}


@given(type_=Types, data=Data, given_id=Text)
def test_an_answer_repeats_the_id_that_the_frame_gave(type_: str, data: dict[str, Any], given_id: str) -> None:
    event = make_event(type_, data).answering(json.dumps(given_id).encode())

    assert json.loads(event.frame_payload) == {"type": type_, "id": given_id, "data": data}


@given(type_=Types, data=Data, named=st.booleans())
def test_an_sse_event_is_one_line_of_flat_data(type_: str, data: dict[str, Any], named: bool) -> None:
    data.pop("type", None)
    event = make_event(type_, data).at("e:1")
    lines = event.to_sse(named=named).decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if line)

    assert lines[-2:] == ["", ""]
    assert not any("\n" in line or "\r" in line for line in lines)
    assert json.loads(fields["data"]) == {"type": type_} | data
    assert fields["id"] == "e:1"
    assert fields.get("event") == (type_ if named else None)


@pytest.mark.parametrize("chunk", [lambda event: event.sse_chunk, lambda event: event.named_chunk])
def test_a_stored_event_is_encoded_once_with_its_place(chunk: Callable[[Event], bytes]) -> None:
    event = Event("notification", b'{"a":1}').at("e:1")

    assert b"id: e:1\r\n" in chunk(event)
    assert chunk(event) is chunk(event)


def test_an_event_without_a_cursor_moves_none() -> None:
    assert b"id:" not in make_event("connected", {}).to_sse(named=False)
