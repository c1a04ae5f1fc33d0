"""One link to NATS: connect, send, watch, ask; it comes back by itself or says that it is closed for good.

What is decided here, once, for everything above:

* While the link is down nothing is buffered: `send` answers False, `ask` raises, and the caller decides.
* Bytes that the socket does not take are bounded by `MAX_PENDING_BYTES`; beyond that it is as if the link were down.
* Answers come to one inbox of this process, by token; when the link breaks, whoever waits is told at once.
* A refused permission is a fault of the configuration: it is logged, and `check` fails until the process restarts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import lru_cache

from nats import errors as nats_errors

from shared.broker.jetstream_client import MAX_PENDING_BYTES, ThinClient
from shared.broker.jetstream_inbox import Inbox, IsLast, NotSent, Reply
from shared.broker.jetstream_parser import Receiver
from shared.broker.jetstream_wire import encode_headers
from shared.broker.metrics import BrokerEvent, BrokerMetrics
from shared.contracts.ids import require_id
from shared.errors import BadInput, TooLarge, Unavailable
from shared.telemetry.logs import get_logger

MAX_SUBJECT_CHARS = 512
"""Far below the server's limit on a control line (4,096), which closes the link for good when it is exceeded."""

_SUBJECT = re.compile(r"[^\s.*>]+(?:\.[^\s.*>]+)*")
_PATTERN = re.compile(r"(?:[^\s.*>]+|\*)(?:\.(?:[^\s.*>]+|\*))*(?:\.>)?|>")

ANSWER_TIMEOUT_S = 2.0
RECONNECT_WAIT_S = 0.5  # nats-py's annotation says int; it sleeps for any number
PING_INTERVAL_S = 2
MAX_OUTSTANDING_PINGS = 2


