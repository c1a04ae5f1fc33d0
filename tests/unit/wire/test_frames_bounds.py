"""What a hostile peer can make the codec hold, and what it can make it do."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.frames import Frame, Opcode

from shared.edge.wire.frames import Limits, Partial, ProtocolViolation, Text, read_frames

READ_BYTES = 65_536
EMPTY_FRAGMENT = Frame(Opcode.CONT, b"", fin=False).serialize(mask=True)
FIRST_FRAGMENT = Frame(Opcode.TEXT, b"", fin=False).serialize(mask=True)


@contextmanager
def at_most(max_bytes: int) -> Iterator[None]:
    """Fail if what is allocated inside ever exceeds `max_bytes`."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] <= max_bytes
    finally:
        tracemalloc.stop()


def send(data: bytes, limits: Limits, *, read_bytes: int, partial: Partial | None = None) -> Partial | None:
    """Deliver `data` in reads of `read_bytes`; return what is left over."""
    for start in range(0, len(data), read_bytes):
        _, partial = read_frames(data[start : start + read_bytes], partial, limits)
    return partial


def test_300_000_empty_fragments_are_refused_at_the_limit():
    limits = Limits(max_message_bytes=65_536)

    partial = send(FIRST_FRAGMENT + EMPTY_FRAGMENT * 4095, limits, read_bytes=READ_BYTES)

    with pytest.raises(ProtocolViolation) as violation:
        send(EMPTY_FRAGMENT * 300_000, limits, read_bytes=READ_BYTES, partial=partial)
    assert violation.value.code == 1009


def test_empty_fragments_cost_no_memory_even_where_they_are_allowed():
    limits = Limits(max_message_bytes=65_536, max_fragments=1_000_000)
    data = FIRST_FRAGMENT + EMPTY_FRAGMENT * 30_000

    with at_most(30_000):
        partial = send(data, limits, read_bytes=4096)

    assert partial is not None
    assert partial.message is not None
    assert partial.message.fragments == 30_001


def test_an_unfinished_message_holds_no_more_than_its_limit_and_a_header():
    limits = Limits(max_message_bytes=10_000)
    first = Frame(Opcode.BINARY, bytes(4000), fin=False).serialize(mask=True)
    second = Frame(Opcode.CONT, bytes(6000)).serialize(mask=True)

    partial = send(first + second[:-1], limits, read_bytes=997)

    assert partial is not None
    assert partial.message is not None
    assert len(partial.message.payload) + len(partial.unparsed) <= limits.max_message_bytes + 14


def test_a_declared_length_allocates_nothing():
    with at_most(8192):
        _, partial = read_frames(b"\x81\xff" + (2**30).to_bytes(8, "big"), None, Limits(max_message_bytes=2**31))

    assert partial is not None


def test_64_kib_that_come_byte_by_byte_are_held_once_and_twice_while_their_buffer_grows():
    payload = b"x" * 65_536
    data = Frame(Opcode.TEXT, payload).serialize(mask=True)
    limits = Limits(max_message_bytes=65_536)

    with at_most(len(data) * 9 // 4):
        partial = send(data[:-1], limits, read_bytes=1)

    assert read_frames(data[-1:], partial, limits) == ([Text(payload)], None)


def test_bytes_that_come_one_by_one_cost_the_same_each():
    """Eight times the bytes may take at most twenty times as long; copied with each byte, it would be over forty."""

    def cost_s(length: int) -> float:
        data = Frame(Opcode.BINARY, bytes(length)).serialize(mask=True)
        begin = time.process_time()
        send(data, Limits(max_message_bytes=length), read_bytes=1)
        return time.process_time() - begin

    assert cost_s(262_144) < 20 * cost_s(32_768)
