"""Hand-over: after the handshake a connection leaves uvicorn, its transport and its task, as a bare descriptor.

uvicorn lets a service name its own protocol classes; these put a callable into
`scope["extensions"]["fanfare.handover"]`. An endpoint authenticates and accepts in plain FastAPI, calls it, gives what
it gets to the pool, and returns. Where the extension is missing (another server, a test client, TLS in this process)
the endpoint goes on over ASGI.

What has to hold, each with a test: the response's head is on the wire before the descriptor leaves; bytes that came
with or right after the handshake go with it; the descriptor is duplicated before the transport is aborted, so that no
FIN is sent; nothing of the scope, the request or the task stays behind.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

from uvicorn.server import ServerState
from websockets.http11 import Request

from shared.edge.wire.guards import GuardedHttpProtocol, GuardedWebSocketProtocol

EXTENSION = "fanfare.handover"
MAX_EARLY_BYTES = 64 * 1024


class Departed(NamedTuple):
    """A connection that has left uvicorn.

    Attributes:
        fd: its descriptor, non-blocking; the taker closes it.
        early: what the client has sent already and nobody has read.
    """

    fd: int
    early: bytes


HandOver = Callable[[], Departed | None]
"""Take the connection out of uvicorn; None if it cannot be now, and the endpoint goes on over ASGI."""


def handover_of(scope: Mapping[str, Any]) -> Departed | None:
    """Take a connection out of its server, if that can be done."""
    hand_over = cast("HandOver | None", scope.get("extensions", {}).get(EXTENSION))
    return hand_over() if hand_over is not None else None


class HandOverHttpProtocol(GuardedHttpProtocol):
    """uvicorn's HTTP protocol, offering the hand-over once a response's head has been sent."""

    def on_message_begin(self) -> None:
        """Offer the extension with each request."""
        super().on_message_begin()
        cast("dict[str, Any]", self.scope)["extensions"] = {EXTENSION: self.hand_over}

    def hand_over(self) -> Departed | None:
        """Leave with the descriptor; see the module."""
        cycle = self.cycle
        chunked = cycle.response_started and cycle.chunked_encoding and self.scope["http_version"] == "1.1"
        if not chunked or not _can_leave(self.transport):
            return None
        departed = _depart(self.transport, b"")
        cycle.response_complete = True
        cycle.on_response = lambda: None
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        return departed


class HandOverWebSocketProtocol(GuardedWebSocketProtocol):
    """uvicorn's WebSocket protocol, offering the hand-over once the handshake has been answered."""

    def __init__(self, config: Any, server_state: ServerState, app_state: dict[str, Any], _loop: Any = None) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._early: bytearray | None = None
        self._left = False

    def handle_connect(self, event: Request) -> None:
        """Offer the extension, and hold back what comes before the endpoint has decided."""
        super().handle_connect(event)
        if hasattr(self, "scope"):
            cast("dict[str, Any]", self.scope)["extensions"][EXTENSION] = self.hand_over
            self._early = bytearray()

    def data_received(self, data: bytes) -> None:
        """Keep bytes until the connection leaves or stays; a client that sends much before that waits."""
        if self._early is None:
            super().data_received(data)
            return
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES:
            self.transport.pause_reading()

    async def receive(self) -> Any:
        """Hand a message to an endpoint; one that asks for more than the handshake stays, and gets what was kept."""
        if self._early is not None and self.handshake_complete:
            self._stay()
        return await super().receive()

    def hand_over(self) -> Departed | None:
        """Leave with the descriptor, or stay; see the module."""
        if not self.handshake_complete or not _can_leave(self.transport):
            self._stay()
            return None
        early, self._early = bytes(self._early or b""), None
        self._left = True
        self.stop_keepalive()
        return _depart(self.transport, early)

    def _stay(self) -> None:
        early, self._early = bytes(self._early or b""), None
        if not self.transport.is_closing():
            self.transport.resume_reading()
        if early:
            super().data_received(early)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; for one that has left, nothing is lost."""
        if not self._left:
            super().connection_lost(exc)
            return
        self.connections.discard(self)
        self.disconnected = self.handshake_complete = True


def _can_leave(transport: Any) -> bool:
    """Whether all that was written is on the wire and nothing stands between us and the socket."""
    encrypted = transport.get_extra_info("sslcontext") is not None
    return not encrypted and not transport.is_closing() and transport.get_write_buffer_size() == 0


def _depart(transport: Any, early: bytes) -> Departed:
    held: socket.socket = transport.get_extra_info("socket")
    fd = os.dup(held.fileno())
    os.set_blocking(fd, False)
    transport.abort()
    return Departed(fd, early)
