"""The broker's port over NATS and JetStream. `shared.broker.port` has the promise; this is where it is kept.

jetstream_client   nats-py's client, thinned
jetstream_parser   what comes from the socket, in bursts
jetstream_inbox    answers to requests
jetstream_link     one connection: send, watch, ask, come back
jetstream_wire     headers
jetstream_log      streams: append, direct get
jetstream_keys     buckets of keys
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from shared.broker import jetstream_wire as wire
from shared.broker.jetstream_inbox import NoResponders
from shared.broker.jetstream_keys import JetStreamKeys
from shared.broker.jetstream_link import ANSWER_TIMEOUT_S, Link
from shared.broker.jetstream_log import JetStreamLog
from shared.broker.metrics import BrokerEvent, BrokerMetrics
from shared.broker.port import NO_HEADERS, Appended, DataHandler, Entry, Handler, Message, Page, Responder, StreamState
from shared.broker.serving import Desk
from shared.contracts import subjects
from shared.errors import FanfareError, Gone, Unavailable

GONE, UNAVAILABLE = "410", "503"


class JetStreamSubscription:
    """One interest on the link; for `serve`, with what is being answered."""

    def __init__(self, link: Link, number: int, desk: Desk | None = None) -> None:
        self._link, self._number, self._desk = link, number, desk

    async def close(self) -> None:
        """End it; what is being answered is cancelled."""
        await self._link.unwatch(self._number)
        if self._desk is not None:
            await self._desk.close()


class JetStreamBroker:
    """`shared.broker.port.Broker` over one link to NATS. Made by `connect`."""

    def __init__(self, link: Link, *, append_deadline_s: float) -> None:
        self._link = link
        self._append_deadline_s = append_deadline_s
        self._log = JetStreamLog(link)
        self._keys = JetStreamKeys(self._log)
        self._desks: list[Desk] = []

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        metrics: BrokerMetrics | None = None,
        timeout_s: float = 30.0,
        append_deadline_s: float = 15.0,
    ) -> JetStreamBroker:
        """Connect to one of `url`'s servers (comma separated, each with user and password where needed).

        Args:
            name: `<service>` or `<service>@<instance>`; the inbox is `_INBOX_<service>`.
            timeout_s: how long to wait for a server that lets us in.
            append_deadline_s: how long `append` goes on trying; a replicated stream may need 7 s for a new leader.

        Raises:
            Unavailable: none did.
        """
        link = await Link.connect(url, name=name, metrics=metrics or BrokerMetrics(), timeout_s=timeout_s)
        return cls(link, append_deadline_s=append_deadline_s)

    # -- ephemeral ------------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Send to whoever listens now; dropped and counted while the link is down."""
        if not await self._link.send(subject, data, headers or None):
            self._link.metrics.count(BrokerEvent.PUBLISH_DROPPED)

    async def subscribe(self, pattern: str, handler: Handler) -> JetStreamSubscription:
        """Call `handler` for each message, in the link's read loop."""
        build = wire.live_message if pattern.startswith(subjects.LIVE) else wire.plain_message

        def receive(subject: bytes, _reply: bytes, data: bytes, raw: bytes | None) -> None:
            handler(build(subject, data, raw))

        return JetStreamSubscription(self._link, await self._link.watch(pattern, receive))

    async def subscribe_data(self, pattern: str, handler: DataHandler) -> JetStreamSubscription:
        """Call `handler` with subject and data, in the link's read loop; no Message is made."""

        def receive(subject: bytes, _reply: bytes, data: bytes, _raw: bytes | None) -> None:
            handler(subject, data)

        return JetStreamSubscription(self._link, await self._link.watch(pattern, receive))

    async def request(self, subject: str, data: bytes, *, timeout_s: float = ANSWER_TIMEOUT_S) -> bytes:
        """Ask whoever serves `subject`. Raises Gone if nobody does, Unavailable if there is no answer."""
        try:
            reply = await self._link.ask(subject, data, timeout_s=timeout_s)
        except NoResponders:
            raise Gone(f"nobody serves {subject}") from None
        headers = wire.parse_headers(reply.raw) if reply.raw else {}
        if code := headers.get(wire.SERVICE_ERROR_CODE):
            text = headers.get(wire.SERVICE_ERROR, "")
            raise Gone(text) if code == GONE else Unavailable(text)
        return reply.data

    async def serve(self, pattern: str, responder: Responder) -> JetStreamSubscription:
        """Answer requests; what cannot be answered is told to who asked (headers of NATS ADR-32)."""
        desk = Desk(responder, self._link.metrics, self._answer)
        self._desks.append(desk)

        def receive(subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
            desk.take(wire.plain_message(subject, data, raw), reply.decode())

        return JetStreamSubscription(self._link, await self._link.watch(pattern, receive), desk)

    # -- stored ---------------------------------------------------------------------------------------------------

    def append(
        self, subject: str, data: bytes, *, msg_id: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> Coroutine[Any, Any, Appended]:
        """Store a message, once for its `msg_id`, through outages of up to `append_deadline_s`."""
        return self._log.store(subject, data, headers, msg_id=msg_id, deadline_s=self._append_deadline_s)

    async def first_seq(self, stream: str, subject: str) -> int:
        """Return the sequence of a subject's oldest message, read from the leader."""
        first = await self._log.first(stream, subject)
        return first.seq if first is not None else 0

    async def last_seq(self, stream: str, subject: str) -> int:
        """Return the sequence of a subject's last message, read from the leader."""
        last = await self._log.last(stream, subject)
        return last.seq if last is not None else 0

    async def read_after(self, stream: str, subject: str, after_seq: int, *, limit: int) -> Page:
        """Return up to `limit` messages with `seq > after_seq`."""
        return await self._log.read_after(stream, subject, after_seq, limit)

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        """Return the last message of each subject or pattern."""
        return await self._log.read_last(stream, subjects)

    async def count_after(self, stream: str, after_seq: int, subject: str = ">") -> int:
        """Return how many messages of a subject or pattern have `seq > after_seq`."""
        return await self._log.count_after(stream, after_seq, subject)

    async def state(self, stream: str) -> StreamState:
        """Return the stream's state."""
        return await self._log.state(stream)

    async def count(self, subject: str, by: int = 1) -> int:
        """Add to a shared counter."""
        return await self._log.add(subject, by)

    async def purge(self, stream: str, subject: str) -> None:
        """Drop all that a stream holds of one subject."""
        await self._log.purge(stream, subject)

    # -- keys -----------------------------------------------------------------------------------------------------

    async def get(self, bucket: str, *tokens: str) -> Entry | None:
        """Return a key's value, read from the leader."""
        return await self._keys.get(bucket, *tokens)

    async def put(
        self, bucket: str, *tokens: str, value: bytes, expect: int | None = None, ttl_s: int | None = None
    ) -> int:
        """Set a key and return its revision."""
        return await self._keys.put(bucket, *tokens, value=value, expect=expect, ttl_s=ttl_s)

    async def delete(self, bucket: str, *tokens: str, expect: int | None = None) -> None:
        """Remove a key."""
        await self._keys.delete(bucket, *tokens, expect=expect)

    # -- life -----------------------------------------------------------------------------------------------------

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the link is lost."""
        self._link.on_lost(callback)

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the link is back."""
        self._link.on_restored(callback)

    async def renew(self) -> None:
        """Give the link up; it comes back by itself, at the next server."""
        await self._link.renew()

    def usable(self) -> bool:
        """Say whether the link is up."""
        return self._link.usable()

    async def check(self) -> None:
        """Ask the server. Raises Unavailable."""
        await self._link.check()

    async def closed(self) -> None:
        """Return when the link is closed for good."""
        await self._link.closed()

    async def close(self) -> None:
        """End what is being answered, send what is pending, and close."""
        for desk in self._desks:
            await desk.close()
        await self._link.close()

    # -- private --------------------------------------------------------------------------------------------------

    async def _answer(self, to: str, data: bytes, why_not: FanfareError | None) -> None:
        if not to:  # sent without a wish for an answer
            return
        headers: dict[str, str] | None = None
        if why_not is not None:
            code = GONE if isinstance(why_not, Gone) else UNAVAILABLE
            headers = {wire.SERVICE_ERROR_CODE: code, wire.SERVICE_ERROR: why_not.message}
        if not await self._link.send(to, data, headers):
            self._link.metrics.count(BrokerEvent.PUBLISH_DROPPED)
