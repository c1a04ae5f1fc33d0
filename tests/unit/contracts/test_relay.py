"""Bytes to relay: what a client says reaches the others as it was, and what is cut off or too much is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.frames import parse_frame
from shared.contracts.relay import MAX_RELAY_BYTES, ToRelay, encode_relayed, head, is_relay
from shared.errors import BadId, BadInput
from tests.support.relay import relayed, to_relay

Ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)


@given(room=Ids, payload=st.binary(max_size=300))
def test_w5_what_a_client_sends_is_read_as_it_was_said(room: str, payload: bytes) -> None:
    assert parse_frame(to_relay(payload, room)) == (ToRelay(room, payload), None)
    assert parse_frame(to_relay(payload)) == (ToRelay(None, payload), None)


@given(room=Ids, user=Ids, payload=st.binary(max_size=300))
def test_w5_what_the_others_get_names_the_room_and_who_said_it(room: str, user: str, payload: bytes) -> None:
    raw = encode_relayed(room, user, payload)

    assert relayed(raw) == {"room": room, "userId": user, "payload": payload}
    assert raw.startswith(head(room))


@given(room=Ids, other=Ids, user=Ids)
def test_the_head_of_one_room_begins_nothing_of_another(room: str, other: str, user: str) -> None:
    assert encode_relayed(room, user, b"x").startswith(head(other)) == (room == other)


@given(value=st.recursive(st.none() | st.booleans() | st.text(), st.lists, max_leaves=3))
def test_no_json_is_taken_for_bytes_to_relay(value: object) -> None:
    for indent in (None, 2):
        assert not is_relay(json.dumps(value, indent=indent).encode())


@given(raw=st.binary(max_size=80).map(lambda rest: b"\x01" + rest))
def test_whatever_else_begins_like_it_is_refused_in_words(raw: bytes) -> None:
    try:
        frame, given_id = parse_frame(raw)
    except BadInput:
        return
    assert isinstance(frame, ToRelay)
    assert given_id is None


@pytest.mark.parametrize("raw", [b"\x01", b"\x01\x05", b"\x01\x05room"])
def test_what_is_cut_off_is_refused(raw: bytes) -> None:
    with pytest.raises(BadInput, match="ends before its room does"):
        parse_frame(raw)


@pytest.mark.parametrize("room", ["a.b", "*", ">", "a b", "x" * 65, "\xff", "r\r\n"])
def test_a_room_that_is_no_id_is_refused(room: str) -> None:
    with pytest.raises(BadId):
        parse_frame(to_relay(b"x", room))


def test_as_much_as_the_limit_is_taken_and_a_byte_more_refused_while_the_connection_stays() -> None:
    assert parse_frame(to_relay(bytes(MAX_RELAY_BYTES), "r")) == (ToRelay("r", bytes(MAX_RELAY_BYTES)), None)
    with pytest.raises(BadInput, match="exceeds the limit of 16384 bytes") as refused:
        parse_frame(to_relay(bytes(MAX_RELAY_BYTES + 1), "r"))
    assert refused.value.code == "bad_input"
