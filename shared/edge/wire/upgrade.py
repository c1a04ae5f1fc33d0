"""A connection between its WebSocket handshake and its hand-over: the ASGI app decides, and what comes meanwhile waits.

uvicorn parses the request a second time and keeps a parser, a queue and timers for each WebSocket; a connection that
is about to leave the server needs none of it. This is the ASGI WebSocket protocol as far as such a one goes: accept or
refuse, then take the hand-over, or say something and close. To read frames from it an app must take the hand-over;
where that cannot be had (TLS in this process), uvicorn's own protocol serves (`http_protocol.py`).
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote

import httptools
from uvicorn._types import ASGIReceiveEvent, ASGISendEvent, WebSocketScope
from uvicorn.protocols.utils import ClientDisconnected

from shared.contracts.close_codes import CloseCode
from shared.edge.wire.arrival import frame_of
from shared.edge.wire.guards import GuardedHttpProtocol
from shared.edge.wire.handover import EXTENSION, Departed, can_leave, depart
from shared.edge.wire.handshake import BadHandshake, Handshake, refusal, switching
from shared.telemetry.logs import get_logger

MAX_EARLY_BYTES = 64 * 1024
GONE = 1006


class Upgrade(asyncio.Protocol):
    """One WebSocket until it leaves the server."""

    def __init__(self, http: GuardedHttpProtocol, handshake: Handshake, early: bytes) -> None:
        self._http, self._transport, self._handshake = http, http.transport, handshake
        self._early = bytearray(early)
        self._unsent = b""
        self._refusal: tuple[int, list[tuple[bytes, bytes]]] | None = None
        self._refusal_body = b""
        self._connected = self._answered = self._accepted = self._left = False
        self._gone: asyncio.Future[None] = http.loop.create_future()

    def start(self) -> None:
        """Take the connection over from the HTTP protocol and run the app.

        Raises:
            BadHandshake: the request's target is no path.
        """
        scope = self._scope()
        self._http.connections.add(self)  # type: ignore[arg-type]  # uvicorn asks for shutdown() only
        self._transport.set_protocol(self)
        task = self._http.loop.create_task(self._run(scope), name="upgrade")
        self._http.tasks.add(task)
        task.add_done_callback(self._http.tasks.discard)

    def hand_over(self) -> Departed | None:
        """Leave with the descriptor; None if the client is gone, or let go since there are no descriptors left."""
        if not self._accepted or not can_leave(self._transport):
            self._transport.abort()
            return None
        try:
            departed = depart(self._transport, bytes(self._early), self._http.max_fd)
        except OSError:
            self._http.count_refused("descriptors")
            self._say({"type": "websocket.close", "code": CloseCode.RATE_LIMITED, "reason": "this edge is full"})
            return None
        self._left = True
        return departed._replace(unsent=self._unsent)

    # -- what the app calls -------------------------------------------------------------------------------------------

    async def receive(self) -> ASGIReceiveEvent:
        """Return the request to connect, and then that the client has gone."""
        if not self._connected:
            self._connected = True
            return {"type": "websocket.connect"}
        if self._accepted and not self._transport.is_closing():
            raise RuntimeError(f"to read frames, take {EXTENSION!r}")
        await self._gone
        return {"type": "websocket.disconnect", "code": GONE}

    async def send(self, message: ASGISendEvent) -> None:
        """Answer the handshake; after that, a frame."""
        if self._gone.done() or self._transport.is_closing():
            raise ClientDisconnected
        if self._answered:
            self._say(cast("dict[str, Any]", message))
        else:
            self._answer(cast("dict[str, Any]", message))

    # -- what the loop and the server call ----------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Keep bytes for the connection's next owner; a client that sends much before that waits."""
        self._early += data
        if len(self._early) > MAX_EARLY_BYTES:
            self._transport.pause_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection; for one that has left, nothing is lost."""
        self._http.connections.discard(self)
        if not self._gone.done():
            self._gone.set_result(None)

    def shutdown(self) -> None:
        """The server stops: so does this."""
        if not self._answered:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE)
        self._transport.close()

    # -- private ------------------------------------------------------------------------------------------------------

    async def _run(self, scope: WebSocketScope) -> None:
        try:
            await self._http.app(scope, self.receive, self.send)
        except ClientDisconnected:
            pass
        except Exception:  # noqa: BLE001  # what goes wrong with one connection is logged, and its client answered
            get_logger().exception("websocket_failed", path=scope["path"])
        finally:
            if not self._answered:
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR)
            if not self._left:
                self._flush()
                self._transport.close()

    def _answer(self, message: dict[str, Any]) -> None:
        kind, headers = message["type"], list(message.get("headers", ()))
        if kind == "websocket.accept":
            accepted = switching(self._handshake, message.get("subprotocol"), headers)
            self._answered = self._accepted = True
            # Whoever takes the hand-over at once writes this together with what it has to say first.
            self._unsent = accepted
            self._http.loop.call_soon(self._flush)
        elif kind == "websocket.close":
            self._refuse(HTTPStatus.FORBIDDEN)
        elif kind == "websocket.http.response.start" and self._refusal is None:
            self._refusal = message["status"], headers
        elif kind == "websocket.http.response.body" and self._refusal is not None:
            self._refusal_body += message.get("body", b"")
            if not message.get("more_body", False):
                self._refuse(*self._refusal, self._refusal_body)
        else:
            raise RuntimeError(f"the handshake is not answered with {kind}")

    def _flush(self) -> None:
        if self._unsent and not self._left and not self._transport.is_closing():
            self._transport.write(self._unsent)
        self._unsent = b""

    def _say(self, message: dict[str, Any]) -> None:
        self._flush()
        self._transport.write(frame_of(message))
        if message["type"] == "websocket.close":
            self._transport.close()

    def _refuse(self, status: int, headers: list[tuple[bytes, bytes]] | None = None, body: bytes = b"") -> None:
        self._answered = True
        if not self._transport.is_closing():
            self._transport.write(refusal(status, headers or [], body))
            self._transport.close()

    def _scope(self) -> WebSocketScope:
        http = self._http
        try:
            url = httptools.parse_url(http.url)
            path = url.path.decode("ascii")
        except (httptools.HttpParserInvalidURLError, UnicodeDecodeError) as error:
            raise BadHandshake(HTTPStatus.BAD_REQUEST, "the target is no path") from error
        return {
            "type": "websocket",
            "asgi": {"version": http.asgi_version, "spec_version": "2.4"},
            "http_version": "1.1",
            "scheme": "ws",
            "server": http.server,
            "client": http.client,
            "root_path": http.root_path,
            "path": http.root_path + (unquote(path) if "%" in path else path),
            "raw_path": http.root_path.encode("ascii") + url.path,
            "query_string": url.query or b"",
            "headers": http.headers,
            "subprotocols": list(self._handshake.subprotocols),
            "state": http.app_state.copy(),
            "extensions": {"websocket.http.response": {}, EXTENSION: self.hand_over},  # type: ignore[dict-item]
        }
