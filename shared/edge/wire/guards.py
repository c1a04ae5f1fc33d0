"""uvicorn's protocol classes with the bounds they lack: header size, time to send a request, ping floods.

uvicorn on httptools accepts a 20 MB header, waits for ever for half a request, and queues any number of them sent at
once; its WebSocket side answers any number of pings to a peer that never reads (design notes, traps 3 to 5).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any, ClassVar

from uvicorn._types import ASGISendEvent
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from shared.edge.wire.handshake import BadHandshake, Handshake, read_handshake, refusal
from shared.edge.wire.head import OWS, is_host

MAX_WRITE_BUFFER_BYTES = 1 << 20
PINGS_PER_S = 10
MAX_FRAGMENTS = 4096
MAX_PIPELINED = 16
PATIENCE_S = 1.0
REFUSED_431 = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain\r\ncontent-length: 0\r\n"
    b"connection: close\r\n\r\n"
)
REFUSED_503 = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
REFUSED_408 = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class HeadTooLarge(Exception):
    """The request line and headers exceed their limit."""


class BadHead(Exception):
    """The request is not of HTTP/1.0 or 1.1, or not addressed to one host."""


class TooManyPipelined(Exception):
    """A client sends one request after another without waiting for an answer."""


class GuardedHttpProtocol(HttpToolsProtocol):
    """One HTTP connection, with a bound on the size and the time of a request's head.

    A service has a subclass of its own, whose attributes are the service's.

    Attributes:
        max_fd: a connection whose descriptor is this or above is refused with 503: the kernel gives the lowest that is
            free, so what is left is for the process itself.
        waiting: connections that wait for a head, each since when, the longest first.
        count_refused: told why, each time that a connection is refused here.
        count_begun: told which way each connection goes that comes by a gate: `direct`, or `uvicorn`.
        after_head: what came with the last request's head in one read.
        first_words: what somebody has read of the connection before it came here.
    """

    max_header_bytes = 64 * 1024
    header_timeout_s = 10.0
    max_fd = sys.maxsize
    waiting: ClassVar[dict[GuardedHttpProtocol, float]] = {}
    count_refused: Callable[[str], None] = staticmethod(lambda _reason: None)
    count_begun: Callable[[str], None] = staticmethod(lambda _way: None)

    after_head = b""
    first_words = b""
    _head_bytes = 0
    _seen = b""
    _reading_head = True
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock: a peer that connects and says nothing is closed too."""
        super().connection_made(transport)
        self._start_head_timer()
        self.waiting[self] = time.monotonic()
        if transport.get_extra_info("socket").fileno() >= self.max_fd:
            self.refuse(REFUSED_503, "descriptors")
            self._make_room()
        elif self.first_words:
            self.data_received(self.first_words)
            self.first_words = b""

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head that is over its limit before it is complete."""
        if self._reading_head:
            self._head_bytes += len(data)
            self._start_head_timer()
            self._note_what_follows(data)
        super().data_received(data)
        if self._reading_head and self._head_bytes > self.max_header_bytes:
            self.refuse(REFUSED_431, "head_too_large")

    def handle_websocket_upgrade(self) -> None:
        """Upgrade, or say why not: with the status that tells the client, whichever library would have read it."""
        try:
            self.upgrade(read_handshake(self.parser.get_method(), self.parser.get_http_version(), self.headers))
        except BadHandshake as error:
            self.refuse(refusal(error.status, error.headers, str(error).encode()), "handshake")

    def upgrade(self, _handshake: Handshake) -> None:
        """Give the connection to uvicorn's WebSocket protocol, and what came in the same read: uvicorn drops it."""
        super().handle_websocket_upgrade()
        if self.after_head:
            self.transport.get_protocol().data_received(self.after_head)  # type: ignore[attr-defined]

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; spaces around its value are no part of it (RFC 9110 section 5.5)."""
        super().on_header(name, value.strip(OWS))

    def on_headers_complete(self) -> None:
        """Start the request, unless the head is over its limit although it came in one read, or not one of HTTP/1."""
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > self.max_header_bytes:
            raise HeadTooLarge  # ends the parser's run; uvicorn then calls send_400_response
        if len(self.pipeline) >= MAX_PIPELINED:
            raise TooManyPipelined
        if not self._is_addressed():
            raise BadHead
        self._reading_head, self._head_bytes = False, 0
        self.waiting.pop(self, None)
        self._stop_head_timer()
        super().on_headers_complete()

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, with the more exact status where the size was the reason."""
        if self._reading_head and self._head_bytes > self.max_header_bytes:
            self.refuse(REFUSED_431, "head_too_large")
        else:
            self.count_refused("bad_request")
            super().send_400_response(msg)

    def on_response_complete(self) -> None:
        """Expect the next request's head on the same connection."""
        if not self.pipeline:
            self._reading_head, self._seen = True, b""
            self.waiting[self] = time.monotonic()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the clock."""
        self._stop_head_timer()
        self.waiting.pop(self, None)
        super().connection_lost(exc)

    def _get_upgrade(self) -> bytes | None:
        """Return what the request would become; uvicorn knows the last header of each name only."""
        options = b",".join(self._values(b"connection")).lower().split(b",")
        if b"upgrade" not in [option.strip(OWS) for option in options]:
            return None
        return b", ".join(self._values(b"upgrade")).lower()

    def _is_addressed(self) -> bool:
        """Whether this is a request of HTTP/1 that names the one host it is for; 1.0 had none to name."""
        version, hosts = self.parser.get_http_version(), self._values(b"host")
        if version == "1.0" and not hosts:
            return True
        return version in ("1.0", "1.1") and len(hosts) == 1 and is_host(hosts[0])

    def _values(self, name: bytes) -> list[bytes]:
        """Return what the headers of one name say: together one list (RFC 9110 section 5.3)."""
        return [value for other, value in self.headers if other == name]

    def _note_what_follows(self, data: bytes) -> None:
        """Keep what follows the head; its end may be torn over two reads."""
        window = self._seen + data
        end = window.find(b"\r\n\r\n")
        self.after_head = window[end + 4 :] if end >= 0 else b""
        self._seen = window[-3:]

    def _start_head_timer(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.header_timeout_s, self._head_too_slow)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_too_slow(self) -> None:
        self.refuse(REFUSED_408 if self._head_bytes else b"", "head_too_slow")

    def _make_room(self) -> None:
        """Close whoever has waited for longest, if it is no honest client's time to send a head."""
        oldest, since_s = next(iter(self.waiting.items()), (None, 0.0))
        if oldest is not None and time.monotonic() - since_s > PATIENCE_S:
            oldest.refuse(b"", "descriptors")

    def refuse(self, answer: bytes, reason: str) -> None:
        """Answer, if there is something to say, and close."""
        self._stop_head_timer()
        self.waiting.pop(self, None)
        self.count_refused(reason)
        if not self.transport.is_closing():
            self.transport.write(answer)
            self.transport.close()


