"""What a server takes and refuses, by section of RFC 6455."""

from __future__ import annotations

import pytest

from shared.edge.wire.frames import (
    Binary,
    Close,
    Event,
    Limits,
    Partial,
    Ping,
    Pong,
    ProtocolViolation,
    Text,
    read_frames,
)

LIMITS = Limits(max_message_bytes=70_000, max_fragments=4)
KEY = bytes.fromhex("37fa213d")

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x00, 0x01, 0x02, 0x08, 0x09, 0x0A
FIN = 0x80


def header(first: int, length: int, *, field_bytes: int | None = None) -> bytes:
    """Return a masked frame's header up to its key; `field_bytes` forces a form of the length."""
    if field_bytes is None:
        field_bytes = 0 if length < 126 else 2 if length < 65_536 else 8
    short = {0: length, 2: 126, 8: 127}[field_bytes]
    return bytes((first, 0x80 | short)) + (length.to_bytes(field_bytes, "big") if field_bytes else b"")


def frame(first: int, payload: bytes = b"", *, field_bytes: int | None = None) -> bytes:
    """Return a masked frame, whatever its first byte says."""
    masked = bytes(byte ^ KEY[i % 4] for i, byte in enumerate(payload))
    return header(first, len(payload), field_bytes=field_bytes) + KEY + masked


def read(data: bytes, partial: Partial | None = None) -> list[Event]:
    """Return the events of `data`, of which nothing may be left over."""
    events, partial = read_frames(data, partial, LIMITS)
    assert partial is None
    return events


def refusal(data: bytes) -> ProtocolViolation:
    """Return how `data` is refused: at its last byte, and alike in one read and byte by byte."""
    with pytest.raises(ProtocolViolation) as whole:
        read_frames(data, None, LIMITS)
    partial = None
    for byte in data[:-1]:
        _, partial = read_frames(bytes((byte,)), partial, LIMITS)
    with pytest.raises(ProtocolViolation) as last:
        read_frames(data[-1:], partial, LIMITS)
    assert (last.value.code, last.value.reason) == (whole.value.code, whole.value.reason)
    return whole.value


# -- section 5.7, examples --------------------------------------------------------------------------------------------


def test_the_masked_hello_of_section_5_7_is_read():
    assert read(bytes.fromhex("818537fa213d7f9f4d5158")) == [Text(b"Hello")]


def test_the_fragmented_hello_of_section_5_7_is_read():
    assert read(frame(TEXT, b"Hel") + frame(FIN | CONT, b"lo")) == [Text(b"Hello")]


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5, 125, 126, 127, 128, 256, 65_535, 65_536, 70_000])
def test_a_payload_of_any_form_of_length_is_unmasked(length: int):
    payload = bytes(i * 7 % 256 for i in range(length))

    assert read(frame(FIN | BINARY, payload)) == [Binary(payload)]


def test_payloads_are_bytes_however_they_came():
    data = frame(FIN | TEXT, b"one") + frame(TEXT, b"two") + frame(FIN | CONT, b"three") + frame(FIN | PING, b"x")
    events, partial = read_frames(data[:5], None, LIMITS)
    events += read(data[5:], partial)

    assert [type(event.payload) for event in events if not isinstance(event, Close)] == [bytes, bytes, bytes]


def test_frames_of_one_read_are_events_in_their_order():
    data = frame(FIN | PING, b"a") + frame(FIN | TEXT, b"b") + frame(FIN | PONG, b"c") + frame(FIN | BINARY, b"d")

    assert read(data) == [Ping(b"a"), Text(b"b"), Pong(b"c"), Binary(b"d")]


# -- between reads ----------------------------------------------------------------------------------------------------


def test_nothing_is_kept_after_complete_frames():
    assert read_frames(frame(FIN | TEXT, b"hi"), None, LIMITS) == ([Text(b"hi")], None)
    assert read_frames(b"", None, LIMITS) == ([], None)


def test_nothing_is_kept_once_an_unfinished_message_is_complete():
    events, partial = read_frames(frame(TEXT, b"a"), None, LIMITS)
    assert (events, partial is None) == ([], False)

    assert read_frames(frame(FIN | CONT, b"b"), partial, LIMITS) == ([Text(b"ab")], None)


def test_the_beginning_of_the_next_frame_is_kept():
    second = frame(FIN | TEXT, b"second")
    events, partial = read_frames(frame(FIN | TEXT, b"first") + second[:9], None, LIMITS)

    assert events == [Text(b"first")]
    assert read(second[9:], partial) == [Text(b"second")]


