"""The pool: the descriptors of this process in one epoll set, whose own descriptor is all that the event loop watches.

A connection here is one small object. It has no task, no transport, no queue and no timer; the pool reads for it,
sweeps over all to keep them alive, and tells it when it can be written to again.
"""

from __future__ import annotations

import asyncio
import os
import select
import socket
from typing import Protocol

from shared.clock import Clock, monotonic_s
from shared.edge.wire.ring import SendRing
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

READ_BYTES = 64 * 1024
MAX_EVENTS = 256
SWEEP_STEPS = 100
CLOSE_LINGER_S = 5.0


class Pooled(Protocol):
    """What the pool calls."""

    fd: int

    def readable(self, data: bytes) -> None:
        """Take what came; never raise."""

    def writable_again(self) -> None:
        """Write what waits."""

    def sweep(self, now_s: float) -> None:
        """Once each heartbeat: say something to the peer, or notice that it is gone."""

    def gone(self) -> None:
        """The descriptor is closed; forget it."""


class Pool:
    """Adopts descriptors, reads them in fair turns, and closes them.

    Attributes:
        ring: what broadcasts go through; None where each write is a call of its own.
    """

    def __init__(
        self, metrics: Metrics, *, heartbeat_s: float, ring: SendRing | None = None, clock: Clock = monotonic_s
    ) -> None:
        self.ring = ring
        self._heartbeat_s, self._clock = heartbeat_s, clock
        # Not above: systems that have no epoll import this all the same.
        self._epoll, self._reads, self._writes = select.epoll(), select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT
        # By descriptor: a list costs eight bytes a connection, a dict a hundred.
        self._connections: list[Pooled | None] = []
        self._count = 0
        self._sweep_step = 0
        self._log = get_logger()
        gauge = metrics.gauge("pool_connections", "Connections in this process's epoll set")
        gauge.set_function(self.__len__)
        metrics.gauge("pool_ring", "1 where broadcasts go through io_uring").set(ring is not None)
        self._failed = metrics.counter("pool_failures", "Connections closed because handling them failed")

    def __len__(self) -> int:
        return self._count

    def start(self) -> None:
        """Have the running loop watch the set."""
        asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._ready)

    def close(self) -> None:
        """Close every connection, the set and the ring."""
        for connection in self._connections:
            if connection is not None:
                self.discard(connection)
        if not self._epoll.closed:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
        if self.ring is not None:
            self.ring.close()
            self.ring = None

    def adopt(self, connection: Pooled) -> None:
        """Watch `connection.fd` from now on; one more than the kernel can watch is closed, as if its peer had gone."""
        fd = connection.fd
        if fd >= len(self._connections):
            self._connections.extend([None] * (fd + 64 - len(self._connections)))
        self._connections[fd] = connection
        self._count += 1
        try:
            self._epoll.register(fd, self._reads)
        except OSError as error:  # fs.epoll.max_user_watches, or memory
            self._failed.inc()
            self._log.warning("cannot_watch", error=str(error))
            self.discard(connection)

    def watch(self, connection: Pooled, *, reads: bool, writes: bool) -> None:
        """Wait for what a connection can do something with now; a peer that hung up is always noticed."""
        mask = (self._reads if reads else 0) | (self._writes if writes else 0)
        if self._connections[connection.fd] is connection:
            self._epoll.modify(connection.fd, mask)

    def discard(self, connection: Pooled) -> None:
        """Close a connection; harmless when it is closed already."""
        fd = connection.fd
        if fd < 0 or self._connections[fd] is not connection:
            return
        self._connections[fd] = None
        connection.fd = -1
        self._count -= 1
        os.close(fd)
        connection.gone()

    def discard_soon(self, connection: Pooled) -> None:
        """Close a connection when the caller is done: who delivers goes over a list that closing changes."""
        asyncio.get_running_loop().call_soon(self.discard, connection)

    async def sweep_for_ever(self) -> None:
        """Visit every connection once each heartbeat, some at a time; the owner keeps the task."""
        while True:
            await asyncio.sleep(self._heartbeat_s / SWEEP_STEPS)
            now, step = self._clock(), self._sweep_step
            self._sweep_step = (step + 1) % SWEEP_STEPS
            for connection in self._connections[step::SWEEP_STEPS]:
                if connection is not None:
                    connection.sweep(now)

    # -- private ------------------------------------------------------------------------------------------------------

    def _ready(self) -> None:
        """One read for each that has something: level-triggered, so a talker gets its next turn after all others."""
        for fd, mask in self._epoll.poll(0, MAX_EVENTS):
            # None: it was closed by one that came before it in this very round.
            connection = self._connections[fd]
            if connection is None:
                continue
            try:
                self._serve(connection, fd, mask)
            except Exception:  # noqa: BLE001  # what goes wrong with one connection must not stop the others
                self._failed.inc()
                self._log.exception("connection_failed")
                self.discard(connection)

    def _serve(self, connection: Pooled, fd: int, mask: int) -> None:
        if mask & self._writes:
            connection.writable_again()
        if mask & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR) and connection.fd == fd:
            try:
                data = os.read(fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data:
                connection.readable(data)
            else:
                self.discard(connection)


def write(fd: int, data: bytes) -> int:
    """Write what the socket takes now; 0 if nothing, -1 if the peer is gone."""
    try:
        return os.write(fd, data)
    except BlockingIOError:
        return 0
    except OSError:  # whatever it is: one connection's error must not keep the others from what they are sent
        return -1


def half_close(fd: int) -> None:
    """Send the end of the stream behind all that was written; what the peer still sends can be read."""
    held = socket.socket(fileno=fd)
    try:
        held.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the peer is gone already
    finally:
        held.detach()
