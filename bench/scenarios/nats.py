"""nats: how many messages one process takes in from NATS, through the broker's port, in processor time.

Plain ticks as the price board takes them and as a `Message` each, and stored messages that the server repeats with its
headers, as a chat or notifications edge takes them. This process is the receiver; it also feeds the server, from bytes
made before, which costs it a twentieth of the receiving. It sends WINDOW messages and waits until they have come.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path

from bench.load import BenchFailed
from bench.report import Check, Report, Row
from bench.scenarios.prices import publisher
from shared.broker.jetstream import JetStreamBroker
from shared.contracts import subjects
from tests.support.nats_server import NatsServer

NAME = "nats"
WINDOW = 10_000
QUICK_WINDOWS, FULL_WINDOWS = 5, 20
SUBJECTS = 1_000
TIMEOUT_S = 30.0
MESSAGE = b'{"id":"%032d","room":"bench","userId":"u","content":"%b","timestamp":1790000000000}' % (0, b"x" * 60)
TICK = b'{"symbol":"S100","price":1234.25,"timestamp":1790000000000}'
PLAIN_US, STORED_US = 1e6 / 150_000, 1e6 / 50_000

Count = Callable[[], None]
Listen = Callable[[JetStreamBroker, Count], Awaitable[object]]


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Measure each kind on one server."""
    windows = QUICK_WINDOWS if quick else FULL_WINDOWS
    ticks = [(subjects.price(f"S{number}"), TICK) for number in range(SUBJECTS)]
    stored = [(subjects.notify_topic(f"t{number}"), MESSAGE) for number in range(SUBJECTS)]
    async with NatsServer(directory / "nats") as server:
        rows = [
            await _measure(server, "ticks, data alone", ticks, _data, windows),
            await _measure(server, "ticks, a Message each", ticks, _messages, windows),
            await _measure(server, "repeated by a stream, with headers", stored, _repeated, windows),
        ]
    report.rows += rows
    for row, bound in zip(rows, (PLAIN_US, PLAIN_US, STORED_US), strict=True):
        report.checks.append(Check(f"us of CPU a message in: {row.server}", row.figures["cpu_us_per_message"], bound))


async def _data(broker: JetStreamBroker, count: Count) -> object:
    return await broker.subscribe_data(subjects.ALL_PRICES, lambda _subject, _data: count())


async def _messages(broker: JetStreamBroker, count: Count) -> object:
    return await broker.subscribe(subjects.ALL_PRICES, lambda _message: count())


async def _repeated(broker: JetStreamBroker, count: Count) -> object:
    return await broker.subscribe(subjects.live(subjects.ALL_NOTIFY), lambda _message: count())


async def _measure(
    server: NatsServer, name: str, messages: list[tuple[str, bytes]], listen: Listen, windows: int
) -> Row:
    """Send `windows` windows of messages and take what the process used; the first, which warms up, is not counted."""
    lines = b"".join(b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(data), data) for subject, data in messages)
    window, taken, arrived = lines * (WINDOW // len(messages)), 0, asyncio.Event()

    def count() -> None:
        nonlocal taken
        taken += 1
        if taken % WINDOW == 0:
            arrived.set()

    broker = await JetStreamBroker.connect(server.url, name="bench")
    await listen(broker, count)
    cpu_s = wall_s = 0.0
    async with publisher(server.url) as writer:
        for number in range(windows + 1):
            arrived.clear()
            began_cpu_s, began_s = time.process_time(), time.perf_counter()
            writer.write(window)
            await _within(arrived.wait(), name)
            if number:
                cpu_s, wall_s = cpu_s + time.process_time() - began_cpu_s, wall_s + time.perf_counter() - began_s
    await broker.close()
    figures = {
        "cpu_us_per_message": cpu_s / (windows * WINDOW) * 1e6,
        "messages_per_s_of_cpu": windows * WINDOW / cpu_s,
        "messages_per_s": windows * WINDOW / wall_s,
    }
    return Row(NAME, name, f"nats-py {version('nats-py')}", figures)


async def _within(waiting: Awaitable[object], name: str) -> None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await waiting
    except TimeoutError:
        raise BenchFailed(f"{NAME}: {name} did not all arrive in {TIMEOUT_S:g} s") from None