class Link:
    """See the module's docstring. Made by `connect` only."""

    def __init__(self, metrics: BrokerMetrics, inbox: str) -> None:
        self._client, self._metrics = ThinClient(self._handler_failed), metrics
        self._inbox = Inbox(inbox)
        self._up, self._closed = asyncio.Event(), asyncio.Event()
        self._lost: list[Callable[[], None]] = []
        self._restored: list[Callable[[], None]] = []
        self._refusal = self._last_error = ""
        self._log = get_logger()

    @classmethod
    async def connect(cls, url: str, *, name: str, metrics: BrokerMetrics, timeout_s: float) -> Link:
        """Connect to one of `url`'s servers (comma separated).

        Args:
            name: what the server calls this connection, `<service>` or `<service>@<instance>`. The service also
                names the inbox, `_INBOX_<service>`, so that no service may read another's answers.

        Raises:
            Unavailable: no server let us in within `timeout_s`.
        """
        link = cls(metrics, f"_INBOX_{require_id(name.partition('@')[0], 'service')}")
        try:
            async with asyncio.timeout(timeout_s):
                await link._open(url, name)
        except nats_errors.Error as error:
            raise BadInput(f"the NATS address is not valid: {error}") from None
        except (TimeoutError, Unavailable):
            await link.close()
            raise Unavailable(f"no NATS server answered within {timeout_s:g} s: {link._last_error}") from None
        return link

    # -- send and listen ------------------------------------------------------------------------------------------

    async def send(
        self, subject: str, data: bytes, headers: Mapping[str, str] | None = None, *, reply: str = ""
    ) -> bool:
        """Send, and say whether it was: False if the link is down or does not take more.

        Raises:
            BadInput: the subject is not one that can be published to, or a header has no valid name.
            TooLarge: the server would close the link over it.
        """
        if self._post(subject, data, headers, reply):
            return True
        await asyncio.sleep(0)  # the flusher's turn: a burst is no reason to drop, a socket that takes nothing is
        return self._post(subject, data, headers, reply)

    async def watch(self, pattern: str, receive: Receiver) -> int:
        """Call `receive` for each message; the server knows of it when this returns.

        Raises:
            Unavailable: the server did not confirm in time. It is not called then.
        """
        _require(_PATTERN, pattern)
        number = await self._client.add_interest(pattern, receive)
        try:
            await self._confirm()
        except (Unavailable, asyncio.CancelledError):
            await self.unwatch(number)
            raise
        return number

    async def unwatch(self, number: int) -> None:
        """Stop calling the receiver, from this moment on."""
        await self._client.drop_interest(number)

    # -- ask ------------------------------------------------------------------------------------------------------

    async def ask(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> Reply:
        """Send a request and return its answer.

        Raises:
            NotSent: the link is down.
            NoResponders: nobody listens.
            NoAnswer: none came in time, or the link broke meanwhile.
        """
        replies = await self.ask_many(subject, data, headers, timeout_s=timeout_s)
        return replies[0]

    async def ask_many(
        self,
        subject: str,
        data: bytes,
        headers: Mapping[str, str] | None = None,
        *,
        last: IsLast | None = None,
        timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> list[Reply]:
        """Send a request and return its answers, up to and with the one that `last` accepts, by default the first.

        Raises as `ask` does.
        """
        expected = self._inbox.expect(last, timeout_s)
        try:
            reply = self._inbox.address(expected)
            # Each stored message comes this way, and is nearly always taken at once: `send` is for one that is not.
            sent = self._post(subject, data, headers, reply) or await self.send(subject, data, headers, reply=reply)
            if not sent:
                raise NotSent
            return await expected.all
        finally:
            self._inbox.forget(expected)

    # -- life -----------------------------------------------------------------------------------------------------

    @property
    def metrics(self) -> BrokerMetrics:
        """Where this link counts."""
        return self._metrics

    def on_lost(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the link is lost."""
        self._lost.append(callback)

    def on_restored(self, callback: Callable[[], None]) -> None:
        """Call `callback` when the link is back."""
        self._restored.append(callback)

    async def renew(self) -> None:
        """Give this connection up and make the next, with every interest; nothing if that is under way."""
        await self._client.renew()

    def usable(self) -> bool:
        """Say whether the link is up."""
        return bool(self._client.is_connected)

    async def up(self, timeout_s: float) -> bool:
        """Wait until the link is up; False if it is not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    async def check(self) -> None:
        """Ask the server for a sign of life. Raises Unavailable."""
        if self._refusal:
            raise Unavailable(f"NATS refuses a permission: {self._refusal}")
        if not self.usable() or not await self._client.barrier(ANSWER_TIMEOUT_S):
            raise Unavailable("NATS does not answer")

    @property
    def is_closed(self) -> bool:
        """Whether the link is closed for good."""
        return self._closed.is_set()

    async def closed(self) -> None:
        """Return when the link is closed for good."""
        await self._closed.wait()

    async def close(self) -> None:
        """Send what is pending if the server takes it, and close."""
        if not (self.usable() and await self._client.barrier(ANSWER_TIMEOUT_S)):
            self._client.give_up()
        await self._client.close()
        self._inbox.fail_all()

    # -- private --------------------------------------------------------------------------------------------------

    async def _open(self, url: str, name: str) -> None:
        await self._client.connect(
            [server.strip() for server in url.split(",")],
            name=name,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            connect_timeout=2,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]
            max_reconnect_attempts=-1,
            ping_interval=PING_INTERVAL_S,
            max_outstanding_pings=MAX_OUTSTANDING_PINGS,
            # Twice our own bound: nats-py's forced flush, which waits and swallows a cancel, is never reached.
            pending_size=2 * MAX_PENDING_BYTES,
        )
        self._up.set()
        await self.watch(self._inbox.pattern, self._inbox.receive)

    def _post(self, subject: str, data: bytes, headers: Mapping[str, str] | None, reply: str) -> bool:
        """Write a message, if the link is up and takes more; errors as `send`."""
        _require(_SUBJECT, subject)
        block = encode_headers(headers) if headers else b""
        if len(data) + len(block) > self._client.max_payload:
            raise TooLarge("message", self._client.max_payload)
        return self._client.post(subject, reply, block, data)

    async def _confirm(self) -> None:
        """Return when the server has processed all that was sent, if need be after the link is back."""
        if not (await self.up(ANSWER_TIMEOUT_S) and await self._client.barrier(ANSWER_TIMEOUT_S)):
            raise Unavailable("NATS does not confirm")

    def _handler_failed(self, subject: bytes) -> None:
        self._metrics.count(BrokerEvent.HANDLER_FAILED)
        self._log.exception("handler_failed", subject=subject.decode("utf-8", "replace"))

    # nats-py wants coroutines as callbacks, and awaits some of them in its read loop: none of these waits.

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if "permissions violation" in text.lower():
            self._refusal = text
            self._metrics.count(BrokerEvent.PERMISSION_REFUSED)
        if text != self._last_error:  # a server that is away is an error every half second
            self._log.warning("nats_error", error=text)
        self._last_error = text

    async def _on_disconnected(self) -> None:
        self._up.clear()
        self._client.forget_pending()
        self._inbox.fail_all()
        for callback in self._lost:  # at once: the next link may bring messages before the loop turns
            callback()
        if not self._client.is_closed:
            self._metrics.count(BrokerEvent.DISCONNECTED)
            self._log.warning("nats_disconnected")

    async def _on_reconnected(self) -> None:
        self._up.set()
        self._last_error = ""
        self._metrics.count(BrokerEvent.RECONNECTED)
        self._log.info("nats_reconnected")
        for callback in self._restored:
            asyncio.get_running_loop().call_soon(callback)

    async def _on_closed(self) -> None:
        self._metrics.count(BrokerEvent.CLOSED)
        self._inbox.fail_all()
        self._closed.set()


@lru_cache(maxsize=4096)  # most are of a room that was asked for before
def _require(grammar: re.Pattern[str], subject: str) -> None:
    """Refuse what the server would answer by closing the link for good: too long, white space, an empty token."""
    if len(subject) > MAX_SUBJECT_CHARS or not grammar.fullmatch(subject):
        raise BadInput("this is not a subject that can be used here")
