"""A server with its clients, as a broadcast meets it: a message, or a burst of them, counted until everybody has it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from bench.load import BenchFailed, Crowd, content
from bench.machine import cpu_s, user_and_sys_s
from bench.servers import Server

CONTENT_BYTES = 200
FIT_ROUNDS = 3
FIT_WITHIN_BYTES = 4


@dataclass
class Stand:
    """A server with its crowd."""

    server: Server
    crowd: Crowd
    text_bytes: int = CONTENT_BYTES
    wire_bytes: int = 0
    sent: int = 0

    async def say(self, messages: int = 1) -> None:
        """Send a message, or so many at once, each in a request of its own; and wait until every client has them."""
        before_bytes = self.crowd.bytes_in
        self.sent += messages
        await asyncio.gather(*(self.server.publish(content(self.text_bytes)) for _ in range(messages)))
        await self.crowd.reach(self.sent * len(self.crowd.clients))
        self.wire_bytes = (self.crowd.bytes_in - before_bytes) // len(self.crowd.clients) // messages

    async def fit(self, wire_bytes: int) -> None:
        """Choose the text so that a message has `wire_bytes` on the wire.

        Raises:
            BenchFailed: it cannot be.
        """
        for _ in range(FIT_ROUNDS):
            await self.say()
            if abs(self.wire_bytes - wire_bytes) <= FIT_WITHIN_BYTES:
                return
            self.text_bytes += wire_bytes - self.wire_bytes
        raise BenchFailed(f"{self.server.name}: {self.wire_bytes} bytes a message, not {wire_bytes}")


@dataclass
class Spent:
    """What the messages of one server have taken so far, counted in its own turns.

    Attributes:
        began: user and system time of the server before the first.
        until_all_s: for each message or burst, from its sending until the last client had it.
    """

    began: tuple[float, float]
    server_s: float = 0.0
    generator_s: float = 0.0
    until_all_s: list[float] = field(default_factory=list)

    async def note(self, stand: Stand, messages: int = 1) -> None:
        """Have a message sent, or so many at once, and count what that takes."""
        server_s, generator_s, began_s = cpu_s(stand.server.pid), time.process_time(), time.perf_counter()
        await stand.say(messages)
        self.server_s += cpu_s(stand.server.pid) - server_s
        self.generator_s += time.process_time() - generator_s
        self.until_all_s.append(stand.crowd.last_at_s - began_s)

    def user_and_sys_s(self, pid: int) -> tuple[float, float]:
        """Return the server's time since the first message, in its two parts."""
        user_s, sys_s = user_and_sys_s(pid)
        return user_s - self.began[0], sys_s - self.began[1]