# -- sections 5.1 and 5.2, the header ---------------------------------------------------------------------------------


def test_an_unmasked_frame_is_refused():
    assert refusal(bytes((FIN | TEXT, 5))).code == 1002


@pytest.mark.parametrize("bit", [0x40, 0x20, 0x10])
@pytest.mark.parametrize("opcode", [TEXT, PING, CLOSE])
def test_a_reserved_bit_is_refused_at_the_first_byte(bit: int, opcode: int):
    assert refusal(bytes((FIN | bit | opcode,))).code == 1002


@pytest.mark.parametrize("opcode", [0x3, 0x4, 0x5, 0x6, 0x7, 0xB, 0xC, 0xD, 0xE, 0xF])
def test_a_reserved_opcode_is_refused_at_the_first_byte(opcode: int):
    violation = refusal(bytes((FIN | opcode,)))

    assert (violation.code, violation.reason) == (1002, "reserved opcode")


@pytest.mark.parametrize(("length", "field_bytes"), [(0, 2), (125, 2), (0, 8), (126, 8), (65_535, 8)])
def test_a_length_that_is_not_in_its_shortest_form_is_refused(length: int, field_bytes: int):
    assert refusal(header(FIN | TEXT, length, field_bytes=field_bytes)).code == 1002


@pytest.mark.parametrize("length", [2**63, 2**64 - 1])
def test_a_length_with_its_top_bit_set_is_refused(length: int):
    violation = refusal(header(FIN | TEXT, length, field_bytes=8))

    assert (violation.code, violation.reason) == (1002, "length has its top bit set")


# -- section 5.4, fragmentation ---------------------------------------------------------------------------------------


def test_control_frames_are_events_between_the_fragments_of_a_message():
    data = frame(TEXT, b"a") + frame(FIN | PING, b"p") + frame(CONT) + frame(FIN | PONG) + frame(FIN | CONT, b"b")

    assert read(data) == [Ping(b"p"), Pong(b""), Text(b"ab")]


@pytest.mark.parametrize("first", [CONT, FIN | CONT])
def test_a_continuation_of_nothing_is_refused(first: int):
    assert refusal(bytes((first,))).code == 1002
    assert refusal(frame(TEXT, b"a") + frame(FIN | CONT, b"b") + bytes((first,))).events == [Text(b"ab")]


@pytest.mark.parametrize("first", [TEXT, BINARY, FIN | TEXT, FIN | BINARY])
def test_a_message_inside_another_is_refused(first: int):
    assert refusal(frame(TEXT, b"a") + bytes((first,))).code == 1002


# -- section 5.5, control frames --------------------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
def test_a_fragmented_control_frame_is_refused(opcode: int):
    assert refusal(bytes((opcode,))).code == 1002


@pytest.mark.parametrize("opcode", [CLOSE, PING, PONG])
@pytest.mark.parametrize("short", [126, 127])
def test_a_control_frame_above_125_bytes_is_refused_at_its_second_byte(opcode: int, short: int):
    assert refusal(bytes((FIN | opcode, 0x80 | short))).code == 1002


def test_a_control_frame_of_125_bytes_is_read():
    assert read(frame(FIN | PING, b"p" * 125)) == [Ping(b"p" * 125)]


def test_control_frames_do_not_count_as_part_of_the_message_around_them():
    limits = Limits(max_message_bytes=2, max_fragments=2)
    data = frame(TEXT, b"a") + frame(FIN | PING, b"p" * 125) * 3 + frame(FIN | CONT, b"b")

    events, partial = read_frames(data, None, limits)

    assert (events[-1], partial) == (Text(b"ab"), None)


# -- section 5.5.1 and 7.4, Close -------------------------------------------------------------------------------------


def close_payload(code: int, reason: bytes = b"") -> bytes:
    return code.to_bytes(2, "big") + reason


def test_a_close_without_a_code_is_1005():
    events, _ = read_frames(frame(FIN | CLOSE), None, LIMITS)

    assert events == [Close(1005, "")]


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4013, 4999])
def test_a_close_has_a_code_and_a_reason(code: int):
    events, _ = read_frames(frame(FIN | CLOSE, close_payload(code, "tschüß".encode())), None, LIMITS)

    assert events == [Close(code, "tschüß")]


