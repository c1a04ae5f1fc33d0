"""The port to the broker: what a service may ask, and what it is promised.

Three kinds of traffic, each with its own promise:

* **ephemeral** (`publish`, `subscribe`, `request`, `serve`): at most once, in order for one publisher and one
  subject. What nobody listens to is gone. A subscriber hears its own publishes too.
* **stored** (`append`, `read_after`, `read_last`, `first_seq`, `last_seq`, `count`, `purge`): once `append` returned,
  the message is in the stream and every later leader read sees it. A stream may repeat what it stores on
  `live.<subject>`; that repeat is ephemeral, so a reader that must miss nothing compares the chain
  `last_seq -> seq` and reads what is missing.
* **keys** (`get`, `put`, `delete`): last value wins, unless `expect` names the revision that must still hold.

Where one of several servers leads, what asks the leader (`append`, `first_seq`, `last_seq`, `state`, `purge`, `get`,
`put`, `delete`) waits through a change of leader, up to 10 s; a replica that does not answer is not the last to be
asked.

The contract test in `tests/contract` belongs to this file: an adapter that does not pass it is not one.

Errors: `Unavailable` when the broker cannot answer now, `OutcomeUnknown` from `append`, `count`, `put` and `delete`
when it may have stored, `Conflict` from `put` and `delete` when the expected revision no longer holds, `Gone` from
`request` when nobody serves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

NO_HEADERS: Mapping[str, str] = {}


@dataclass(slots=True)
class Message:
    """What a subscriber receives.

    Attributes:
        seq: the stream's sequence of this message; 0 if it was never stored.
        last_seq: the sequence of the message before it on the same subject; 0 if there was none. It may be lower
            than what a reader has seen (after a purge): only `last_seq > cursor` means that something is missing.
            Always 0 on messages that were read (`read_after`, `read_last`).
        time_ms: when the stream stored it, milliseconds since the epoch; 0 if it was never stored.
        gone: on a bucket's changes, the key was deleted or its time was over.
    """

    subject: str
    data: bytes
    headers: Mapping[str, str]
    seq: int = 0
    last_seq: int = 0
    time_ms: int = 0
    gone: bool = False


class Appended(NamedTuple):
    """The broker's word that a message is stored; `duplicate` if its id already was, with the first one's `seq`."""

    seq: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Page:
    """Stored messages of one subject in order; `more` if the stream holds others after the last of them."""

    messages: list[Message]
    more: bool


@dataclass(frozen=True, slots=True)
class StreamState:
    """One life of a stream.

    Attributes:
        epoch: changes when the stream is made anew (1 to 16 characters of `[0-9a-z]`).
        deleted: how many messages between the first and the last the stream has dropped.
    """

    epoch: str
    first_seq: int
    last_seq: int
    deleted: int


@dataclass(frozen=True, slots=True)
class Entry:
    """A key's value; `revision` is what `put` and `delete` take as `expect`."""

    value: bytes
    revision: int


Handler = Callable[[Message], None]
"""Called in the order of arrival, on the event loop; it must not block, and what it raises is counted and logged."""

DataHandler = Callable[[bytes, bytes], None]
"""Called with subject and data, under the same terms as a Handler."""

Responder = Callable[[Message], Awaitable[bytes]]


class Subscription(Protocol):
    """A standing interest."""

    async def close(self) -> None:
        """End it; the handler is not called any more once this returns."""


