"""prices: conflation. Far more ticks come in than a client wants; each gets the newest value, at most at its rate.

One edge meets ever more ticks of the same symbols, and then twice the clients: its processor time must follow what it
delivers. A client must get no symbol more often than `max_rate` times a second, and must end with the last value of
every symbol it watches; else the run is void.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import httpx

from bench import fanfare
from bench.load import KEPT_BYTES, BenchFailed, Client, Crowd, Door
from bench.machine import cpu_s
from bench.report import Check, Report, Row
from bench.servers import Server
from shared.clock import now_ms
from shared.contracts import subjects

NAME = "prices"
SYMBOLS, WATCHED, RATE_HZ = 1_000, 20, 10
FIRST_PRICE = 1000
DRAIN_S = 10.0
SHOWN_AFTER_MS, QUICK_SHOWN_AFTER_MS = 500.0, 3_000.0
TEN_TIMES_THE_TICKS = 3.0
"""What ten times the ticks with the same deliveries may cost, in processor time: receiving a tick is not free."""
PLACE = b"WATCHED"
UPDATE = re.compile(rb'"symbol":"(S\d+)","price":([\d.]+)')
TAKEN = re.compile(r"^fanfare_prices_received_total (\S+)", re.MULTILINE)
TIME_PLACE, PRICE_PLACE = b"1111111111111", b"2222.25"


@dataclass(frozen=True)
class Size:
    """What comes in: every symbol ticks `tick_hz` times a second; and how many watch, by how many different lists."""

    tick_hz: int
    clients: int
    seconds: int
    lists: int = SYMBOLS // WATCHED

    @property
    def ticks_per_s(self) -> int:
        """Of all symbols."""
        return SYMBOLS * self.tick_hz

    def __str__(self) -> str:
        return f"{self.ticks_per_s:,} ticks/s, {self.clients:,} clients{' of one list' if self.lists == 1 else ''}"


FULL = (Size(10, 50, 5), Size(25, 50, 5), Size(100, 50, 5), Size(100, 100, 5), Size(10, 1_000, 5, lists=1))
QUICK = (Size(10, 50, 2), Size(100, 50, 2))


class PriceClient(Client):
    """One that keeps how often it got each symbol, and the last value of each."""

    __slots__ = ("last", "updates")

    def __init__(self, crowd: Crowd, number: int, door: Door) -> None:
        super().__init__(crowd, number, door)
        self.updates: Counter[bytes] = Counter()
        self.last: dict[bytes, bytes] = {}

    def read(self, seen: bytes) -> int:
        """Take the updates in what has been seen, and keep the rest."""
        count, end = 0, 0
        for update in UPDATE.finditer(seen):
            if update.end() == len(seen):
                break  # its digits may go on in the next read
            self.updates[update[1]] += 1
            self.last[update[1]] = update[2]
            count, end = count + 1, update.end()
        self.rest = seen[end:][-KEPT_BYTES * 4 :]
        return count


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Pour ticks into NATS at each rate, and look at what each client is shown."""
    rows: dict[Size, Row] = {}
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        edge = await suite.notifications(f"symbols={PLACE.decode()}&max_rate={RATE_HZ}")
        feed = await stack.enter_async_context(publisher(suite.nats.url))
        for size in QUICK if quick else FULL:
            try:
                rows[size] = await _run_size(edge, feed, size)
            except BenchFailed as error:
                report.void.append(f"{NAME} at {size}: {error}")
    report.rows += rows.values()
    report.checks += _checks(rows, QUICK_SHOWN_AFTER_MS if quick else SHOWN_AFTER_MS)


def _checks(rows: dict[Size, Row], shown_after_ms: float) -> list[Check]:
    checks = [
        Check(f"ms from the last of {size} until all show it", row.figures["last_value_shown_after_ms"], shown_after_ms)
        for size, row in rows.items()
    ]
    few, many = (next((rows[size] for size in rows if size.tick_hz == hz), None) for hz in (10, 100))
    if few is not None and many is not None:
        ratio = many.figures["edge_us_per_update"] / few.figures["edge_us_per_update"]
        checks.append(Check("CPU of ten times the ticks, the same deliveries", ratio, TEN_TIMES_THE_TICKS))
    return checks


async def _run_size(edge: Server, feed: asyncio.StreamWriter, size: Size) -> Row:
    crowd = Crowd(edge.name, replace(edge.door, request=lambda number: _request(edge, number, size)), PriceClient)
    try:
        await crowd.connect(range(size.clients))
        return await _measure(edge, crowd, feed, size)
    finally:
        crowd.close()


def _request(edge: Server, number: int, size: Size) -> bytes:
    """Return the request of a client that watches WATCHED symbols, which are those of others too once lists run out."""
    first = number % size.lists * WATCHED
    watched = ",".join(f"S{symbol % SYMBOLS}" for symbol in range(first, first + WATCHED))
    return edge.door.request(number).replace(PLACE, watched.encode())


