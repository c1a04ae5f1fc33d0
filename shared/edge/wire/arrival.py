"""A connection between its head and its hand-over, when no server has had it: the ASGI app decides.

The ASGI protocol, of HTTP and of WebSocket, as far as it goes for one that is about to leave: refuse, or answer and
take the hand-over at once. Nobody reads meanwhile: what comes waits in the kernel. `upgrade.py` is the same for a
WebSocket whose connection the server has served before.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any

from shared.edge.wire import frames
from shared.edge.wire.handover import EXTENSION, Departed
from shared.edge.wire.handshake import Handshake, Headers, refusal, streaming, switching
from shared.telemetry.logs import get_logger

App = Callable[[Any, Any, Any], Awaitable[None]]
NORMAL = 1000
DRAINED_BYTES = 64 * 1024


class Arrival:
    """One request, of which the app says what becomes of its connection.

    Args:
        handshake: of a WebSocket; None for a stream.
        early: what came behind the head.
        own_headers: of the server, in each answer to an HTTP request.
    """

    __slots__ = ("_answered", "_early", "_handshake", "_head", "_own_headers", "_refused", "_said", "_socket", "_told")

    def __init__(
        self, one: socket.socket, handshake: Handshake | None, early: bytes, own_headers: Headers = ()
    ) -> None:
        self._socket, self._handshake, self._early, self._own_headers = one, handshake, early, own_headers
        self._head = self._refused = self._said = b""
        self._answered: tuple[int, Headers] | None = None
        self._told = False

    async def run(self, app: App, scope: dict[str, Any]) -> None:
        """Ask the app; whatever it does, the connection has left or is closed then."""
        scope["extensions"] = {EXTENSION: self.hand_over, "websocket.http.response": {}}
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError:
            self._answered = HTTPStatus.SERVICE_UNAVAILABLE, ()
            raise
        except Exception:  # noqa: BLE001  # what goes wrong with one connection is logged, and its client answered
            self._answered = None
            get_logger().exception("arrival_failed", path=scope["path"])
        finally:
            if self._socket.fileno() >= 0:
                self._end()

    def hand_over(self) -> Departed | None:
        """Leave with the descriptor; None if the app has not answered that it may."""
        if not self._head:
            return None
        return Departed(self._socket.detach(), self._early, self._head)

    async def receive(self) -> dict[str, Any]:
        """Return the request; there is nothing after it."""
        if self._told:
            raise RuntimeError(f"to go on, take {EXTENSION!r}")
        self._told = True
        if self._handshake is not None:
            return {"type": "websocket.connect"}
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(self, message: dict[str, Any]) -> None:
        """Take the app's answer."""
        kind, headers = message["type"], message.get("headers", ())
        if self._head and self._handshake is not None:
            self._said += frame_of(message)
        elif kind == "websocket.accept" and self._handshake is not None:
            self._head = switching(self._handshake, message.get("subprotocol"), headers)
        elif kind == "websocket.close":
            self._answered = HTTPStatus.FORBIDDEN, ()
        elif kind in ("http.response.start", "websocket.http.response.start"):
            self._answered = message["status"], headers
            if message["status"] == HTTPStatus.OK:
                self._head = streaming([*self._own_headers, *headers])
        elif kind in ("http.response.body", "websocket.http.response.body"):
            self._refused += message.get("body", b"")
        else:
            raise RuntimeError(f"{kind} without {EXTENSION!r}")

    # -- private ------------------------------------------------------------------------------------------------------

    def _end(self) -> None:
        """Say what the app has said instead of leaving: words and a close, or a refusal."""
        if self._said:
            answer(self._socket, self._head + self._said)
            return
        status, headers = self._answered or (HTTPStatus.INTERNAL_SERVER_ERROR, ())
        answer(self._socket, refusal(status, [*self._own_headers, *headers], self._refused))


def frame_of(message: Mapping[str, Any]) -> bytes:
    """Return the frame that an ASGI message of an accepted WebSocket is; raises RuntimeError if it is none."""
    match message:
        case {"type": "websocket.send", "text": str(text)}:
            return frames.encode_text(text.encode())
        case {"type": "websocket.send", "bytes": bytes(data)}:
            return frames.encode_binary(data)
        case {"type": "websocket.close"}:
            return frames.encode_close(message.get("code", NORMAL), message.get("reason") or "")
    raise RuntimeError(f"{message['type']} after the handshake was answered")


def answer(one: socket.socket, response: bytes) -> None:
    """Write a whole response and close."""
    try:
        one.send(response)
        one.recv(DRAINED_BYTES)  # what nobody has read would make the kernel reset, and the client lose the answer
    except OSError:
        pass  # it has gone, or has said nothing more
    one.close()
