"""Clients that come back: each keeps its cursor, and sees whether what it gets is new and in order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

from bench.load import MARK, SLOWEST_CONNECTS_PER_S, TIMEOUT_S, BenchFailed, Client, Crowd, Door, content, until
from bench.servers import Publish

CURSOR, EVENT_ID = b'"cursor":"', b"id: "
LONGEST_MESSAGE_BYTES = 64 * 1024
MOST_REFUSALS = 20


class ResumingClient(Client):
    """One that keeps the cursor of the last message, over WebSocket or SSE.

    Attributes:
        last_stamp: of the newest message; stamps grow, so one that does not was a repetition or out of order.
        astray: how many such there were.
        gone: done when its connection has ended.
    """

    __slots__ = ("astray", "cursor", "gone", "last_stamp")

    def __init__(self, crowd: Crowd, number: int, door: Door) -> None:
        super().__init__(crowd, number, door)
        self.cursor = ""
        self.last_stamp = self.astray = 0
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        """Note that this client is out, or was not let in."""
        super().connection_lost(error)
        self.gone.set_result(None)

    def read(self, seen: bytes) -> int:
        """Take the messages that are whole, and keep the rest."""
        count, end = 0, 0
        while (mark := seen.find(MARK, end)) >= 0 and (close := seen.find(b"}", mark)) >= 0:
            stamp = int(seen[mark + len(MARK) + 1 : seen.index(b";", mark)])
            self.astray += stamp <= self.last_stamp
            self.last_stamp = stamp
            self.cursor = _cursor(seen, end, mark, close)
            count, end = count + 1, close + 1
        self.rest = seen[end:][-LONGEST_MESSAGE_BYTES:]
        return count

    def go_on_from(self, before: ResumingClient) -> None:
        """Be the same client as `before`, which was cut off."""
        self.cursor, self.last_stamp = before.cursor, before.last_stamp
        self.count, self.astray = before.count, before.astray


def _cursor(seen: bytes, start: int, mark: int, close: int) -> str:
    """Return the cursor of a message: the `id:` line before its object (SSE), or a field of it (WebSocket)."""
    opening = seen.rfind(b"{", start, mark)
    line = seen.rfind(EVENT_ID, start, opening)
    if line >= 0:
        return seen[line + len(EVENT_ID) : seen.index(b"\r", line)].decode()
    field = seen.find(CURSOR, opening, close) + len(CURSOR)
    return seen[field : seen.index(b'"', field)].decode()


@dataclass
class Return:
    """How a crowd came back.

    Attributes:
        crowd: the one that goes on in its place.
        refusals: how often one was refused.
        cut_at_s: when the last was cut off, by the performance counter.
    """

    crowd: Crowd
    refusals: int = 0
    cut_at_s: float = 0.0


def resuming(crowd: Crowd) -> Sequence[ResumingClient]:
    """Return the clients of a crowd that was made of this kind."""
    return cast("Sequence[ResumingClient]", crowd.clients)


async def come_back(crowd: Crowd, door: Door, cursors: list[str], *, at_once: int) -> Return:
    """Bring in every client of a crowd again through `door`, each as soon as it is cut off; one refused comes again.

    Args:
        cursors: where the requests of `door` look up the cursor of client number `n`; filled in here.

    Raises:
        BenchFailed: one was not cut off, or refused again and again.
    """
    back, turnstile = Return(Crowd(crowd.name, door, crowd.kind)), asyncio.Semaphore(at_once)
    before = resuming(crowd)
    coming = asyncio.gather(*(_come_back(number, one, back, cursors, turnstile) for number, one in enumerate(before)))
    try:
        await asyncio.wait_for(coming, TIMEOUT_S + len(before) / SLOWEST_CONNECTS_PER_S)
    except TimeoutError:
        raise BenchFailed(f"{crowd.name}: not all were cut off and came back") from None
    return back


async def _come_back(
    number: int, before: ResumingClient, back: Return, cursors: list[str], turnstile: asyncio.Semaphore
) -> None:
    await before.gone
    back.cut_at_s = time.perf_counter()
    cursors[number] = before.cursor
    for _ in range(MOST_REFUSALS):
        (again,) = cast("Sequence[ResumingClient]", back.crowd.prepare([number]))
        again.go_on_from(before)
        try:
            await back.crowd.enter_one(again, turnstile)
        except BenchFailed:
            back.refusals += 1
        else:
            back.crowd.clients.append(again)
            return
    raise BenchFailed(f"{back.crowd.name}: client {number} was refused again and again")


async def until_each_has(crowd: Crowd, count: int) -> None:
    """Return once every client has at least `count` messages, those before its return included."""
    await until(
        lambda: all(client.count >= count for client in crowd.clients), f"{crowd.name}: not all have {count} messages"
    )


def check_nothing_astray(crowd: Crowd, count: int) -> None:
    """Pass if every client has exactly `count` messages, in order; raises BenchFailed otherwise."""
    crowd.check_each_got(count)
    astray = sum(client.astray for client in resuming(crowd))
    if astray:
        raise BenchFailed(f"{crowd.name}: {astray} messages came twice or out of order")


class Speaker:
    """Publishes a message of `characters` every 1/`rate_hz` seconds, stamped with the time on the schedule.

    Attributes:
        sent: how many the server has taken.
    """

    def __init__(self, publish: Publish, *, rate_hz: float, characters: int, fill: str = "x") -> None:
        self._publish, self._rate_hz = publish, rate_hz
        self._characters, self._fill = characters, fill
        self._stopping = False
        self.sent = 0

    async def say(self, stamp_s: float | None = None) -> None:
        """Publish one message now."""
        at_s = time.perf_counter() if stamp_s is None else stamp_s
        await self._publish(content(self._characters, at_s, self._fill))
        self.sent += 1

    async def say_for(self, seconds: float, after_each: Callable[[], None] = lambda: None) -> None:
        """Publish at the rate for a while, late if it must be but stamped as if it were not."""
        began_s = time.perf_counter()
        for number in range(int(seconds * self._rate_hz)):
            if self._stopping:
                return
            at_s = began_s + number / self._rate_hz
            await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
            await self.say(at_s)
            after_each()

    @asynccontextmanager
    async def speaking(self) -> AsyncIterator[None]:
        """Publish at the rate until the block ends."""
        self._stopping = False
        task = asyncio.ensure_future(self.say_for(TIMEOUT_S * 10))
        try:
            yield
            self._stopping = True
            await task
        finally:
            task.cancel()
