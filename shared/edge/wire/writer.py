"""Writing to a pooled connection: straight to the socket, and only when that is full through a backlog by class."""

from __future__ import annotations

import asyncio
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from shared.edge.delivery.event import Event, Overflow
from shared.edge.delivery.overflow import Backlog, OverflowLimits
from shared.edge.wire.pool import Pool, write

REFILL_BELOW_BYTES = 64 * 1024
PORTION_BYTES = 128 * 1024
"""Of what waits, as much is made bytes of at a time: about what a socket takes (`UNSENT_BYTES` of the listener)."""


class Congestion:
    """What a full socket has yet to take: the rest of what was begun, a backlog behind it, and last words.

    The backlog stays events, which all who are slow share, until their turn comes.

    Attributes:
        last: follows all that waits; after it nothing is delivered any more.
        progressed: the socket has taken something since the last sweep.
        watched: the pool says when the socket takes more.
    """

    __slots__ = ("backlog", "last", "progressed", "tail", "waiters", "watched")

    def __init__(self, limits: OverflowLimits) -> None:
        self.tail = self.last = b""
        self.backlog = Backlog(limits)
        self.progressed = True
        self.watched = False
        self.waiters: list[asyncio.Future[None]] = []

    @property
    def pending_bytes(self) -> int:
        """How much waits that must not be lost."""
        return len(self.tail) + self.backlog.pending_bytes

    def begin_next(self, encode: Callable[[Event], bytes]) -> None:
        """Add the next portion of what waits to what is begun."""
        self.tail += b"".join(map(encode, self.backlog.take(PORTION_BYTES)))
        if not self.backlog:
            self.tail, self.last = self.tail + self.last, b""


class PooledWriter(ABC):
    """The writing half of a pooled connection; its subclasses know how an event looks on their wire.

    The socket's own buffer is the queue. Only a full one gets a Congestion, and interest in writability.
    """

    __slots__ = ("__weakref__", "closing", "congestion", "fd", "limits", "pool", "reading")

    def __init__(self, pool: Pool, fd: int, limits: OverflowLimits) -> None:
        self.pool, self.fd, self.limits = pool, fd, limits
        self.congestion: Congestion | None = None
        self.closing = False
        self.reading = True

    @abstractmethod
    def encode(self, event: Event) -> bytes:
        """Return the event's bytes on this wire."""

    @abstractmethod
    def too_slow(self) -> None:
        """The backlog is over its bound: close, so that the client resumes with its cursor."""

    @abstractmethod
    def finish(self) -> None:
        """All that waited has been written and the connection is closing."""

    def deliver(self, event: Event) -> None:
        """Write an event, keep it or drop it by its class of back-pressure; never block, never raise."""
        if self.closing or self.fd < 0:
            return
        if self.congestion is not None:
            self._keep(event)
            return
        data = self.encode(event)
        try:
            sent = os.write(self.fd, data)  # not by way of `_send`: most of what is sent to one client passes here
        except OSError:
            self._send(data, event)  # full, or the peer is gone: it finds out which
            return
        if sent != len(data):
            self.wait(data[sent:])

    async def writable(self) -> None:
        """Return when most of what was delivered has been taken."""
        congestion = self.congestion
        if congestion is not None and congestion.pending_bytes > REFILL_BELOW_BYTES:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            congestion.waiters.append(waiter)
            await waiter

    def send(self, data: bytes) -> None:
        """Write bytes that must follow all that was written before them; what has to wait must be the last words."""
        if self.fd < 0:
            return
        if self.congestion is None:
            self._send(data, None)
        else:
            self.congestion.last += data

    def hold(self, first: bytes) -> None:
        """Write `first` together with what follows at once: a client's first frames then cost one write, not several.

        Until `release`, or until the loop comes round: whoever has to wait for something does not hold anything back.
        """
        self.congestion = Congestion(self.limits)
        self.congestion.tail = first
        asyncio.get_running_loop().call_soon(self.release)

    def release(self) -> None:
        """Write what is held; harmless when nothing is."""
        if self.congestion is not None:
            self.congestion.begin_next(self.encode)
            self.writable_again()
        if self.congestion is not None:
            self._watch()

    def writable_again(self) -> None:
        """The socket takes more: write a portion of what waits."""
        congestion = self.congestion
        if congestion is None:
            return
        if not congestion.tail:
            congestion.begin_next(self.encode)
        sent = write(self.fd, congestion.tail)
        if sent < 0:
            self.pool.discard(self)
            return
        congestion.tail = congestion.tail[sent:]
        congestion.progressed = congestion.progressed or sent > 0
        if congestion.pending_bytes <= REFILL_BELOW_BYTES:
            _release(congestion)
        if not congestion.tail and not congestion.backlog and not congestion.last:
            self.congestion = None
            if congestion.watched:
                self._watch()
            if self.closing:
                self.finish()

    def wait(self, rest: bytes, untouched: Event | None = None) -> None:
        """Keep what the socket did not take; an event of which it took nothing waits by its class."""
        self.congestion = Congestion(self.limits)
        if untouched is not None and untouched.overflow is not Overflow.LOSSLESS:
            self.congestion.backlog.put(untouched)
        else:
            self.congestion.tail = rest
        self._watch()

    def keep_rest(self, events: Sequence[Event], sent: int) -> None:
        """Keep what the socket did not take of `events` when it took `sent` bytes of them together."""
        for event in events:
            if self.congestion is not None:
                self.deliver(event)
                continue
            data = self.encode(event)
            if sent < len(data):
                self.wait(data[sent:], None if sent else event)
            sent -= len(data)

    @abstractmethod
    def readable(self, data: bytes) -> None:
        """Take what came."""

    @abstractmethod
    def sweep(self, now_s: float) -> None:
        """Once each heartbeat."""

    def gone(self) -> None:
        """The descriptor is closed: let go whoever waits to write."""
        if self.congestion is not None:
            _release(self.congestion)
            self.congestion = None

    def pause(self) -> None:
        """Read no more until `resume`: the peer waits for itself."""
        self.reading = False
        self._watch()

    def resume(self) -> None:
        """Read again."""
        self.reading = True
        self._watch()

    # -- private ------------------------------------------------------------------------------------------------------

    def _send(self, data: bytes, event: Event | None) -> None:
        sent = write(self.fd, data)
        if sent < 0:
            self.pool.discard_soon(self)
        elif sent != len(data):
            self.wait(data[sent:], event if sent == 0 else None)

    def _keep(self, event: Event) -> None:
        congestion = self.congestion
        if congestion is not None and not congestion.backlog.put(event, len(congestion.tail)):
            self.limits.count_too_slow()
            congestion.backlog.take()  # its cursor brings it again; so the last words come at once, and hold no memory
            self.too_slow()

    def _watch(self) -> None:
        if self.fd >= 0:
            self.pool.watch(self, reads=self.reading, writes=self.congestion is not None)
        if self.congestion is not None:
            self.congestion.watched = True


def _release(congestion: Congestion) -> None:
    for waiter in congestion.waiters:
        if not waiter.done():
            waiter.set_result(None)
    congestion.waiters.clear()
