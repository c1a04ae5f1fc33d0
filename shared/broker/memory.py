"""The broker's port inside one process, for unit tests and as the second opinion of the contract test."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from shared.broker.memory_server import MSG_ID, Interest, MemoryServer, Stream
from shared.broker.metrics import BrokerEvent, BrokerMetrics
from shared.broker.port import NO_HEADERS, Appended, DataHandler, Entry, Handler, Message, Page, Responder, StreamState
from shared.broker.serving import Desk
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.errors import FanfareError, Gone, Unavailable
from shared.telemetry.logs import get_logger

__all__ = ["MemoryBroker", "MemoryServer"]

_REPLY_TO = "Fanfare-Reply-To"


class MemorySubscription:
    """One interest; for `serve`, with what is being answered."""

    def __init__(self, server: MemoryServer, interest: Interest, desk: Desk | None = None) -> None:
        self._server, self._interest, self._desk = server, interest, desk

    async def close(self) -> None:
        """End it."""
        self._server.remove(self._interest)
        if self._desk is not None:
            await self._desk.close()


class MemoryBroker:
    """`shared.broker.port.Broker` over a `MemoryServer`; brokers that meet share one."""

    def __init__(self, server: MemoryServer | None = None, *, metrics: BrokerMetrics | None = None) -> None:
        self._server = server or MemoryServer()
        self._metrics = metrics or BrokerMetrics()
        self._subscriptions: list[MemorySubscription] = []
        self._closed = asyncio.Event()
        self._log = get_logger()

    # -- ephemeral ------------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Send to whoever listens now; a stream that keeps the subject stores it."""
        if not self.usable():
            self._metrics.count(BrokerEvent.PUBLISH_DROPPED)
            return
        stream = self._server.stream_of(subject)
        if stream is not None:
            self._server.store(stream, subject, data, headers, msg_id=headers.get(MSG_ID))
        else:
            self._server.send(Message(subject, data, dict(headers)))

    async def subscribe(self, pattern: str, handler: Handler) -> MemorySubscription:
        """Call `handler` for each message."""
        self._require_usable()

        def deliver(message: Message) -> None:
            try:
                handler(message)
            except Exception:  # noqa: BLE001 - whatever a handler raises, the other handlers go on
                self._metrics.count(BrokerEvent.HANDLER_FAILED)
                self._log.exception("handler_failed", subject=message.subject)

        return self._subscription(pattern, deliver)

    async def subscribe_data(self, pattern: str, handler: DataHandler) -> MemorySubscription:
        """Call `handler` with subject and data."""
        return await self.subscribe(pattern, lambda message: handler(message.subject.encode(), message.data))

    async def request(self, subject: str, data: bytes, *, timeout_s: float = 2.0) -> bytes:
        """Ask whoever serves `subject`."""
        self._require_usable()
        reply_to = new_id()
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        inbox = self._server.add(reply_to, _answer_to(answer))
        try:
            if not self._server.send(Message(subject, data, {_REPLY_TO: reply_to})):
                raise Gone(f"nobody serves {subject}")
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise Unavailable(f"no answer within {timeout_s:g} s") from None
        finally:
            self._server.remove(inbox)

    async def serve(self, pattern: str, responder: Responder) -> MemorySubscription:
        """Answer requests."""
        self._require_usable()
        desk = Desk(responder, self._metrics, self._answer)
        return self._subscription(pattern, lambda message: desk.take(message, message.headers.get(_REPLY_TO, "")), desk)

    # -- stored ---------------------------------------------------------------------------------------------------

    async def append(
        self, subject: str, data: bytes, *, msg_id: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> Appended:
        """Store a message. Listeners hear it before this returns, as they do with JetStream."""
        self._require_usable()
        stream = self._server.stream_of(subject)
        if stream is None:
            raise Unavailable(f"no stream keeps {subject}")
        appended = self._server.store(stream, subject, data, {**headers, MSG_ID: msg_id}, msg_id=msg_id)
        await asyncio.sleep(0)
        return appended

    async def first_seq(self, stream: str, subject: str) -> int:
        """Return the sequence of a subject's oldest message."""
        found = self._stream(stream).find(subject)
        return found[0].seq if found else 0

    async def last_seq(self, stream: str, subject: str) -> int:
        """Return the sequence of a subject's last message."""
        last = self._stream(stream).last(subject)
        return last.seq if last else 0

    async def read_after(self, stream: str, subject: str, after_seq: int, *, limit: int) -> Page:
        """Return up to `limit` messages with `seq > after_seq`."""
        found = self._stream(stream).find(subject, after_seq)
        return Page([replace(message) for message in found[:limit]], more=len(found) > limit)

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        """Return the last message of each subject or pattern."""
        kept = self._stream(stream)
        last = {message.subject: message for pattern in subjects for message in kept.find(pattern)}
        return [replace(message) for message in last.values()]

    async def count_after(self, stream: str, after_seq: int, subject: str = ">") -> int:
        """Return how many messages of a subject or pattern have `seq > after_seq`."""
        return len(self._stream(stream).find(subject, after_seq))

    async def state(self, stream: str) -> StreamState:
        """Return the stream's state."""
        self._require_usable()
        return self._server.state(stream)

    async def count(self, subject: str, by: int = 1) -> int:
        """Add to a shared counter."""
        self._require_usable()
        return self._server.count(subject, by)

    async def purge(self, stream: str, subject: str) -> None:
        """Drop all that a stream holds of one subject."""
        self._require_usable()
        self._server.purge(stream, subject)

    # -- keys -----------------------------------------------------------------------------------------------------

    async def get(self, bucket: str, *tokens: str) -> Entry | None:
        """Return a key's value."""
        self._require_usable()
        message = self._server.key(bucket, subjects.bucket_key(bucket, *tokens))
        return Entry(message.data, message.seq) if message else None

    async def put(
        self, bucket: str, *tokens: str, value: bytes, expect: int | None = None, ttl_s: int | None = None
    ) -> int:
        """Set a key and return its revision."""
        self._require_usable()
        return self._server.put(bucket, subjects.bucket_key(bucket, *tokens), value, expect, ttl_s)

    async def delete(self, bucket: str, *tokens: str, expect: int | None = None) -> None:
        """Remove a key."""
        self._require_usable()
        self._server.delete(bucket, subjects.bucket_key(bucket, *tokens), expect)

    # -- life -----------------------------------------------------------------------------------------------------

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the server goes away."""
        self._server.disconnected.append(callback)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the server was away and is back."""
        self._server.reconnected.append(callback)

    async def renew(self) -> None:
        """Nothing: a link in memory is never deaf."""

    def usable(self) -> bool:
        """Say whether the server is there."""
        return self._server.up and not self._closed.is_set()

    async def check(self) -> None:
        """Raise Unavailable unless the server is there."""
        self._require_usable()

    async def closed(self) -> None:
        """Return when this broker was closed."""
        await self._closed.wait()

    async def close(self) -> None:
        """End every subscription."""
        for subscription in self._subscriptions:
            await subscription.close()
        self._closed.set()

    # -- private --------------------------------------------------------------------------------------------------

    def _subscription(
        self, pattern: str, deliver: Callable[[Message], None], desk: Desk | None = None
    ) -> MemorySubscription:
        subscription = MemorySubscription(self._server, self._server.add(pattern, deliver), desk)
        self._subscriptions.append(subscription)
        return subscription

    def _stream(self, name: str) -> Stream:
        self._require_usable()
        return self._server.stream(name)

    def _require_usable(self) -> None:
        if not self.usable():
            raise Unavailable("the broker is away")

    async def _answer(self, reply_to: str, data: bytes, why_not: FanfareError | None) -> None:
        headers = {}
        if why_not is not None:
            headers = {"gone" if isinstance(why_not, Gone) else "unavailable": why_not.message}
        if reply_to:
            self._server.send(Message(reply_to, data, headers))


def _answer_to(answer: asyncio.Future[bytes]) -> Callable[[Message], None]:
    def deliver(message: Message) -> None:
        if answer.done():
            return
        if "gone" in message.headers:
            answer.set_exception(Gone(message.headers["gone"]))
        elif "unavailable" in message.headers:
            answer.set_exception(Unavailable(message.headers["unavailable"]))
        else:
            answer.set_result(message.data)

    return deliver
