"""prices: conflation. Far more ticks come in than a client wants; each gets the newest value, at most at its rate.

A client must get no symbol more often than `max_rate` times a second, and must end with every symbol's last value;
else the run is void. The edge's processor time should follow what it delivers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
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
CLIENTS, WATCHED, RATE_HZ = 50, 20, 10
TICK_HZ = 100
FIRST_PRICE = 1000
DRAIN_S = 10.0
SHOWN_AFTER_MS = 500.0
UPDATE = re.compile(rb'"symbol":"(S\d+)","price":([\d.]+)')
TAKEN = re.compile(r'fanfare_prices_received_total\{valid="yes"\} (\S+)')
TIME_PLACE, PRICE_PLACE = b"1111111111111", b"2222.25"


@dataclass(frozen=True)
class Size:
    """How much comes in: every symbol ticks TICK_HZ times a second."""

    symbols: int
    seconds: int


QUICK, FULL = (Size(100, 4),), (Size(100, 10), Size(250, 10), Size(1_000, 10))


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
    for size in QUICK if quick else FULL:
        try:
            row = await _run_size(directory / str(size.symbols), size)
        except BenchFailed as error:
            report.void.append(f"{NAME} at {size.symbols * TICK_HZ:,} ticks/s: {error}")
            continue
        report.rows.append(row)
        if not quick:
            lag_ms = row.figures["last_value_shown_after_ms"]
            what = f"ms from the last of {size.symbols * TICK_HZ:,} ticks/s until every client shows it"
            report.checks.append(Check(what, lag_ms, SHOWN_AFTER_MS))


async def _run_size(directory: Path, size: Size) -> Row:
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        edge = await suite.notifications(f"symbols={','.join(_symbols(WATCHED))}&max_rate={RATE_HZ}")
        crowd = Crowd(edge.name, edge.door, PriceClient)
        stack.callback(crowd.close)
        await crowd.connect(range(CLIENTS))
        feed = await stack.enter_async_context(_feed(suite.nats.url))
        return await _measure(edge, crowd, feed, size)


async def _measure(edge: Server, crowd: Crowd, feed: asyncio.StreamWriter, size: Size) -> Row:
    clients = cast("Sequence[PriceClient]", crowd.clients)
    nats = edge.beside["nats-server"]
    edge_s, nats_s, began_s = cpu_s(edge.pid), cpu_s(nats), time.perf_counter()
    last = await _pour(feed, size)
    poured_s = time.perf_counter() - began_s
    await _until_all_show(clients, last)
    settled_s = time.perf_counter() - began_s
    edge_s, nats_s = cpu_s(edge.pid) - edge_s, cpu_s(nats) - nats_s
    _check_rates(clients, settled_s)
    ticks, taken = size.symbols * TICK_HZ * size.seconds, await _ticks_taken(edge)
    figures = {
        "edge_us_per_tick": edge_s / taken * 1e6,
        "ticks_in_per_s": ticks / poured_s,
        "share_taken": taken / ticks,
        "last_value_shown_after_ms": (settled_s - poured_s) * 1e3,
        "edge_busy": edge_s / settled_s,
        "nats_busy": nats_s / settled_s,
        "updates_out_per_s": crowd.arrived / settled_s,
        "most_updates_of_a_symbol_per_s": max(max(client.updates.values()) for client in clients) / settled_s,
        "clients": CLIENTS,
    }
    return Row(NAME, f"{edge.name}, {size.symbols:,} symbols", edge.version, figures)


async def _ticks_taken(edge: Server) -> float:
    """Return how many ticks the edge has taken from NATS; those that it was too slow for are gone."""
    async with httpx.AsyncClient() as client:
        metrics = (await client.get(f"http://127.0.0.1:{edge.door.port}/metrics", timeout=DRAIN_S)).text
    return float(next(value for value in TAKEN.findall(metrics)))


async def _pour(feed: asyncio.StreamWriter, size: Size) -> bytes:
    """Publish a tick of every symbol TICK_HZ times a second; return the last price."""
    lines = _template(size.symbols)
    rounds, began_s, price = TICK_HZ * size.seconds, time.perf_counter(), b""
    for number in range(rounds):
        await asyncio.sleep(max(0.0, began_s + number / TICK_HZ - time.perf_counter()))
        price = f"{FIRST_PRICE + number}.25".encode()
        feed.write(lines.replace(PRICE_PLACE, price).replace(TIME_PLACE, str(now_ms()).encode()))
        await feed.drain()
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


def _symbols(count: int) -> list[str]:
    return [f"S{number}" for number in range(count)]


def _template(count: int) -> bytes:
    """Return what publishes one tick of each symbol (NATS client protocol, PUB), with places for price and time."""
    lines = []
    for symbol in _symbols(count):
        payload = b'{"symbol":"%b","price":%b,"timestamp":%b}' % (symbol.encode(), PRICE_PLACE, TIME_PLACE)
        lines.append(b"PUB %b %d\r\n%b\r\n" % (subjects.price(symbol).encode(), len(payload), payload))
    return b"".join(lines)


@asynccontextmanager
async def _feed(nats_url: str) -> AsyncIterator[asyncio.StreamWriter]:
    """Yield a bare connection to NATS: a client library would cost the generator more than the ticks do."""
    host, _, port = nats_url.rpartition("//")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    await reader.readline()
    writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    try:
        yield writer
    finally:
        writer.close()
