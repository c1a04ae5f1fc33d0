"""Two real price feed processes and a real broker: one writes, the other takes over, and they never interleave."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import nats
import pytest
from nats.aio.msg import Msg

from services.price_feed.app import create_app
from services.price_feed.settings import PriceFeedSettings
from shared.broker.provision import provision
from shared.contracts.ids import new_id
from tests.support.nats_server import NatsServer

ROOT = Path(__file__).parents[2]
RATE = 40
MAX_TAKEOVER_S = 5.0
FENCE = "Fanfare-Fence"


@dataclass
class Tick:
    """What the watcher noted of one tick."""

    at_s: float
    fence: int
    data: dict[str, Any]


@dataclass
class Watcher:
    """A plain NATS client that notes each tick and the latest status of each feed."""

    ticks: list[Tick] = field(default_factory=list)
    statuses: dict[str, dict[str, Any]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    async def note_tick(self, message: Msg) -> None:
        assert message.headers is not None
        self.ticks.append(Tick(time.monotonic(), int(message.headers[FENCE]), json.loads(message.data)))
        self.changed.set()

    async def note_status(self, message: Msg) -> None:
        status = json.loads(message.data)
        self.statuses[status["instance"]] = status
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def until_tick_above(self, fence: int) -> None:
        await self.until(lambda: bool(self.ticks) and self.ticks[-1].fence > fence)

    async def until_more_ticks(self, count: int = RATE // 2) -> None:
        target = len(self.ticks) + count
        await self.until(lambda: len(self.ticks) >= target)

    async def until_status(self, instance: str, status: str) -> None:
        self.statuses.pop(instance, None)
        await self.until(lambda: self.statuses.get(instance, {}).get("status") == status)

    def longest_silence_s(self) -> float:
        times = [tick.at_s for tick in self.ticks]
        return max(later - earlier for earlier, later in pairwise(times))

    def assert_never_interleaved(self) -> None:
        fences = [tick.fence for tick in self.ticks]

        assert fences == sorted(fences)

    def assert_no_jump(self) -> None:
        """Each tick goes on from the price that the tick before it showed, whoever wrote that."""
        shown: dict[str, float] = {}
        for tick in self.ticks:
            symbol = tick.data["symbol"]
            assert tick.data["previous"] == shown.get(symbol, tick.data["previous"])
            shown[symbol] = tick.data["price"]


@asynccontextmanager
async def watching(nats_url: str) -> AsyncIterator[Watcher]:
    watcher = Watcher()
    client = await nats.connect(nats_url, reconnect_time_wait=0.1)
    await client.subscribe("prices.*", cb=watcher.note_tick)
    await client.subscribe("status.price_feed.*", cb=watcher.note_status)
    await client.flush()
    yield watcher
    await client.close()


@pytest.fixture
async def watcher(nats_url: str) -> AsyncIterator[Watcher]:
    async with watching(nats_url) as watcher:
        yield watcher


@dataclass
class Feed:
    """One price feed process."""

    instance: str
    process: asyncio.subprocess.Process

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)


Start = Callable[[], Awaitable[Feed]]


@pytest.fixture
async def start(nats_url: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Start price feed processes; all are ended with the test."""
    async with AsyncExitStack() as stack:

        async def start_one() -> Feed:
            return await stack.enter_async_context(running_feed(nats_url, tmp_path))

        yield start_one


@asynccontextmanager
async def running_feed(nats_url: str, log_dir: Path) -> AsyncIterator[Feed]:
    instance = new_id("feed-")
    env = {"NATS_URL": nats_url, "PORT": "0", "INSTANCE": instance, "PRICE_RATE": str(RATE), "PRICE_SYMBOLS": "10"}
    with (log_dir / f"{instance}.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.price_feed", cwd=ROOT, env=env, stderr=log
        )
    try:
        yield Feed(instance, process)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGCONT)
            process.terminate()
        await process.wait()


async def active_and_standby(watcher: Watcher, start: Start) -> tuple[Feed, Feed]:
    active = await start()
    await watcher.until_status(active.instance, "up")
    standby = await start()
    await watcher.until_status(standby.instance, "standby")
    await watcher.until_more_ticks()
    return active, standby


