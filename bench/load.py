"""The load generator: clients that count, as raw protocols in this one process.

A client sends its handshake, waits to be welcomed, and from then on counts the marks that reach it: every message of a
benchmark carries exactly one. It parses nothing else, so that it costs little beside the server that it measures.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

MARK = b"bench-mark"
KEPT_BYTES = 64
POLL_S = 0.01
CONCURRENT_CONNECTS = 64
TIMEOUT_S = 60.0
SLOWEST_CONNECTS_PER_S = 100
WEBSOCKET_KEY = "AAAAAAAAAAAAAAAAAAAAAA=="
STAMP = re.compile(MARK + rb":(\d+);")
# No text here has 0x89 in it, so that begins a ping, or it is the low byte of a text frame's length.
PING = re.compile(rb"(?<!\x7e.)\x89([\x00-\x7d])", re.DOTALL)
_TEXT, _BINARY = 0x81, 0x82


class BenchFailed(Exception):
    """A benchmark could not be carried out; nothing that it measured counts."""


@dataclass(frozen=True)
class Door:
    """How clients get into a server.

    Attributes:
        request: what client number `n` sends first.
        welcome: what is in the server's answer once a client is in.
        hello: what it sends after the head of the answer, if the server wants more than the handshake.
    """

    port: int
    request: Callable[[int], bytes]
    welcome: bytes
    hello: Callable[[int], bytes] = lambda _number: b""


class Crowd:
    """Clients of one server.

    Attributes:
        arrived: marks that have come, over all clients.
        bytes_in: all that has come since the welcome.
        lost: clients whose connection ended after they were in.
        last_at_s: when the last mark came.
        delays_s: for stamped messages, when it came less when it was to be sent.
    """

    def __init__(self, name: str, door: Door, kind: type[Client] | None = None) -> None:
        self.name, self.kind, self._door = name, kind or Client, door
        self.clients: list[Client] = []
        self.arrived = self.bytes_in = self.lost = 0
        self.last_at_s = 0.0
        self.delays_s: list[float] = []
        self._goal = 0
        self._reached: asyncio.Future[None] | None = None

    async def connect(self, numbers: Iterable[int]) -> None:
        """Bring clients in; see `enter`."""
        await self.enter(self.prepare(numbers))

    def prepare(self, numbers: Iterable[int]) -> list[Client]:
        """Return clients ready to connect, their tokens signed: that is no part of what a connect costs."""
        return [self.kind(self, number, self._door) for number in numbers]

    async def enter(self, fresh: Sequence[Client], *, at_once: int = CONCURRENT_CONNECTS) -> None:
        """Connect clients, `at_once` at a time, and wait until all are welcomed.

        Raises:
            BenchFailed: one of them was refused.
        """
        turnstile = asyncio.Semaphore(at_once)
        try:
            async with asyncio.timeout(TIMEOUT_S + len(fresh) / SLOWEST_CONNECTS_PER_S):
                await asyncio.gather(*(self.enter_one(client, turnstile) for client in fresh))
        except TimeoutError:
            raise BenchFailed(f"{self.name}: not all of {len(fresh)} clients got in") from None
        self.clients += fresh

    async def enter_one(self, client: Client, turnstile: asyncio.Semaphore) -> None:
        """Connect a client, and wait until it is welcomed; raises BenchFailed if it is refused."""
        async with turnstile:
            try:
                await asyncio.get_running_loop().create_connection(lambda: client, "127.0.0.1", self._door.port)
            except OSError as error:
                raise BenchFailed(f"{self.name}: a client could not connect: {error}") from error
            await client.welcomed

    async def reach(self, arrived: int) -> None:
        """Return once `arrived` marks have come.

        Raises:
            BenchFailed: they have not, in TIMEOUT_S.
        """
        if self.arrived >= arrived:
            return
        self._goal, self._reached = arrived, asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(TIMEOUT_S):
                await self._reached
        except TimeoutError:
            least = min(client.count for client in self.clients)
            raise BenchFailed(
                f"{self.name}: {self.arrived} of {arrived} deliveries arrived in {TIMEOUT_S:g} s;"
                f" the fewest that a client got is {least}; {self.lost} were cut off"
            ) from None

    def arrive(self, count: int) -> None:
        """Note marks that a client has got."""
        self.arrived += count
        self.last_at_s = time.perf_counter()
        if self._reached is not None and self.arrived >= self._goal:
            self._reached.set_result(None)
            self._reached = None

    def check_each_got(self, count: int) -> None:
        """Pass if every client is there and has got exactly `count` marks.

        Raises:
            BenchFailed: delivered is not what was expected.
        """
        wrong = [client.count for client in self.clients if client.count != count]
        if wrong or self.lost:
            reason = f"{len(wrong)} clients got other than {count} messages; {self.lost} were cut off"
            raise BenchFailed(f"{self.name}: {reason}")

    def count_anew(self) -> None:
        """Forget what has been counted so far."""
        self.arrived = self.bytes_in = 0
        for client in self.clients:
            client.count = 0

    def close(self) -> None:
        """Leave at once."""
        for client in self.clients:
            client.abort()


class Client(asyncio.Protocol):
    """One client; `count` is how many marks it has got."""

    __slots__ = ("_hello", "_request", "_welcome", "count", "crowd", "rest", "transport", "welcomed")

    def __init__(self, crowd: Crowd, number: int, door: Door) -> None:
        self.crowd, self._welcome = crowd, door.welcome
        self._request, self._hello = door.request(number), door.hello(number)
        self.rest = b""
        self.transport: asyncio.Transport | None = None
        self.count = 0
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the handshake."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self.send(self._request)
        self._request = b""

    def data_received(self, data: bytes) -> None:
        """Count the marks, also one that two reads share; answer a ping that comes by itself."""
        seen = self.rest + data
        if self._welcome:
            self._enter(seen)
            return
        self.crowd.bytes_in += len(data)
        self._take(seen)
        if b"\x89" in data:
            self._answer_pings(data)

    def read(self, seen: bytes) -> int:
        """Count the marks in what has been seen, and keep the rest for those that are not whole yet."""
        count = seen.count(MARK)
        self.rest = (seen[seen.rfind(MARK) + len(MARK) :] if count else seen)[-KEPT_BYTES:]
        return count

    def connection_lost(self, _error: Exception | None) -> None:
        """Note that this client is out, or was not let in."""
        if self.welcomed.done():
            self.crowd.lost += 1
        else:
            self.welcomed.set_exception(BenchFailed(f"the server hung up: {self.rest[:200]!r}"))

    def send(self, data: bytes) -> None:
        """Write bytes as they are."""
        if self.transport is not None:
            self.transport.write(data)

    def abort(self) -> None:
        """Close without a word."""
        if self.transport is not None:
            self.transport.abort()

    def _take(self, seen: bytes) -> None:
        if count := self.read(seen):
            self.count += count
            self.crowd.arrive(count)

    def _enter(self, seen: bytes) -> None:
        if self._hello and b"\r\n\r\n" in seen:
            self.send(self._hello)
            self._hello = b""
        if self._welcome in seen:
            self._answer_pings(seen)  # a server may ping before it welcomes
            after = seen.partition(self._welcome)[2]
            self.rest = self._welcome = b""
            self.welcomed.set_result(None)
            self._take(after)
        else:
            self.rest = seen

    def _answer_pings(self, data: bytes) -> None:
        """Echo what each ping carries, masked with zeros (RFC 6455 section 5.5.3)."""
        for ping in PING.finditer(data):
            size = ping[1][0]
            self.send(b"\x8a" + bytes([0x80 | size]) + bytes(4) + data[ping.end() : ping.end() + size])


class StampedClient(Client):
    """One that notes how long after the time in its stamp a message came."""

    __slots__ = ()

    def read(self, seen: bytes) -> int:
        """Count the stamps in what has been seen, and keep the rest."""
        now_s, delays_s, count, end = time.perf_counter(), self.crowd.delays_s, 0, 0
        for stamp in STAMP.finditer(seen):
            delays_s.append(now_s - int(stamp[1]) / 1e6)
            count, end = count + 1, stamp.end()
        self.rest = seen[end:][-KEPT_BYTES:]
        return count


async def until(holds: Callable[[], bool], otherwise: str) -> None:
    """Return once `holds()`; raises BenchFailed with `otherwise` after TIMEOUT_S."""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            while not holds():  # noqa: ASYNC110  # thousands of clients are looked at: an event for each costs more
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise BenchFailed(f"{otherwise} within {TIMEOUT_S:g} s") from None


def get(path: str, *headers: str) -> bytes:
    """Return a GET request."""
    return "\r\n".join([f"GET {path} HTTP/1.1", "Host: 127.0.0.1", *headers, "", ""]).encode()


def upgrade(path: str, *headers: str) -> bytes:
    """Return a WebSocket handshake, without extensions: no compression anywhere."""
    version = "Sec-WebSocket-Version: 13"
    return get(
        path, "Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {WEBSOCKET_KEY}", version, *headers
    )


def text_frame(payload: bytes) -> bytes:
    """Return a client's text frame, masked with zeros (RFC 6455 section 5.3)."""
    return _frame(_TEXT, payload)


def binary_frame(payload: bytes) -> bytes:
    """Return a client's binary frame, as `text_frame`."""
    return _frame(_BINARY, payload)


def content(size: int, stamp_s: float | None = None, fill: str = "x") -> str:
    """Return a text of `size` characters with one mark, and the time it was to be sent at if that matters."""
    stamp = f":{int(stamp_s * 1e6)};" if stamp_s is not None else ""
    return f"{MARK.decode()}{stamp}".ljust(size, fill)


def _frame(first: int, payload: bytes) -> bytes:
    size = len(payload)
    length = bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + size.to_bytes(2, "big")
    return bytes([first]) + length + bytes(4) + payload
