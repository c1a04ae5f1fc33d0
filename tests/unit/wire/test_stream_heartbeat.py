"""Which stream's client is taken for gone: one that has taken nothing for SEND_TIMEOUT_S; over a real socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from shared.edge.delivery.event import Event
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.wire.pool import Pool
from shared.edge.wire.sse import COMMENT, PooledStream
from shared.telemetry.metrics import Metrics
from tests.support.pooled import read_all

HEARTBEAT_S, STUCK_S = 15, 40
LARGE = Event("notification", b'{"x":"%b"}' % (b"x" * 100_000))


class Ended:
    """A session that notes its end."""

    closed = False

    def close(self) -> None:
        self.closed = True


@dataclass
class Line:
    """A stream in a pool, its session, and the peer's end of it."""

    edge: PooledStream
    session: Ended
    peer: socket.socket

    def sweep(self, heartbeats: int) -> None:
        self.edge.sweep(1_000 + heartbeats * HEARTBEAT_S)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    pool = Pool(Metrics(), heartbeat_s=3600)
    pool.start()
    here, peer = socket.socketpair()
    here.setblocking(False)
    peer.setblocking(False)
    edge = PooledStream(pool, here.detach(), OverflowLimits(stuck_s=STUCK_S))
    edge.session = session = Ended()
    pool.adopt(edge)
    yield Line(edge, session, peer)
    pool.close()
    peer.close()


async def test_a_client_that_takes_what_comes_gets_comments_and_stays(line: Line) -> None:
    for heartbeats in range(10):
        line.sweep(heartbeats)
        assert read_all(line.peer, line.edge) == COMMENT

    assert not line.session.closed


async def test_a_client_that_takes_nothing_is_gone_after_the_time_that_was_set(line: Line) -> None:
    while line.edge.congestion is None:
        line.edge.deliver(LARGE)
    for heartbeats in range(3):  # seen stuck at the first; 30 s later it is still borne
        line.sweep(heartbeats)
        assert not line.session.closed
    line.sweep(3)

    assert line.session.closed


async def test_a_client_that_takes_something_now_and_then_stays(line: Line) -> None:
    while line.edge.congestion is None:
        line.edge.deliver(LARGE)
    for heartbeats in range(12):
        line.sweep(heartbeats)
        if heartbeats % 2:
            line.peer.recv(1 << 20)
            line.edge.writable_again()
            line.edge.deliver(LARGE)

    assert not line.session.closed