class GuardedWebSocketProtocol(WebSocketsSansIOProtocol):
    """One WebSocket, with a bound on pings, on fragments, and on what is written to a peer that does not read.

    It also answers what uvicorn leaves hanging, a handshake that websockets cannot parse, and logs no traceback for
    what is a client's fault.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pings_left: float = PINGS_PER_S
        self._pinged_at_s = time.monotonic()

    def data_received(self, data: bytes) -> None:
        """Parse, and refuse a head with a line over the 8 KiB that websockets takes."""
        super().data_received(data)
        if self.conn.handshake_exc is not None and not self.handshake_initiated and not self.transport.is_closing():
            self.transport.write(REFUSED_431)
            self.transport.close()

    def send_receive_event_to_app(self) -> None:
        """Pass a message on; text that is not UTF-8 closes with 1007 (RFC 6455 section 8.1)."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_utf8(b"".join(self.frames)):
            self.frames = []
            self.conn.send_close(1007)
            self.handle_parser_exception()
            return
        super().send_receive_event_to_app()

    async def send(self, message: ASGISendEvent) -> None:
        """Send; a connection that was closed here over what its peer did is to the app one that the peer has closed."""
        if self.close_sent:
            raise ClientDisconnected
        await super().send(message)
        if self.close_sent:
            self.handshake_complete = True  # refused is answered too: uvicorn would log an error

    def handle_parser_exception(self) -> None:
        """Close; before the handshake is answered there is no close frame that could say why."""
        if self.conn.close_sent is not None:
            super().handle_parser_exception()
        else:
            self.close_sent = True
            self._abort()

    def handle_ping(self) -> None:
        """Answer a ping unless they come too fast or the answers pile up."""
        now = time.monotonic()
        self._pings_left = min(PINGS_PER_S, self._pings_left + (now - self._pinged_at_s) * PINGS_PER_S) - 1
        self._pinged_at_s = now
        if self._pings_left < 0 or self.transport.get_write_buffer_size() > MAX_WRITE_BUFFER_BYTES:
            self._abort()
            return
        super().handle_ping()

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment, as long as there are not too many: empty ones pass any limit in bytes."""
        if len(self.frames) >= MAX_FRAGMENTS:
            self._abort()
            return
        super().handle_cont(event)

    def _abort(self) -> None:
        self.transport.abort()


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
