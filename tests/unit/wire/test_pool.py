"""What the pool does with a descriptor that the kernel does not watch; a plain file is one that epoll never takes."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.edge.delivery.event import Event
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.timers import Wheel
from shared.edge.wire import frames
from shared.edge.wire.handover import Departed
from shared.edge.wire.pool import Pool
from shared.edge.wire.sse import PooledStream
from shared.edge.wire.websocket import PooledWebSocket, SocketContext
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

LIMITS = OverflowLimits(lossless_bytes=1_000)
EVENT = Event("chat_message", b"{}")


class Ended:
    """A session that counts its ends."""

    closed = 0

    async def receive(self, raw: str | bytes) -> None:
        """No frame comes."""

    def end(self, error: FanfareError) -> None:
        """Nothing is wrong with a frame."""

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(Metrics(), heartbeat_s=3600)
    pool.start()
    yield pool
    pool.close()


@pytest.fixture
def fd(tmp_path: Path) -> int:
    return os.open(tmp_path / "plain", os.O_RDWR | os.O_CREAT)


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


async def test_a_stream_that_cannot_be_watched_is_closed_and_told(pool: Pool, fd: int) -> None:
    stream = PooledStream(pool, fd, LIMITS)
    stream.session = session = Ended()
    pool.adopt(stream)
    stream.deliver(EVENT)

    assert (session.closed, stream.fd, len(pool), is_open(fd)) == (1, -1, 0, False)


@pytest.mark.parametrize("early", [b"", b"\x89\x80key!"])
async def test_a_websocket_that_cannot_be_watched_is_closed_and_its_session_ends_once(
    pool: Pool, fd: int, early: bytes
) -> None:
    tasks = TaskKeeper()
    socket = PooledWebSocket(SocketContext(pool, LIMITS, frames.Limits(max_message_bytes=100), tasks, Wheel()), fd)
    socket.session = session = Ended()

    async def greet() -> None:
        socket.deliver(EVENT)

    await socket.begin(greet(), Departed(fd, early, b"head"))
    await tasks.close()

    assert (session.closed, socket.fd, len(pool), is_open(fd)) == (1, -1, 0, False)
