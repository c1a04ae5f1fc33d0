"""The response of a stream: its head goes out through the server, then it leaves with the descriptor if it can."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.types import Message, Receive, Scope, Send

from shared.edge.wire.handover import EXTENSION, Departed, handover_of
from shared.telemetry.logs import get_logger

OnDeparted = Callable[[Departed], None]


class StreamResponse(EventSourceResponse):
    """sse-starlette's response, with the same head, whichever way the body goes.

    Args:
        content: the body for servers that offer no hand-over.
        on_departed: takes the connection when it has left; None to stay with the server.
    """

    def __init__(self, content: AsyncIterator[bytes], *, on_departed: OnDeparted | None, **options: Any) -> None:
        super().__init__(content, **options)
        self._on_departed = on_departed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then leave or stay."""
        if self._on_departed is None or EXTENSION not in scope.get("extensions", {}):
            await self._stay(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        departed = handover_of(scope)
        if departed is None:
            await self._stay(scope, receive, _after_head(send))
        else:
            self._on_departed(departed)

    async def _stay(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            get_logger().warning("stream_ended", reason="the client takes nothing")


def _after_head(send: Send) -> Send:
    async def rest(message: Message) -> None:
        if message["type"] != "http.response.start":
            await send(message)

    return rest
