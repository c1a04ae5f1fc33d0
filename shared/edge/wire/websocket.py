"""A WebSocket in the pool: frames in to a session, events out as frames encoded once."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Protocol

from shared.contracts.close_codes import CloseCode
from shared.edge.delivery.event import Event
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.pauses import Pauses
from shared.edge.timers import Wheel
from shared.edge.wire import frames
from shared.edge.wire.handover import Departed
from shared.edge.wire.pool import CLOSE_LINGER_S, Pool, half_close
from shared.edge.wire.writer import PooledWriter
from shared.errors import FanfareError, TooLarge
from shared.tasks import TaskKeeper

MAX_PINGS_PER_HEARTBEAT = 250
MAX_MESSAGE_HEARTBEATS = 2
TOO_BIG = 1009
PING = frames.encode_ping()


class FrameSession(Protocol):
    """What a pooled WebSocket drives."""

    async def receive(self, raw: str | bytes) -> None:
        """Perform one frame."""

    def end(self, error: FanfareError) -> None:
        """Tell the client why, and close if that error ends a connection."""

    def close(self) -> None:
        """The connection is gone."""


@dataclass(frozen=True, slots=True)
class SocketContext:
    """What all WebSockets of a process share; one reference in each instead of five."""

    pool: Pool
    limits: OverflowLimits
    frame_limits: frames.Limits
    tasks: TaskKeeper
    wheel: Wheel


class PooledWebSocket(PooledWriter):
    """One client. Idle, it is this object and nothing else.

    Frames are handled one by one by a task that lives only while there are some. When another comes meanwhile, nothing
    more is read, so a client that floods waits for itself.
    """

    __slots__ = ("_broken", "_context", "_heard", "_inbound", "_partial", "_pings", "session")

    def __init__(self, context: SocketContext, fd: int) -> None:
        super().__init__(context.pool, fd, context.limits)
        self._context = context
        self._partial: frames.Partial | None = None
        self._inbound: deque[bytes] | None = None
        self._heard = True
        self._broken = False
        self._pings = 0
        self.session: FrameSession

    async def begin(self, work: Coroutine[Any, Any, None], departed: Departed) -> None:
        """Join the pool; do `work` first, then what came with the handshake and what comes meanwhile."""
        self._inbound = deque()
        self.pool.adopt(self)
        if departed.early:
            self.send(departed.unsent)
            self.readable(departed.early)
        else:
            self.hold(departed.unsent)
        await self._work(work)

    # -- what the session calls ---------------------------------------------------------------------------------------

    def encode(self, event: Event) -> bytes:
        """Return the event as a frame; the same bytes for every connection."""
        return event.ws_frame

    def close(self, code: CloseCode | int, reason: str = "") -> None:
        """Send what waits, then the close frame; the peer has CLOSE_LINGER_S to answer, and is not heard any more."""
        if self.closing or self.fd < 0:
            return
        if self._inbound:
            self._inbound.clear()
        self.send(frames.encode_close(code, reason))
        self.closing = True
        self._context.wheel.after(CLOSE_LINGER_S, self._give_up)

    def too_slow(self) -> None:
        """Close with the code that says: come back with your cursor."""
        self.close(CloseCode.TOO_SLOW, "too slow: reconnect with your cursor")

    def finish(self) -> None:
        """Wait for the peer's close frame, which the linger bounds; none can be told after a violation."""
        if self._broken:
            self._end_writing()

    # -- what the pool calls ------------------------------------------------------------------------------------------

    def readable(self, data: bytes) -> None:
        """Decode what came; messages queue for the session, control frames are answered at once."""
        if self._broken:
            return  # after a violation nothing that follows is framed
        try:
            events, self._partial = frames.read_frames(data, self._partial, self._context.frame_limits)
        except frames.ProtocolViolation as violation:
            self._partial, self._broken = None, True
            self._take(violation.events)
            if violation.code == TOO_BIG:
                self.session.end(TooLarge("frame", self._context.frame_limits.max_message_bytes))
            self.close(violation.code, violation.reason)
            self._end_writing()
            return
        if events:
            self._heard = True  # bytes that never make a frame keep nobody alive
        self._take(events)

    def sweep(self, now_s: float) -> None:
        """Ping; a peer that does not answer is gone, and one that never ends its message goes."""
        if not self._lives:
            self.pool.discard(self)
            return
        if self._partial is not None and self._partial.grow_older() > MAX_MESSAGE_HEARTBEATS:
            self.close(1008, "a message was begun and not ended")
        self._pings = 0
        if self.congestion is not None:
            self.congestion.progressed = False
        elif not self.closing:
            self._heard = False
            self.send(PING)

    def resume(self) -> None:
        """Read again; a peer cannot be blamed for its silence while nobody listened."""
        self._heard = True
        super().resume()

    def gone(self) -> None:
        """Tell the session, once it is through with the frame that it handles: it must not join what it just left."""
        super().gone()
        if self._inbound is None:
            self.session.close()
        else:
            self._inbound.clear()

    # -- private ------------------------------------------------------------------------------------------------------

    @property
    def _lives(self) -> bool:
        """Whether the peer takes what waits for it, or else has said something since it was asked."""
        if self.congestion is not None:
            return self.congestion.progressed
        return self._heard or not self.reading

    def _take(self, events: list[frames.Event]) -> None:
        for event in events:
            if self.fd < 0:
                return
            match event:
                case frames.Text(payload=payload) | frames.Binary(payload=payload):
                    self._queue(payload)
                case frames.Ping(payload=payload):
                    self._pong(payload)
                case frames.Close(code=code):
                    self._peer_closed(code)
                    return
                case frames.Pong():
                    self._count_ping()

    def _queue(self, payload: bytes) -> None:
        if self.closing:
            return
        if self._inbound is None:
            self._inbound = deque((payload,))
            self._context.tasks.spawn(self._work(None), "socket-frames")
        else:
            self._inbound.append(payload)
            if self.reading:
                self.pause()

    async def _work(self, first: Coroutine[Any, Any, None] | None) -> None:
        try:
            if first is not None:
                await first
            pauses: Pauses | None = None
            while self._inbound:
                await self.session.receive(self._inbound.popleft())
                if self._inbound:  # a read may hold thousands, and what refuses them may wait for nothing
                    pauses = pauses or Pauses()
                    await pauses.when_due()
        except BaseException:
            # The task keeper logs it; a session in an unknown state serves nobody.
            self._rest()
            self.pool.discard(self)
            raise
        self._rest()
        if self._partial is not None and self._partial.closed:
            self.pool.discard(self)
        elif self.fd >= 0 and not self.reading:
            self.resume()

    def _end_writing(self) -> None:
        """Let the peer see the end at once: its own close cannot be told any more from what broke the protocol."""
        if self.fd >= 0 and self.congestion is None:
            half_close(self.fd)

    def _rest(self) -> None:
        self._inbound = None
        if self.fd < 0:
            self.session.close()

    def _pong(self, payload: bytes) -> None:
        """Answer, unless the answers pile up or the questions come too fast."""
        self._count_ping()
        if self.congestion is None and not self.closing:
            self.send(frames.encode_pong(payload))

    def _count_ping(self) -> None:
        """Count a ping, or a pong that nobody may have asked for."""
        self._pings += 1
        if self._pings > MAX_PINGS_PER_HEARTBEAT:
            self.close(1008, "too many pings")
            self.pool.discard(self)

    def _peer_closed(self, code: int) -> None:
        """Answer; what the peer sent before its close is handled still, and then the connection goes."""
        if not self.closing:
            self.send(frames.encode_close(1000 if code == 1005 else code))
            self.closing = True
        if self._inbound is None:
            self.pool.discard(self)

    def _give_up(self) -> None:
        self.pool.discard(self)
