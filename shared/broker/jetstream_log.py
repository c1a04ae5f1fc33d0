"""Streams over JetStream: append, and read without consumers, by direct get (ADR 0003).

Batch and multi-subject direct get (NATS ADR-31) are not in nats-py; they are one request with many answers.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from pydantic_core import from_json

from shared.broker import jetstream_wire as wire
from shared.broker.jetstream_inbox import NoAnswer, NoResponders, Reply
from shared.broker.jetstream_link import ANSWER_TIMEOUT_S, Link
from shared.broker.metrics import BrokerEvent
from shared.broker.port import Appended, Message, Page, StreamState
from shared.contracts.cursor import base36, tag
from shared.contracts.streams import MAX_MESSAGE_BYTES
from shared.errors import BadInput, Conflict, FanfareError, NotFound, OutcomeUnknown, TooLarge, Unavailable

BATCH_MESSAGES = 500
BATCH_BYTES = 1 << 20
"""Direct get has no flow control, so a batch is small enough for any buffer on its way."""

BATCH_TIMEOUT_S = 3.0

PAGE_SUBJECTS = 1_000
PAGE_SUBJECT_BYTES = 32 * 1024
"""Subjects in one `multi_last` request: the server allows 1,024 that match and 64 KiB of request."""

MAX_SCAN = 100_000
"""Messages read for one pattern that matches too many subjects for `multi_last`."""

RETRY_PAUSE_S = 0.2

READ_DEADLINE_S = 10.0
"""How long a read waits for somebody who answers: a new leader takes 4 to 7 s."""

_API = "$JS.API"
_MESSAGE_NOT_FOUND, _TOO_MANY_RESULTS = 404, 413
_NO_MESSAGE = 10037


Read = TypeVar("Read")


class TooManySubjects(Unavailable):
    """The patterns match more subjects than the server gives at once."""


class StoreFull(Unavailable):
    """The stream holds as much as it may, and forgets nothing to take more."""


class JetStreamLog:
    """Stored messages, by way of one link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    # -- write ----------------------------------------------------------------------------------------------------

    async def store(
        self, subject: str, data: bytes, headers: Mapping[str, str], *, msg_id: str, deadline_s: float
    ) -> Appended:
        """Store a message, repeating it with the same id through outages for up to `deadline_s`.

        Raises:
            BadInput, Conflict, NotFound, TooLarge: the server refuses it for good.
            OutcomeUnknown: no answer in time, and it may have been stored.
            Unavailable: no answer in time, and it was never accepted.
        """
        headers = {**headers, wire.MSG_ID: msg_id}
        until_s = time.monotonic() + deadline_s
        last_error: Unavailable | None = None
        while (left_s := until_s - time.monotonic()) > 0:
            if last_error is not None:
                self._link.metrics.count(BrokerEvent.RETRIED)
            try:
                timeout_s = min(left_s, ANSWER_TIMEOUT_S)
                return _appended(await self._link.ask_many(subject, data, headers, timeout_s=timeout_s), subject)
            except StoreFull:
                raise
            except Unavailable as error:
                # An answer that was lost stays the news: what came after it cannot undo a message that was stored.
                last_error = last_error if isinstance(last_error, OutcomeUnknown) else error
            await self._pause(until_s, last_error)
        raise last_error or Unavailable("no time to store it")

    async def add(self, subject: str, by: int) -> int:
        """Add to a counter, once: an addition has no id, so it is not repeated. Raises as `store` does."""
        reply = await self._link.ask(subject, b"", {wire.INCREMENT: f"{by:+d}"})
        return int(_require(from_json(reply.data), subject)["val"])

    async def purge(self, stream: str, subject: str) -> None:
        """Drop all that a stream holds of one subject, through a change of leader."""
        request = {"filter": subject}
        answer = await self._patiently(lambda: self._api(f"STREAM.PURGE.{stream}", request))
        _require(answer, f"stream {stream}")

    # -- read from the leader -------------------------------------------------------------------------------------

    async def first(self, stream: str, subject: str) -> Message | None:
        """Return the oldest message of a subject; None if there is none."""
        return await self._patiently(lambda: self._one(stream, subject, {"seq": 1, "next_by_subj": subject}))

    async def last(self, stream: str, subject: str) -> Message | None:
        """Return the last message of a subject, a key's marker among them; None if there is none."""
        return await self._patiently(lambda: self._one(stream, subject, {"last_by_subj": subject}))

    async def state(self, stream: str) -> StreamState:
        """Return the stream's state; its epoch is when it was made, and an operator's bump (`metadata.epoch`)."""
        return await self._patiently(lambda: self._state(stream))

    async def _one(self, stream: str, subject: str, request: Mapping[str, Any]) -> Message | None:
        answer = await self._api(f"STREAM.MSG.GET.{stream}", request)
        error = answer.get("error")
        if error and error.get("err_code") == _NO_MESSAGE:
            return None
        message = _require(answer, f"stream {stream}")["message"]
        raw = base64.b64decode(message.get("hdrs", ""))
        data = base64.b64decode(message.get("data", ""))
        return wire.leader_message(subject, data, raw, message["seq"], message["time"])

    async def _state(self, stream: str) -> StreamState:
        info = _require(await self._api(f"STREAM.INFO.{stream}"), f"stream {stream}")
        state = info["state"]
        bump = info["config"].get("metadata", {}).get("epoch", "")
        epoch = base36(wire.time_ms(info["created"].encode())) + (tag(bump) if bump else "")
        return StreamState(epoch, state["first_seq"], state["last_seq"], state.get("num_deleted", 0))

    # -- read from any replica ------------------------------------------------------------------------------------

    async def read_after(self, stream: str, subject: str, after_seq: int, limit: int) -> Page:
        """Return up to `limit` messages of a subject or pattern with `seq > after_seq`."""
        messages: list[Message] = []
        pending = 1
        while pending and len(messages) < limit:
            batch = min(limit - len(messages), BATCH_MESSAGES)
            request = {"seq": after_seq + 1, "next_by_subj": subject, "batch": batch, "max_bytes": BATCH_BYTES}
            found, end = await self._direct(stream, request)
            pending = wire.pending(end) if found else 0
            messages += found
            after_seq = found[-1].seq if found else after_seq
        return Page(messages, more=pending > 0)

    async def count_after(self, stream: str, after_seq: int, subject: str) -> int:
        """Return how many messages of a subject have `seq > after_seq`: one, and what the server says is behind it."""
        found, end = await self._direct(stream, {"seq": after_seq + 1, "next_by_subj": subject, "batch": 1})
        return len(found) + wire.pending(end)

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        """Return the last message of each subject that has one; patterns allowed."""
        messages: list[Message] = []
        for page in _pages(subjects):
            messages += await self._read_last_page(stream, page)
        return messages

    # -- private --------------------------------------------------------------------------------------------------

    async def _read_last_page(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        try:
            return await self._multi_last(stream, subjects)
        except TooManySubjects:
            if len(subjects) == 1:
                return await self._scan_last(stream, subjects[0])
        half = len(subjects) // 2
        return await self._read_last_page(stream, subjects[:half]) + await self._read_last_page(stream, subjects[half:])

    async def _multi_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        request = {"multi_last": list(subjects), "batch": BATCH_MESSAGES, "max_bytes": BATCH_BYTES}
        messages: list[Message] = []
        while True:
            found, end = await self._direct(stream, request)
            messages += found
            if not found or not wire.pending(end):
                return messages
            request |= {"seq": found[-1].seq + 1, "up_to_seq": wire.up_to(end)}

    async def _scan_last(self, stream: str, pattern: str) -> list[Message]:
        """Read the pattern from the start and keep the last of each subject; cheap where a stream keeps only that."""
        page = await self.read_after(stream, pattern, 0, MAX_SCAN)
        if page.more:
            raise TooManySubjects(f"{pattern} holds more than {MAX_SCAN} messages: ask for less")
        return list({message.subject: message for message in page.messages}.values())

    async def _direct(self, stream: str, request: Mapping[str, Any]) -> tuple[list[Message], bytes]:
        """Return one batch and the headers of what ended it."""
        *replies, end = await self._patiently(lambda: self._ask_replica(stream, request))
        code = wire.status(end.raw)
        if code == _TOO_MANY_RESULTS:
            raise TooManySubjects
        if code not in {204, _MESSAGE_NOT_FOUND}:
            raise Unavailable(f"stream {stream} answered a direct read with status {code}")
        return _unbroken(replies), end.raw or b""

    async def _ask_replica(self, stream: str, request: Mapping[str, Any]) -> list[Reply]:
        """Ask whichever replica the server chooses; one that is frozen may be among them, and does not answer."""
        subject = f"{_API}.DIRECT.GET.{stream}"
        try:
            return await self._link.ask_many(
                subject, _encode(request), last=lambda reply: wire.status(reply.raw) != 0, timeout_s=BATCH_TIMEOUT_S
            )
        except NoResponders:
            raise Unavailable(f"stream {stream} does not answer direct reads") from None

    async def _api(self, call: str, request: Mapping[str, Any] | None = None) -> dict[str, Any]:
        reply = await self._link.ask(f"{_API}.{call}", _encode(request) if request else b"")
        answer: dict[str, Any] = json.loads(reply.data)
        return answer

    async def _patiently(self, read: Callable[[], Awaitable[Read]]) -> Read:
        """Read; while nobody can answer, again for up to READ_DEADLINE_S."""
        until_s = time.monotonic() + READ_DEADLINE_S
        while True:
            try:
                return await read()
            except Unavailable as error:
                if time.monotonic() > until_s or self._link.is_closed:
                    raise
                await self._pause(until_s, error)

    async def _pause(self, until_s: float, error: Unavailable) -> None:
        """Wait before the next try: for the link, and a moment where no time has passed yet."""
        if not isinstance(error, NoAnswer):
            await asyncio.sleep(RETRY_PAUSE_S)
        await self._link.up(max(0.0, until_s - time.monotonic()))


def refusal(error: Mapping[str, Any], what: str) -> FanfareError:
    """Return what a JetStream error means to us."""
    text = f"{what}: {error.get('description', 'refused')}"
    match error.get("err_code"), error.get("code"):
        case 10071 | 10164, _:  # wrong last sequence; in a cluster, of what is stored or of what is about to be
            return Conflict(text)
        case 10054, _:  # message size exceeds maximum allowed
            return TooLarge("message", MAX_MESSAGE_BYTES)
        case 10077, _:  # maximum bytes exceeded
            return StoreFull(text)
        case _, 404:
            return NotFound(text)
        case _, 400 | 500:  # 500 is a configuration that it will not have; what may pass is 503
            return BadInput(text)
    return Unavailable(text)


# -- private ----------------------------------------------------------------------------------------------------------


def _appended(replies: Sequence[Reply], subject: str) -> Appended:
    answer = _require(from_json(replies[0].data), subject)
    return Appended(answer["seq"], answer.get("duplicate", False))


def _require(answer: dict[str, Any], what: str) -> dict[str, Any]:
    error = answer.get("error")
    if error:
        raise refusal(error, what)
    return answer


def _encode(request: Mapping[str, Any]) -> bytes:
    return json.dumps(request, separators=(",", ":")).encode()


def _unbroken(replies: Sequence[Reply]) -> list[Message]:
    """Return the messages of a batch if none was lost on its way: each names the one before it in the batch."""
    messages: list[Message] = []
    before = 0
    for reply in replies:
        message = wire.read_message(reply.data, reply.raw or b"")
        if message.last_seq != before:
            raise Unavailable("a batch of stored messages came incomplete")
        before, message.last_seq = message.seq, 0
        messages.append(message)
    return messages


def _pages(subjects: Sequence[str]) -> list[list[str]]:
    pages: list[list[str]] = []
    left_bytes = 0
    for subject in subjects:
        if not pages or left_bytes < len(subject) or len(pages[-1]) >= PAGE_SUBJECTS:
            pages.append([])
            left_bytes = PAGE_SUBJECT_BYTES
        pages[-1].append(subject)
        left_bytes -= len(subject) + 3
    return pages
