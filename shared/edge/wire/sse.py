"""An SSE stream in the pool: events out as chunks encoded once; whatever comes in is read and forgotten."""

from __future__ import annotations

from typing import ClassVar, Protocol

from shared.edge.delivery.event import Event
from shared.edge.delivery.framing import chunk
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.wire.pool import Pool
from shared.edge.wire.writer import PooledWriter

COMMENT = chunk(b": keep-alive\r\n\r\n")
LAST_CHUNK = b"0\r\n\r\n"


class StreamEnd(Protocol):
    """Whom a pooled stream tells when it is over."""

    def close(self) -> None:
        """The connection is gone."""


class PooledStream(PooledWriter):
    """One client. A peer that has gone without a word is found by the kernel (TCP_USER_TIMEOUT on the listener)."""

    __slots__ = ("_took_at_s", "session")

    named: ClassVar = False

    def __init__(self, pool: Pool, fd: int, limits: OverflowLimits) -> None:
        super().__init__(pool, fd, limits)
        self._took_at_s = 0.0
        self.session: StreamEnd

    # -- what the session calls ---------------------------------------------------------------------------------------

    def encode(self, event: Event) -> bytes:
        """Return the event as a chunk: the same bytes for all who want the same."""
        return event.sse_chunk

    def close(self) -> None:
        """Send what waits, then end the response and the connection."""
        if self.closing or self.fd < 0:
            return
        self.send(LAST_CHUNK)
        self.closing = True
        if self.congestion is None:
            self.finish()

    def too_slow(self) -> None:
        """End the stream: the client resumes with its cursor. What waited is in the stream still."""
        self.closing = True
        self.pool.discard_soon(self)

    def finish(self) -> None:
        """All is written."""
        self.pool.discard_soon(self)

    # -- what the pool calls ------------------------------------------------------------------------------------------

    def readable(self, data: bytes) -> None:
        """A client has nothing to say on an open stream; reading it is how its leaving is noticed."""

    def sweep(self, now_s: float) -> None:
        """Send a comment; a client that has taken nothing of what waits for `stuck_s` is gone."""
        if self.congestion is None:
            self.send(COMMENT)
        elif self.congestion.progressed:
            self.congestion.progressed, self._took_at_s = False, now_s
        elif now_s - self._took_at_s >= self.limits.stuck_s:
            self.pool.discard(self)

    def gone(self) -> None:
        """Tell the session."""
        super().gone()
        self.session.close()


class PooledNamedStream(PooledStream):
    """One whose client asked for events with an `event:` line: a class of its own, since its bytes are others."""

    __slots__ = ()

    named: ClassVar = True

    def encode(self, event: Event) -> bytes:
        """Return the event as a chunk: the same bytes for all who want names."""
        return event.named_chunk
