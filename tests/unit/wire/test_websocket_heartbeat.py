"""Who is taken for gone: whoever was asked and is silent, or takes nothing of what waits; over a real socket."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from shared.contracts.close_codes import CloseCode
from shared.edge.delivery.event import Event
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.pauses import TURN_S
from shared.edge.timers import Wheel
from shared.edge.wire import frames
from shared.edge.wire.pool import Pool
from shared.edge.wire.websocket import PING, PooledWebSocket, SocketContext
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics
from tests.support.pooled import read_all
from tests.support.waiting import eventually

PONG = b"\x8a\x80" + bytes(4)
LARGE = Event("chat_message", b'{"x":"%b"}' % (b"x" * 100_000))


class Ended:
    """A session that notes its end."""

    def __init__(self) -> None:
        self.closed = False

    async def receive(self, raw: str | bytes) -> None:
        """No frame comes to it here."""

    def end(self, error: FanfareError) -> None:
        """Nothing goes wrong here."""

    def close(self) -> None:
        self.closed = True


@dataclass
class Line:
    """A WebSocket in a pool, its session, and the peer's end of it."""

    edge: PooledWebSocket
    session: Ended
    peer: socket.socket
    too_slow: list[None]

    def congest(self) -> None:
        while self.edge.congestion is None:
            self.edge.deliver(LARGE)

    def read_all(self) -> bytes:
        return read_all(self.peer, self.edge)


@pytest.fixture
async def line() -> AsyncIterator[Line]:
    pool, tasks, wheel = Pool(Metrics(), heartbeat_s=3600), TaskKeeper(), Wheel()
    pool.start()
    too_slow: list[None] = []
    limits = OverflowLimits(lossless_bytes=1_000_000, count_too_slow=lambda: too_slow.append(None))
    here, peer = socket.socketpair()
    here.setblocking(False)
    peer.setblocking(False)
    context = SocketContext(pool, limits, frames.Limits(max_message_bytes=65_536), tasks, wheel)
    edge = PooledWebSocket(context, here.detach())
    edge.session = session = Ended()
    pool.adopt(edge)
    yield Line(edge, session, peer, too_slow)
    pool.close()
    peer.close()
    await tasks.close()


async def test_a_peer_that_was_asked_and_is_silent_is_gone(line: Line) -> None:
    line.edge.sweep(0)
    assert line.read_all() == PING
    line.edge.sweep(0)

    assert line.session.closed


async def test_a_peer_that_answers_stays(line: Line) -> None:
    for _ in range(3):
        line.edge.sweep(0)
        line.peer.send(PONG)
        await eventually(lambda: line.edge._heard)

    assert not line.session.closed


async def test_a_peer_that_was_not_asked_since_its_socket_was_full_is_not_gone(line: Line) -> None:
    line.congest()
    line.edge.sweep(0)
    line.read_all()
    line.edge.sweep(0)

    assert not line.session.closed
    assert line.read_all() == PING


async def test_a_peer_that_was_asked_and_still_takes_what_lies_before_the_ping_is_not_gone(line: Line) -> None:
    line.edge.sweep(0)
    line.congest()
    line.edge.deliver(LARGE)
    line.peer.recv(1 << 20)
    line.edge.writable_again()
    line.edge.sweep(0)

    assert not line.session.closed


async def test_a_peer_that_takes_nothing_of_what_waits_is_gone(line: Line) -> None:
    line.congest()
    line.edge.sweep(0)
    line.edge.sweep(0)

    assert line.session.closed


async def test_a_peer_whose_answer_nobody_read_is_not_gone(line: Line) -> None:
    line.edge.pause()
    line.edge.sweep(0)
    line.peer.send(PONG)
    line.edge.resume()
    line.edge.sweep(0)

    assert not line.session.closed


async def test_whoever_is_closed_over_a_full_backlog_is_counted_once(line: Line) -> None:
    for _ in range(30):
        line.edge.deliver(LARGE)

    assert line.edge.closing
    assert len(line.too_slow) == 1


async def test_one_that_is_too_slow_hears_so_behind_what_was_begun_and_not_behind_all_that_waits(
    line: Line,
) -> None:
    while not line.edge.closing:
        line.edge.deliver(LARGE)
    whole, _, close = line.read_all().rpartition(LARGE.ws_frame)

    assert close == frames.encode_close(CloseCode.TOO_SLOW, "too slow: reconnect with your cursor")
    assert len(whole) < line.edge.limits.lossless_bytes / 2


async def test_thousands_of_frames_in_one_read_hold_nobody_up_though_none_waits_for_anything(line: Line) -> None:
    handled, turns = [], 0

    async def busy(raw: str | bytes) -> None:
        handled.append(raw)
        until_s = time.perf_counter() + 0.0005
        while time.perf_counter() < until_s:
            pass

    line.session.receive = busy  # type: ignore[method-assign]
    line.edge.readable(b"\x82\x81\0\0\0\0x" * 200)
    while len(handled) < 200:
        turns += 1
        await asyncio.sleep(0)

    assert turns > 200 * 0.0005 / TURN_S / 2
