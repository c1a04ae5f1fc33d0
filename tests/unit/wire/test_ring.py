"""The ring: what is sent through it arrives as if each had been written to alone, and who did not take it is known."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.edge.wire import ring as ring_module
from shared.edge.wire.ring import MAX_BYTES, RingRefused, SendRing
from tests.support.pooled import open_ring

SMALL = 8
"""Entries of the ring under test: what is sent goes round it, and in several calls."""


class Ends:
    """Connections: where the ring sends, and what arrives at the other end."""

    def __init__(self, count: int, stack: ExitStack) -> None:
        pairs = [socket.socketpair() for _ in range(count)]
        self.here, self.there = [list(ends) for ends in zip(*pairs, strict=True)]
        for end in (*self.here, *self.there):
            end.setblocking(False)
            stack.enter_context(end)
        self.fds = [end.fileno() for end in self.here]

    def fill(self, index: int) -> None:
        """Leave no room at all in a socket."""
        try:
            while True:
                self.here[index].send(b"x" * 4096)
        except BlockingIOError:
            pass

    def received(self) -> list[bytes]:
        return [_read(end) for end in self.there]


def _read(end: socket.socket) -> bytes:
    found = b""
    try:
        while data := end.recv(1 << 20):
            found += data
    except BlockingIOError:
        pass
    return found


@pytest.fixture
def ring() -> Iterator[SendRing]:
    ring = open_ring(SMALL)
    yield ring
    ring.close()


@pytest.fixture
def ends() -> Iterator[Callable[[int], Ends]]:
    with ExitStack() as stack:
        yield lambda count: Ends(count, stack)


@settings(max_examples=50)
@given(
    rounds=st.lists(st.lists(st.integers(0, 3 * SMALL), max_size=4), max_size=4),
    size=st.integers(1, 20_000),
)
def test_each_has_its_own_bytes_however_they_fall_on_the_ring(rounds: list[list[int]], size: int) -> None:
    ring = open_ring(SMALL)
    with ExitStack() as stack:
        stack.callback(ring.close)
        for volley in rounds:
            ends = Ends(sum(volley) + 1, stack)
            left = iter(ends.fds)
            shots = [([next(left) for _ in range(count)], b"%d" % number * size) for number, count in enumerate(volley)]

            assert ring.send(shots) == []
            assert ends.received()[:-1] == [data for fds, data in shots for _ in fds]


def test_who_has_no_room_is_gone_or_closed_is_named_and_the_others_have_it(
    ring: SendRing, ends: Callable[[int], Ends]
) -> None:
    crowd = ends(3 * SMALL)
    crowd.fill(0)
    crowd.there[5].close()
    crowd.fds[2 * SMALL] = -1
    shorts = ring.send([(crowd.fds[:SMALL], b"first"), (crowd.fds[SMALL:], b"second")])

    assert sorted(shorts) == [(0, 0), (5, 0), (2 * SMALL, 0)]
    for index, end in enumerate(crowd.there):
        if index not in {0, 5, 2 * SMALL}:
            assert _read(end) == (b"first" if index < SMALL else b"second")


def test_who_takes_a_part_says_how_much(ring: SendRing, ends: Callable[[int], Ends]) -> None:
    crowd, data = ends(3), os.urandom(MAX_BYTES)
    crowd.here[1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
    (short,) = ring.send([(crowd.fds, data)])

    assert short.place == 1
    assert 0 < short.sent < len(data)
    assert crowd.received() == [data, data[: short.sent], data]


def test_one_answer_has_nothing_of_the_one_before(ring: SendRing, ends: Callable[[int], Ends]) -> None:
    crowd = ends(2 * SMALL)
    crowd.fill(3)
    for _ in range(2):
        assert ring.send([(crowd.fds, b"x")]) == [(3, 0)]
    assert ring.send([(crowd.fds[4:], b"x")]) == []


def test_what_the_kernel_had_no_memory_for_is_not_sent_later(
    ring: SendRing, ends: Callable[[int], Ends], monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd, enter = ends(5), ring._enter

    def carry_out_some(number: int, fd: int, count: int, *rest: int) -> int:
        return enter(number, fd, 2, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(ring, "_enter", carry_out_some)
        assert ring.send([(crowd.fds, b"lost")]) == [(2, 0), (3, 0), (4, 0)]
        patch.setattr(ring, "_enter", lambda *_: -1)
        assert ring.send([(crowd.fds[:2], b"lost")]) == [(0, 0), (1, 0)]
    assert ring.send([(crowd.fds, b"sent now")]) == []

    assert crowd.received() == [b"lostsent now"] * 2 + [b"sent now"] * 3


def test_nothing_of_a_call_that_went_wrong_goes_out_later(ring: SendRing, ends: Callable[[int], Ends]) -> None:
    crowd = ends(2)
    with pytest.raises(OverflowError):
        ring.send([(crowd.fds[:1], b"lost"), ([1 << 40], b"lost")])  # no descriptor at all
    ring.send([(crowd.fds[1:], b"sent")])

    assert crowd.received() == [b"", b"sent"]


def test_nobody_takes_what_is_sent_after_its_end(ring: SendRing, ends: Callable[[int], Ends]) -> None:
    crowd = ends(3)
    ring.close()
    ring.close()

    assert ring.send([(crowd.fds, b"x")]) == [(0, 0), (1, 0), (2, 0)]
    assert crowd.received() == [b"", b"", b""]


def test_a_ring_that_is_closed_and_forgotten_holds_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        open_ring().close()

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_policy_that_forbids_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(*_: Any) -> int:
        ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(ring_module, "_system_call", lambda *_: forbid)
    with pytest.raises(RingRefused, match="Operation not permitted"):
        SendRing()


@pytest.mark.usefixtures("ring")
@pytest.mark.parametrize("flags", [socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT, socket.MSG_NOSIGNAL])
def test_a_kernel_that_tells_nothing_of_a_part_or_waits_for_room_is_refused(
    flags: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = len(os.listdir("/proc/self/fd"))
    monkeypatch.setattr(ring_module, "_SEND_FLAGS", flags)
    with pytest.raises(RingRefused, match="sends differ"):
        SendRing()

    assert len(os.listdir("/proc/self/fd")) == before
