"""A client reads back what the server writes: every `encode_*` through the client's half of `websockets`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from websockets.frames import Close, Frame, Opcode
from websockets.protocol import CLIENT, Protocol

from shared.edge.wire.frames import encode_binary, encode_close, encode_ping, encode_pong, encode_text

MAY_BE_SENT = st.sampled_from([*range(1000, 1004), *range(1007, 1015)]) | st.integers(3000, 4999)


def client_reads(data: bytes) -> Frame:
    """Return the one frame that a client sees in `data`."""
    client = Protocol(CLIENT, max_size=None)
    client.receive_data(data)
    assert client.parser_exc is None
    (event,) = client.events_received()
    assert isinstance(event, Frame)
    return event


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize(("encode", "opcode"), [(encode_text, Opcode.TEXT), (encode_binary, Opcode.BINARY)])
def test_a_message_of_any_length_arrives(encode: Callable[[bytes], bytes], opcode: Opcode, length: int):
    payload = b"x" * length

    data = encode(payload)

    assert client_reads(data) == Frame(opcode, payload)
    assert data == Frame(opcode, payload).serialize(mask=False)


@settings(deadline=None)  # a busy machine is no failure
@given(st.binary(max_size=125))
def test_pings_and_pongs_arrive(payload: bytes):
    assert client_reads(encode_ping(payload)) == Frame(Opcode.PING, payload)
    assert client_reads(encode_pong(payload)) == Frame(Opcode.PONG, payload)


def test_the_ping_of_an_idle_connection_costs_two_bytes():
    assert encode_ping() == b"\x89\x00"


@pytest.mark.parametrize("encode", [encode_ping, encode_pong])
def test_a_control_frame_above_125_bytes_is_not_written(encode: Callable[[bytes], bytes]):
    with pytest.raises(ValueError, match="126"):
        encode(bytes(126))


@settings(deadline=None)
@given(MAY_BE_SENT, st.text(st.sampled_from("xé€😀"), max_size=200))
@example(1000, "x" * 123)
@example(1000, "x" * 124)
@example(1000, "é" * 62)
@example(1000, "x😀" * 30)
def test_a_close_arrives_with_as_much_of_the_reason_as_fits(code: int, reason: str):
    close = Close.parse(client_reads(encode_close(code, reason)).data)

    assert close.code == code
    assert reason.startswith(close.reason)
    next_character = reason[len(close.reason) : len(close.reason) + 1]
    assert not next_character or len((close.reason + next_character).encode()) > 123


def test_a_close_without_a_code_is_answered_without_one():
    assert encode_close(1005) == b"\x88\x00"


def test_a_reason_that_cannot_be_encoded_does_not_keep_the_close_from_being_sent():
    assert Close.parse(client_reads(encode_close(1011, "\ud800!")).data).reason == "?!"


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 2999, 5000])
def test_a_close_code_that_must_not_be_sent_is_not_written(code: int):
    with pytest.raises(ValueError, match=str(code)):
        encode_close(code)
