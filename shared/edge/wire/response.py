"""The response of a stream: its head goes out through the server, then it leaves with the descriptor if it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from shared.edge.wire.handover import EXTENSION, Departed, handover_of
from shared.telemetry.logs import get_logger

OnDeparted = Callable[[Departed], None]

HEAD: Final[Message] = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"cache-control", b"no-store"),
        (b"connection", b"keep-alive"),
        (b"x-accel-buffering", b"no"),
        (b"content-type", b"text/event-stream; charset=utf-8"),
    ],
}
"""What sse-starlette says; a test holds the two together."""


class StreamResponse(Response):
    """The head of a stream, and then the stream, whichever way it goes.

    Args:
        stay: makes sse-starlette's response, for servers that offer no hand-over.
        on_departed: takes the connection when it has left; None to stay with the server.
    """

    media_type = "text/event-stream"

    def __init__(self, stay: Callable[[], EventSourceResponse], *, on_departed: OnDeparted | None) -> None:
        # Not Starlette's own, which renders a body and headers.
        self._stay, self._on_departed = stay, on_departed
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then leave or stay."""
        if self._on_departed is None or EXTENSION not in scope.get("extensions", {}):
            await self._serve(scope, receive, send)
            return
        await send(HEAD)
        departed = handover_of(scope)
        if departed is None:
            await self._serve(scope, receive, _after_head(send))
        else:
            self._on_departed(departed)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._stay()(scope, receive, send)
        except SendTimeoutError:
            get_logger().warning("stream_ended", reason="the client takes nothing")


def _after_head(send: Send) -> Send:
    async def rest(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return rest
