"""A client's connection as a session sees it, and the portable one over ASGI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect

from shared.contracts.close_codes import CloseCode
from shared.edge.delivery.event import Event
from shared.edge.delivery.framing import TEXT
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.wire.outbox import Outbox

CLOSE_TIMEOUT_S = 2.0

OnFrame = Callable[[str | bytes], Awaitable[None]]


class Connection(Protocol):
    """What a session may do with its client."""

    def deliver(self, event: Event) -> None:
        """Write an event, keep it or drop it by its class of back-pressure; never block, never raise."""

    async def writable(self) -> None:
        """Return when most of what was delivered has been taken."""

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Send what waits, then close; further events are dropped."""

    @property
    def closing(self) -> bool:
        """Whether a close is under way."""


class StreamOut(Protocol):
    """What a stream's session may do with its client."""

    def deliver(self, event: Event) -> None:
        """Write an event, keep it or drop it by its class of back-pressure; never block, never raise."""

    async def writable(self) -> None:
        """Return when most of what was delivered has been taken."""

    def close(self) -> None:
        """Send what waits, then end the stream; further events are dropped."""

    @property
    def closing(self) -> bool:
        """Whether the end is under way."""


class AsgiStream:
    """An SSE stream over plain ASGI: one outbox, emptied by whoever iterates over `chunks`."""

    def __init__(self, limits: OverflowLimits, *, named: bool) -> None:
        self._outbox, self._named = Outbox(limits), named

    @property
    def closing(self) -> bool:
        """Whether the end is under way."""
        return self._outbox.closed or self._outbox.overflowed

    def deliver(self, event: Event) -> None:
        """Queue an event; a client too slow for its backlog is ended, and resumes with its cursor."""
        self._outbox.deliver(event)

    async def writable(self) -> None:
        """Return when most of what was delivered has been sent."""
        await self._outbox.writable()

    def close(self) -> None:
        """Send what waits, then end."""
        self._outbox.close()

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what the client is sent, as much at once as waits, until the end."""
        while events := await self._outbox.take():
            yield b"".join(event.to_sse(named=self._named) for event in events)


class AsgiWebSocket:
    """A WebSocket over plain ASGI: any server, any test client; one outbox, one task that empties it."""

    def __init__(self, websocket: WebSocket, limits: OverflowLimits) -> None:
        self._websocket = websocket
        self._outbox = Outbox(limits)
        self._closing = asyncio.Event()
        self._code, self._reason = CloseCode.NORMAL, ""

    @property
    def closing(self) -> bool:
        """Whether a close is under way."""
        return self._closing.is_set()

    def deliver(self, event: Event) -> None:
        """Queue an event; a client too slow for its backlog is closed, and resumes with its cursor."""
        self._outbox.deliver(event)
        if self._outbox.overflowed and not self.closing:
            self.close(CloseCode.TOO_SLOW, "too slow: reconnect with your cursor")

    async def writable(self) -> None:
        """Return when most of what was delivered has been sent."""
        await self._outbox.writable()

    def close(self, code: CloseCode, reason: str = "") -> None:
        """Send what waits, then close; the first call's code counts."""
        if not self.closing:
            self._code, self._reason = code, reason
            self._closing.set()
            self._outbox.close()

    async def run(self, begin: Awaitable[None], on_frame: OnFrame) -> None:
        """Begin, then serve until either side closes. Frames are handled one by one: a flood waits for itself."""
        loop = asyncio.get_running_loop()
        reader = loop.create_task(self._read(begin, on_frame), name="socket-read")
        writer = loop.create_task(self._write(), name="socket-write")
        closing = loop.create_task(self._closing.wait(), name="socket-closing")
        try:
            # Not the writer: it ends as soon as the peer left, and what came before that is still to be handled.
            await asyncio.wait({reader, closing}, return_when=asyncio.FIRST_COMPLETED)
            if not reader.done():
                await asyncio.wait({writer, reader}, timeout=CLOSE_TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer, closing):
                task.cancel()
            results = await asyncio.gather(reader, writer, closing, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
                raise result

    async def _read(self, begin: Awaitable[None], on_frame: OnFrame) -> None:
        await begin
        while True:
            message = await self._websocket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if not self.closing:  # nobody acts any more whose connection is being closed
                await on_frame(text if text is not None else message["bytes"])

    async def _write(self) -> None:
        try:
            while events := await self._outbox.take():
                for event in events:
                    await self._send(event)
            await self._websocket.close(self._code, self._reason)
        finally:
            self._outbox.close()  # lets go a replay that waits for a peer that has left

    async def _send(self, event: Event) -> None:
        if event.opcode == TEXT:
            await self._websocket.send_text(event.frame_payload.decode())
        else:
            await self._websocket.send_bytes(event.frame_payload)