async def _measure(edge: Server, crowd: Crowd, feed: asyncio.StreamWriter, size: Size) -> Row:
    clients = cast("Sequence[PriceClient]", crowd.clients)
    nats, taken_before = edge.beside["nats-server"], await _ticks_taken(edge)
    crowd.arrived = 0
    for client in clients:  # a snapshot is no update
        client.updates.clear()
    edge_s, nats_s, own_s, began_s = cpu_s(edge.pid), cpu_s(nats), time.process_time(), time.perf_counter()
    last = await _pour(feed, size)
    poured_s = time.perf_counter() - began_s
    await _until_all_show(clients, last)
    settled_s = time.perf_counter() - began_s
    edge_s, nats_s, own_s = cpu_s(edge.pid) - edge_s, cpu_s(nats) - nats_s, time.process_time() - own_s
    _check_rates(clients, settled_s)
    ticks, taken = size.ticks_per_s * size.seconds, await _ticks_taken(edge) - taken_before
    figures = {
        "edge_us_per_update": edge_s / crowd.arrived * 1e6,
        "edge_busy": edge_s / settled_s,
        "ticks_in_per_s": ticks / poured_s,
        "share_taken": taken / ticks,
        "updates_out_per_s": crowd.arrived / settled_s,
        "edge_us_per_tick": edge_s / ticks * 1e6,
        "last_value_shown_after_ms": (settled_s - poured_s) * 1e3,
        "most_updates_of_a_symbol_per_s": max(max(client.updates.values()) for client in clients) / settled_s,
        "nats_busy": nats_s / settled_s,
        "generator_busy": own_s / settled_s,
        "clients": size.clients,
    }
    return Row(NAME, f"{edge.name}, {size}", edge.version, figures)


async def _ticks_taken(edge: Server) -> float:
    """Return how many ticks the edge has taken from NATS; those that it was too slow for are gone."""
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"http://127.0.0.1:{edge.door.port}/metrics", timeout=DRAIN_S)).text
    return float(next(value for value in TAKEN.findall(metrics)))


async def _pour(feed: asyncio.StreamWriter, size: Size) -> bytes:
    """Publish a tick of every symbol `tick_hz` times a second, all at once; return the last price.

    Raises:
        BenchFailed: NATS does not take them.
    """
    lines = _template(SYMBOLS)
    rounds, began_s, price = size.tick_hz * size.seconds, time.perf_counter(), b""
    try:
        async with asyncio.timeout(size.seconds + DRAIN_S):
            for number in range(rounds):
                await asyncio.sleep(max(0.0, began_s + number / size.tick_hz - time.perf_counter()))
                price = f"{FIRST_PRICE + number}.25".encode()
                feed.write(lines.replace(PRICE_PLACE, price).replace(TIME_PLACE, str(now_ms()).encode()))
                await feed.drain()
    except TimeoutError:
        raise BenchFailed(f"{NAME}: NATS does not take {size}") from None
    return price


async def _until_all_show(clients: Sequence[PriceClient], last: bytes) -> None:
    """Return once every client has the last value of every symbol it watches.

    Raises:
        BenchFailed: one has not, DRAIN_S after the last tick.
    """
    for _ in range(int(DRAIN_S * 100)):
        waiting = [client for client in clients if [*client.last.values()].count(last) != WATCHED]
        if not waiting:
            return
        await asyncio.sleep(0.01)
    raise BenchFailed(f"{NAME}: {len(waiting)} clients do not show the last values {DRAIN_S:g} s after the last tick")


def _check_rates(clients: Sequence[PriceClient], seconds: float) -> None:
    """Pass if nobody got a symbol more often than asked for; one more than the time allows may be the first."""
    most = max(max(client.updates.values()) for client in clients)
    if most > RATE_HZ * seconds + 1:
        raise BenchFailed(f"{NAME}: a client got a symbol {most} times in {seconds:.1f} s at max_rate {RATE_HZ}")


def _template(count: int) -> bytes:
    """Return what publishes one tick of each symbol (NATS client protocol, PUB), with places for price and time."""
    lines = []
    for symbol in (f"S{number}" for number in range(count)):
        payload = b'{"symbol":"%b","price":%b,"timestamp":%b}' % (symbol.encode(), PRICE_PLACE, TIME_PLACE)
        lines.append(b"PUB %b %d\r\n%b\r\n" % (subjects.price(symbol).encode(), len(payload), payload))
    return b"".join(lines)


@asynccontextmanager
async def publisher(nats_url: str) -> AsyncIterator[asyncio.StreamWriter]:
    """Yield a bare connection to NATS: a client library would cost the generator more than the ticks do."""
    host, _, port = nats_url.rpartition("//")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    try:
        yield writer
    finally:
        writer.close()