class Broker(Protocol):
    """See the module's docstring for the promise."""

    # -- ephemeral ------------------------------------------------------------------------------------------------

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Send to whoever listens now. While the broker is away it is dropped and counted, and nothing is raised."""

    async def subscribe(self, pattern: str, handler: Handler) -> Subscription:
        """Call `handler` for each message; the server of this link knows of the interest when this returns.

        Others of its cluster learn of it within the moment that a route takes: what they are sent meanwhile is missed.
        Messages on `live.…` carry `seq`, `last_seq`, `time_ms` and, for keys, `gone`.
        """

    async def subscribe_data(self, pattern: str, handler: DataHandler) -> Subscription:
        """Call `handler` with subject and data alone: for what comes a hundred thousand times a second."""

    async def request(self, subject: str, data: bytes, *, timeout_s: float = 2.0) -> bytes:
        """Ask whoever serves `subject`.

        Raises:
            Gone: nobody does.
            Unavailable: no answer in time.
        """

    async def serve(self, pattern: str, responder: Responder) -> Subscription:
        """Answer requests; each runs as a task of its own, at most 100 at once, the others are refused.

        If the responder raises `Gone`, so does the request; whatever else it raises arrives as `Unavailable`.
        """

    # -- stored ---------------------------------------------------------------------------------------------------

    async def append(
        self, subject: str, data: bytes, *, msg_id: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> Appended:
        """Store a message; repeated with the same `msg_id` within the stream's window it is stored once.

        It is retried with the same id for a few seconds, through a change of leader.

        Raises:
            TooLarge: it exceeds the stream's limit.
            OutcomeUnknown: no answer in time; repeat it with the same `msg_id`.
        """

    async def first_seq(self, stream: str, subject: str) -> int:
        """Return the sequence of the oldest message of `subject`, read from the leader; 0 if there is none."""

    async def last_seq(self, stream: str, subject: str) -> int:
        """Return the sequence of the last message of `subject`, read from the leader; 0 if there is none."""

    async def read_after(self, stream: str, subject: str, after_seq: int, *, limit: int) -> Page:
        """Return up to `limit` messages with `seq > after_seq`. A replica may answer, so the newest may be missing."""

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        """Return the last message of each subject; patterns allowed. A replica may answer."""

    async def count_after(self, stream: str, after_seq: int, subject: str = ">") -> int:
        """Return how many messages of a subject or pattern, by default of all, have `seq > after_seq`.

        It costs one request, whatever it counts. A replica may answer, so the newest may not be counted yet.
        """

    async def state(self, stream: str) -> StreamState:
        """Return the stream's state.

        Raises:
            NotFound: there is no such stream: it was not provisioned.
        """

    async def count(self, subject: str, by: int = 1) -> int:
        """Add to a counter that all processes share and return its new value."""

    async def purge(self, stream: str, subject: str) -> None:
        """Drop all that a stream holds of one subject; no later leader read sees it, and a replica soon does not.

        Repeated, it drops what came since.
        """

    # -- keys -----------------------------------------------------------------------------------------------------

    async def get(self, bucket: str, *tokens: str) -> Entry | None:
        """Return the value of a key, read from the leader; None if it was never set, was deleted or has expired."""

    async def put(
        self, bucket: str, *tokens: str, value: bytes, expect: int | None = None, ttl_s: int | None = None
    ) -> int:
        """Set a key and return its revision.

        Args:
            expect: the revision that must still hold; 0 for a key that must not exist. None: last one wins.
            ttl_s: whole seconds after which it goes by itself; None: it stays.

        Raises:
            Conflict: `expect` does not hold.
            Unavailable: also when the bucket is full, and then at once.
        """

    async def delete(self, bucket: str, *tokens: str, expect: int | None = None) -> None:
        """Remove a key; a key that is not there is no error.

        Raises:
            Conflict: `expect` does not hold.
        """

    # -- life -----------------------------------------------------------------------------------------------------

    def on_disconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the link is lost: before any message that comes when it is back."""

    def on_reconnect(self, callback: Callable[[], None]) -> None:
        """Call `callback` whenever the link was lost and is back: messages may have been missed."""

    async def renew(self) -> None:
        """Make the link anew, every subscription with it, for whoever has reason to think that it is deaf."""

    def usable(self) -> bool:
        """Say whether the link is up now, without asking the server."""

    async def check(self) -> None:
        """Ask the server.

        Raises:
            Unavailable: it does not answer, or the link is closed for good.
        """

    async def closed(self) -> None:
        """Return when the link is closed for good and cannot come back: the process should end."""

    async def close(self) -> None:
        """Send what is pending and close."""
