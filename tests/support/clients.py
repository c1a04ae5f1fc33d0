"""Clients for tests: `websockets` and `httpx-sse`, which know nothing of the suite, with a memory of what they got.

Whatever they receive has to be as the contract says (`contract.py`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from urllib.parse import urlencode

import httpx
from httpx_sse import EventSource
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from shared.contracts.claims import USER_SCOPES
from shared.contracts.ids import new_id
from tests.support.contract import check_event, check_frame
from tests.support.edges import Edge
from tests.support.relay import relayed

DEADLINE_S = 10.0
RELAY = "relay"
"""What a binary message is in an inbox: no frame of the contract has this type."""

Frame = dict[str, Any]
Condition = Callable[[Frame], bool]


class Inbox:
    """Everything that came, in order; a test awaits what it needs and can look at all.

    Args:
        check: raises AssertionError for what breaks the contract.
    """

    def __init__(self, check: Callable[[Frame], None]) -> None:
        self._check = check
        self._broken: AssertionError | None = None
        self.frames: list[Frame] = []
        self._read: dict[str, int] = {}
        self._changed = asyncio.Event()
        self.ended = False

    def put(self, frame: Frame) -> None:
        """Keep a frame; nothing comes behind one that breaks the contract."""
        try:
            self._check(frame)
        except AssertionError as error:
            self._broken = error
            raise
        self.frames.append(frame)
        self._changed.set()

    def end(self) -> None:
        """Note that nothing more comes."""
        self.ended = True
        self._changed.set()

    def of_type(self, type_: str) -> list[Frame]:
        """Return all frames of a type that came so far."""
        return [frame for frame in self.frames if frame["type"] == type_]

    async def next(self, type_: str, condition: Condition = lambda _frame: True) -> Frame:
        """Return the next frame of a type (since the last one of it) that fulfils a condition."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for index in range(self._read.get(type_, 0), len(self.frames)):
                    self._read[type_] = index + 1
                    if self.frames[index]["type"] == type_ and condition(self.frames[index]):
                        return self.frames[index]
                self._expect_more(type_)
                self._changed.clear()
                await self._changed.wait()

    async def until(self, condition: Callable[[Inbox], bool]) -> None:
        """Return once a condition on all that came holds."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition(self):
                self._expect_more("what was awaited")
                self._changed.clear()
                await self._changed.wait()

    def _expect_more(self, what: str) -> None:
        if self._broken is not None:
            raise self._broken
        assert not self.ended, f"it ended before {what} came; got {[frame['type'] for frame in self.frames]}"


def _check_frame(frame: Frame) -> None:
    if frame["type"] != RELAY:
        check_frame(frame)


class ChatClient:
    """One WebSocket client of the chat.

    Attributes:
        reading: cleared, it takes nothing from its socket any more.
    """

    def __init__(self, socket: ClientConnection) -> None:
        self.socket = socket
        self.inbox = Inbox(_check_frame)
        self.reading = asyncio.Event()
        self.reading.set()
        self._reader = asyncio.ensure_future(self._read())

    @property
    def messages(self) -> list[Frame]:
        """The data of all chat messages so far."""
        return [frame["data"] for frame in self.inbox.of_type("chat_message")]

    async def send(self, type_: str, data: Frame | None = None, **more: Any) -> None:
        """Send a frame."""
        await self.socket.send(json.dumps({"type": type_, "data": data or {}, **more}))

    async def say(self, content: str, **data: Any) -> Frame:
        """Send a message and return the data of its ack."""
        given = new_id()[:12]
        await self.send("send_message", {"content": content, **data}, id=given)
        ack = await self.inbox.next("ack", lambda frame: frame.get("id") == given)
        return dict(ack["data"])

    async def hears(self, content: str) -> Frame:
        """Return the data of the next message with this content."""
        frame = await self.inbox.next("chat_message", lambda frame: frame["data"]["content"] == content)
        return dict(frame["data"])

    async def closed(self) -> int:
        """Return the close code once the server has closed."""
        async with asyncio.timeout(DEADLINE_S):
            await self.socket.wait_closed()
            await self._reader
        code = self.socket.close_code
        assert code is not None
        return code

    async def close(self) -> None:
        """Leave."""
        await self.socket.close()
        await self._reader

    async def _read(self) -> None:
        try:
            async for raw in self.socket:
                self.inbox.put({"type": RELAY, "data": relayed(raw)} if isinstance(raw, bytes) else json.loads(raw))
                await self.reading.wait()
        except ConnectionClosed:
            pass
        finally:
            self.inbox.end()


@asynccontextmanager
async def chat_client(
    edge: Edge,
    user: str | None = None,
    *,
    rooms: Sequence[str] = (),
    cursors: Sequence[str] = (),
    greeted: bool = True,
    headers: dict[str, str] | None = None,
    query: Sequence[tuple[str, str]] = (),
    **token: Any,
) -> AsyncIterator[ChatClient]:
    """Connect to an edge, as `user` by bearer token if one is named; waits for `connected` unless told not to."""
    pairs = [("room", room) for room in rooms] + [("cursor", cursor) for cursor in cursors] + list(query)
    all_headers = (edge.headers(user, **token) if user else {}) | (headers or {})
    url = f"{edge.ws_url}/ws/chat?{urlencode(pairs)}"
    async with connect(url, additional_headers=all_headers, max_size=1 << 20, compression=None) as socket:
        client = ChatClient(socket)
        if greeted and user:
            await client.inbox.next("connected")
        try:
            yield client
        finally:
            await client.close()


class StreamClient:
    """One SSE client; `reading` as in ChatClient."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.inbox = Inbox(check_event)
        self.ids: list[str] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self._reader = asyncio.ensure_future(self._read())

    @property
    def last_id(self) -> str:
        """What a browser would send as Last-Event-ID."""
        return self.ids[-1]

    async def next(self, type_: str, condition: Condition = lambda _frame: True) -> Frame:
        """Return the next event of a type that fulfils a condition."""
        return await self.inbox.next(type_, condition)

    async def ended(self) -> None:
        """Return once the server has ended the stream."""
        async with asyncio.timeout(DEADLINE_S):
            await self._reader

    async def close(self) -> None:
        """Leave."""
        self._reader.cancel()
        with suppress(asyncio.CancelledError):
            await self._reader

    async def _read(self) -> None:
        try:
            async for event in EventSource(self.response).aiter_sse():
                if event.data:
                    frame = json.loads(event.data)
                    if event.id and (not self.ids or self.ids[-1] != event.id):
                        self.ids.append(event.id)
                    self.inbox.put(frame | {"_event": event.event, "_id": event.id})
                    await self.reading.wait()
        except httpx.TransportError:
            pass
        finally:
            self.inbox.end()


@asynccontextmanager
async def stream_client(
    edge: Edge,
    user: str,
    *,
    greeted: bool = True,
    last_event_id: str | None = None,
    headers: dict[str, str] | None = None,
    scope: str = USER_SCOPES,
    session: str | None = None,
    ttl_s: int = 600,
    query: dict[str, str] | None = None,
    **more_query: str,
) -> AsyncIterator[StreamClient]:
    """Open a stream as `user`; waits for `connected` unless told not to."""
    params = (query or {}) | more_query
    all_headers = edge.headers(user, scope=scope, session=session, ttl_s=ttl_s) | (headers or {})
    if last_event_id is not None:
        all_headers["last-event-id"] = last_event_id
    async with edge.http.stream("GET", "/api/stream", params=params, headers=all_headers, timeout=None) as response:
        assert response.status_code == 200, await response.aread()
        client = StreamClient(response)
        if greeted:
            await client.next("connected")
        try:
            yield client
        finally:
            await client.close()