@pytest.mark.parametrize("code", [0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65_535])
def test_a_close_code_that_must_not_be_sent_is_refused(code: int):
    assert refusal(frame(FIN | CLOSE, close_payload(code))).code == 1002


def test_a_close_of_half_a_code_is_refused():
    assert refusal(frame(FIN | CLOSE, b"\x03")).code == 1002


def test_a_close_reason_that_is_not_utf8_is_refused():
    assert refusal(frame(FIN | CLOSE, close_payload(1000, b"\xff"))).code == 1007


def test_what_follows_a_close_is_ignored_in_the_same_read_and_in_later_ones():
    unmasked = b"\x81\x01a"
    events, partial = read_frames(frame(FIN | CLOSE) + unmasked, None, LIMITS)
    assert events == [Close(1005, "")]

    for data in (b"", unmasked, frame(FIN | TEXT, b"late")):
        events, partial = read_frames(data, partial, LIMITS)
        assert events == []


def test_a_close_in_the_middle_of_a_message_ends_it():
    events, partial = read_frames(frame(TEXT, b"a" * 1000) + frame(FIN | CLOSE), None, LIMITS)

    assert events == [Close(1005, "")]
    assert partial is not None
    assert partial.message is None


# -- section 8.1, UTF-8 -----------------------------------------------------------------------------------------------

NOT_UTF8 = [
    pytest.param(b"\x80", id="a lone continuation byte"),
    pytest.param(b"\xc0\xaf", id="an overlong slash"),
    pytest.param(b"\xed\xa0\x80", id="a surrogate"),
    pytest.param(b"\xf4\x90\x80\x80", id="above U+10FFFF"),
    pytest.param(b"\xfe", id="a byte that never occurs"),
]


@pytest.mark.parametrize("text", [*NOT_UTF8, pytest.param("é".encode()[:1], id="a character cut short")])
def test_text_that_is_not_utf8_is_refused(text: bytes):
    assert refusal(frame(FIN | TEXT, b"ok" + text)).code == 1007
    assert refusal(frame(TEXT, b"ok") + frame(FIN | CONT, text)).code == 1007


@pytest.mark.parametrize("text", NOT_UTF8)
def test_a_fragment_that_no_text_can_begin_with_is_refused_before_the_message_ends(text: bytes):
    assert refusal(frame(TEXT, "é".encode()) + frame(CONT, text)).code == 1007


def test_a_character_may_be_cut_between_fragments():
    first, second, third, fourth = (bytes((byte,)) for byte in "😀".encode())
    data = frame(TEXT, first) + frame(CONT, second) + frame(CONT, third) + frame(FIN | CONT, fourth)

    assert read(data) == [Text("😀".encode())]


def test_a_message_that_ends_inside_a_character_is_refused():
    assert refusal(frame(TEXT, b"\xf0\x9f\x98") + frame(FIN | CONT)).code == 1007


def test_a_binary_message_may_hold_anything():
    assert read(frame(BINARY, b"\xff") + frame(FIN | CONT, b"\xfe")) == [Binary(b"\xff\xfe")]


# -- section 10.4, limits ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [70_001, 2**40, 2**63 - 1])
def test_a_message_over_the_limit_is_refused_from_its_header_alone(length: int):
    assert refusal(header(FIN | TEXT, length)).code == 1009


def test_a_short_message_over_a_low_limit_is_refused_from_its_header_alone():
    with pytest.raises(ProtocolViolation) as violation:
        read_frames(header(FIN | TEXT, 11), None, Limits(max_message_bytes=10))

    assert violation.value.code == 1009


def test_fragments_are_refused_once_their_sum_is_over_the_limit():
    half = frame(BINARY, bytes(35_000))

    assert read(half + frame(FIN | CONT, bytes(35_000))) == [Binary(bytes(70_000))]
    assert refusal(half + header(FIN | CONT, 35_001)).code == 1009


def test_one_fragment_more_than_the_limit_is_refused():
    fragments = frame(TEXT) + 2 * frame(CONT)

    assert read(fragments + frame(FIN | CONT)) == [Text(b"")]
    assert refusal(fragments + frame(CONT) + bytes((FIN | CONT, 0x80))).code == 1009


def test_events_before_a_violation_are_not_lost():
    violation = refusal(frame(FIN | TEXT, b"a") + frame(FIN | PING, b"b") + b"\xff")

    assert violation.events == [Text(b"a"), Ping(b"b")]
    assert str(violation) == violation.reason == "reserved bit is set"
