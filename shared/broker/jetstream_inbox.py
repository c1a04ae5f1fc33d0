"""Answers to requests: one subject prefix for the whole process, and a token for each request."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable
from typing import NamedTuple

from shared.broker.jetstream_wire import status
from shared.contracts.ids import new_id
from shared.errors import OutcomeUnknown, Unavailable

MAX_WAITING = 10_000
"""Requests without an answer yet; more are refused."""

LOOK_S = 0.1
"""How often those whose time is over are looked for: one timer for all, where one for each was as much as the rest."""

NO_RESPONDERS_STATUS = 503


class NotSent(Unavailable):
    """The broker is away; nothing was sent."""


class NoResponders(Unavailable):
    """Nobody listens on this subject."""


class NoAnswer(OutcomeUnknown):
    """It was sent, and no answer came."""


class Reply(NamedTuple):
    """An answer as it came; `raw` holds its headers."""

    data: bytes
    raw: bytes | None


IsLast = Callable[[Reply], bool]


class Expected:
    """The answers to one request; `all` is done when the last of them is there, or fails with why there are none."""

    __slots__ = ("_last", "_replies", "_timeout_s", "_until_s", "all", "token")

    def __init__(self, token: bytes, last: IsLast | None, timeout_s: float) -> None:
        self.token, self._last = token, last
        self._timeout_s, self._until_s = timeout_s, time.monotonic() + timeout_s
        self._replies: list[Reply] = []
        self.all: asyncio.Future[list[Reply]] = asyncio.get_running_loop().create_future()

    def take(self, reply: Reply) -> None:
        """Keep an answer."""
        if self.all.done():
            return
        if status(reply.raw) == NO_RESPONDERS_STATUS:
            self.all.set_exception(NoResponders())
            return
        self._replies.append(reply)
        if self._last is None or self._last(reply):
            self.all.set_result(self._replies)

    def grow_older(self, now_s: float) -> None:
        """Wait no longer if its time is over."""
        if now_s >= self._until_s:
            self.fail(f"no answer within {self._timeout_s:g} s")

    def fail(self, why: str) -> None:
        """Wait no longer."""
        if not self.all.done():
            self.all.set_exception(NoAnswer(why))


class Inbox:
    """Where all answers come, and who waits for them."""

    def __init__(self, prefix: str) -> None:
        self._subject = f"{prefix}.{new_id()}"
        self._tokens = itertools.count(1)
        self._waiting: dict[bytes, Expected] = {}
        self._looking = False

    @property
    def pattern(self) -> str:
        """What the link watches for us."""
        return f"{self._subject}.*"

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, last: IsLast | None, timeout_s: float) -> Expected:
        """Expect answers up to and with the one that `last` accepts, by default the first, until `forget`.

        They fail with NoAnswer after `timeout_s`, or up to LOOK_S later.

        Raises:
            NotSent: too many wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise NotSent("too many requests wait for an answer")
        token = b"%d" % next(self._tokens)
        expected = self._waiting[token] = Expected(token, last, timeout_s)
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_later(LOOK_S, self._look)
        return expected

    def address(self, expected: Expected) -> str:
        """Return the subject that the answers must come to."""
        return f"{self._subject}.{expected.token.decode()}"

    def forget(self, expected: Expected) -> None:
        """Expect nothing more: what still comes is dropped."""
        del self._waiting[expected.token]

    def receive(self, subject: bytes, _reply: bytes, data: bytes, raw: bytes | None) -> None:
        """Hand an answer to who waits for it; one that comes too late is dropped."""
        expected = self._waiting.get(subject[len(self._subject) + 1 :])
        if expected is not None:
            expected.take(Reply(data, raw))

    def fail_all(self) -> None:
        """Tell everyone who waits that the link broke."""
        for expected in self._waiting.values():
            expected.fail("the link to NATS broke")

    def _look(self) -> None:
        """Fail those whose time is over; look again while any wait."""
        now_s = time.monotonic()
        for expected in self._waiting.values():
            expected.grow_older(now_s)
        self._looking = bool(self._waiting)
        if self._looking:
            asyncio.get_running_loop().call_later(LOOK_S, self._look)
