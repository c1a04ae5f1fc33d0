"""The codec against `websockets`: the same frames give the same messages, and what it refuses is refused."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st
from websockets import frames as peer
from websockets.frames import Frame, Opcode
from websockets.protocol import SERVER, Protocol

from shared.edge.wire.frames import (
    Binary,
    Close,
    Event,
    Limits,
    Ping,
    Pong,
    ProtocolViolation,
    Text,
    read_frames,
)

LIMITS = Limits(max_message_bytes=300, max_fragments=8)
CONTROLS = {Opcode.PING: Ping, Opcode.PONG: Pong}


@dataclass
class Outcome:
    """What came of some bytes: the events, and the code of the violation that ended them, if one did."""

    events: list[Event]
    violation: int | None


def ours(reads: list[bytes]) -> Outcome:
    """Return what the codec makes of `reads`."""
    events: list[Event] = []
    partial = None
    for data in reads:
        try:
            more, partial = read_frames(data, partial, LIMITS)
        except ProtocolViolation as violation:
            return Outcome(events + violation.events, violation.code)
        events += more
    return Outcome(events, None)


def theirs(data: bytes) -> Outcome:
    """Return what `websockets` makes of `data`."""
    server = Protocol(SERVER, max_size=LIMITS.max_message_bytes)
    server.receive_data(data)
    frames = [event for event in server.events_received() if isinstance(event, Frame)]
    return Outcome(joined(frames), server.close_sent.code if server.parser_exc and server.close_sent else None)


def joined(frames: list[Frame]) -> list[Event]:
    """Return the events of `frames`, with each message in one piece."""
    events: list[Event] = []
    begun: type[Text | Binary] = Text
    pieces: list[bytes] = []
    for frame in frames:
        payload = bytes(frame.data)
        if frame.opcode in CONTROLS:
            events.append(CONTROLS[frame.opcode](payload))
        elif frame.opcode is Opcode.CLOSE:
            close = peer.Close.parse(payload)
            events.append(Close(int(close.code), close.reason))
        else:
            if frame.opcode is not Opcode.CONT:
                begun, pieces = (Text if frame.opcode is Opcode.TEXT else Binary), []
            pieces.append(payload)
            if frame.fin:
                events.append(begun(b"".join(pieces)))
    return events


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return `data` in pieces."""
    borders = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(borders)]


# -- what a peer sends ------------------------------------------------------------------------------------------------

# The first and last characters of 1 to 4 bytes; of all of Unicode, hypothesis would first build a table for seconds.
text = st.text(st.sampled_from("\0a\x7f\x80é\u07ff\u0800€\ud7ff\uffff\U00010000😀\U0010ffff"), max_size=75)
places = st.lists(st.integers(0, 5000), max_size=30)
controls = st.builds(Frame, st.sampled_from([Opcode.PING, Opcode.PONG]), st.binary(max_size=125))


@st.composite
def closes(draw: st.DrawFn) -> Frame:
    code = draw(st.sampled_from([1000, 1001, 1009, 1012, 3000, 4013, 4999]))
    return Frame(Opcode.CLOSE, draw(st.sampled_from([b"", peer.Close(code, draw(text)[:30]).serialize()])))


@st.composite
def messages(draw: st.DrawFn) -> list[Frame]:
    """A message in up to 8 fragments, with control frames between them."""
    opcode = draw(st.sampled_from([Opcode.TEXT, Opcode.BINARY]))
    payload = draw(text).encode() if opcode is Opcode.TEXT else draw(st.binary(max_size=300))
    pieces = cut(payload, draw(st.lists(st.integers(0, 300), max_size=7)))
    frames: list[Frame] = []
    for i, piece in enumerate(pieces):
        frames.append(Frame(opcode if i == 0 else Opcode.CONT, piece, fin=i == len(pieces) - 1))
        frames += draw(st.lists(controls, max_size=1))
    return frames


@st.composite
def conversations(draw: st.DrawFn) -> bytes:
    """Messages and control frames, and perhaps a Close with more behind it."""
    parts = draw(st.lists(messages() | controls.map(lambda frame: [frame]), max_size=6))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), [draw(closes())])
    return b"".join(frame.serialize(mask=True) for part in parts for frame in part)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A conversation of which a few bytes were changed, lost or added."""
    data = bytearray(draw(conversations()))
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        data[place : place + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(data)


# -- the claims -------------------------------------------------------------------------------------------------------


@settings(deadline=None)  # a busy machine is no failure
@given(conversations(), places)
def test_any_frames_cut_anywhere_give_the_messages_that_websockets_reads(data: bytes, where: list[int]):
    assert ours(cut(data, where)) == theirs(data) == ours([data])


@settings(deadline=None)
@given(conversations())
def test_frames_that_come_byte_by_byte_give_the_same_messages(data: bytes):
    assert ours([bytes((byte,)) for byte in data]) == theirs(data)


@settings(deadline=None)
@given(st.binary(max_size=400) | damaged(), places)
def test_any_bytes_are_read_or_refused_alike_wherever_they_are_cut(data: bytes, where: list[int]):
    assert ours(cut(data, where)) == ours([data])


@settings(deadline=None)
@given(damaged())
def test_what_websockets_refuses_is_refused_and_nothing_else_is_read(data: bytes):
    """Ours refuses more (text that is not UTF-8, too many fragments, lengths too long) and sooner, never less."""
    mine, other = ours([data]), theirs(data)

    if mine.violation is None:
        assert mine == other
    else:
        assert mine.events == other.events[: len(mine.events)]