async def test_a_standby_takes_over_within_5_s_of_a_kill(watcher: Watcher, start: Start) -> None:
    active, standby = await active_and_standby(watcher, start)
    fence = watcher.ticks[-1].fence

    active.send(signal.SIGKILL)
    await watcher.until_tick_above(fence)
    await watcher.until_more_ticks()

    assert watcher.longest_silence_s() < MAX_TAKEOVER_S
    watcher.assert_never_interleaved()
    watcher.assert_no_jump()
    await watcher.until_status(standby.instance, "up")
    assert watcher.statuses[standby.instance]["metrics"]["leader"] == 1
    assert watcher.statuses[standby.instance]["metrics"]["fence"] == watcher.ticks[-1].fence


async def test_a_standby_takes_over_at_once_from_a_clean_stop(watcher: Watcher, start: Start) -> None:
    active, _ = await active_and_standby(watcher, start)
    fence = watcher.ticks[-1].fence

    active.send(signal.SIGTERM)
    await watcher.until_tick_above(fence)

    assert watcher.longest_silence_s() < 1.0
    watcher.assert_never_interleaved()
    watcher.assert_no_jump()
    assert await active.process.wait() == 0
    assert watcher.statuses[active.instance]["status"] == "down"


async def test_a_frozen_writer_that_wakes_after_its_lease_sends_nothing(watcher: Watcher, start: Start) -> None:
    active, _ = await active_and_standby(watcher, start)
    fence = watcher.ticks[-1].fence

    await watcher.until_more_ticks(1)  # a batch has just left: the freeze finds none half written
    active.send(signal.SIGSTOP)
    await watcher.until_tick_above(fence)
    active.send(signal.SIGCONT)
    await watcher.until_status(active.instance, "standby")
    await watcher.until_more_ticks()

    watcher.assert_never_interleaved()
    watcher.assert_no_jump()


async def test_feeds_outlive_a_broker_that_lost_its_streams_and_go_on_when_it_has_them(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    async with (
        watching(nats_server.url) as watcher,
        running_feed(nats_server.url, tmp_path) as one,
        running_feed(nats_server.url, tmp_path) as other,
    ):
        await watcher.until(lambda: {one.instance, other.instance} <= set(watcher.statuses))
        await watcher.until_more_ticks()

        await nats_server.lose_everything_and_restart()
        await watcher.until_status(one.instance, "standby")
        await watcher.until_status(other.instance, "standby")
        await provision(nats_server.url)
        await watcher.until_more_ticks()

        assert [one.process.returncode, other.process.returncode] == [None, None]


async def test_a_feed_is_ready_counts_and_tells_its_state(nats_url: str, watcher: Watcher) -> None:
    settings = PriceFeedSettings(nats_url=nats_url, price_rate=RATE, price_symbols=10)
    app = create_app(settings)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://feed") as client,
    ):
        await watcher.until_status(settings.instance, "up")
        ready = await client.get("/readyz")
        metrics = (await client.get("/metrics")).text

    assert ready.status_code == 200, ready.text
    assert "fanfare_price_leader 1.0" in metrics
    assert "fanfare_price_ticks_total" in metrics
    assert watcher.statuses[settings.instance]["status"] == "down"


async def test_the_last_price_of_each_symbol_is_kept(nats_url: str, watcher: Watcher, start: Start) -> None:
    await start()
    await watcher.until_more_ticks()
    client = await nats.connect(nats_url)
    symbol = watcher.ticks[-1].data["symbol"]

    stored = await client.jetstream().get_last_msg("PRICES", f"prices.{symbol}")

    assert stored.data is not None
    assert json.loads(stored.data)["symbol"] == symbol
    await client.close()


async def test_a_recording_with_a_bad_line_stops_the_start_and_names_it(tmp_path: Path) -> None:
    recording = tmp_path / "bad.csv"
    recording.write_text("timestamp_ms,symbol,price\n1,A,1\n2,A,cheap\n")

    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.price_feed"),
        cwd=ROOT,
        env={"PRICE_CSV": str(recording)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, errors = await process.communicate()

    assert process.returncode == 2
    assert b"bad.csv: line 3: price" in errors
    assert b"Traceback" not in errors
