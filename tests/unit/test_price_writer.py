"""The writer's loop: what it publishes, from where it goes on, and what it leaves unsent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import NoReturn

import pytest

from services.price_feed.feed import POSITION_HEADER, PriceFeed
from services.price_feed.source import Batch
from shared.broker.lease import FENCE_HEADER, Lease
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message
from shared.contracts import subjects
from shared.contracts.events import PriceTick, SystemStatus
from shared.errors import Unavailable
from shared.telemetry.metrics import Metrics


class Script:
    """A source that gives one tick at each pull, and notes where it was told to go on."""

    symbols: Sequence[str] = ("A", "B")
    position = ""

    def __init__(self) -> None:
        self.pulled = 0
        self.resumed: list[tuple[Mapping[str, float], str]] = []

    def resume(self, last: Mapping[str, float], position: str) -> None:
        self.resumed.append((last, position))

    def next_batch(self, now_ms: int) -> Batch:
        self.pulled += 1
        self.position = f"script:{self.pulled}"
        return Batch([PriceTick(symbol="A", price=self.pulled, timestamp=now_ms)], skipped=2)


class ShakyBroker(MemoryBroker):
    """A broker whose link and whose stored messages can be away."""

    up = True
    stored_away = 0

    def usable(self) -> bool:
        return self.up

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        if self.stored_away:
            self.stored_away -= 1
            raise Unavailable
        return await super().read_last(stream, subjects)


class Stage:
    """A feed, and what a listener hears of it."""

    def __init__(self) -> None:
        self.broker = ShakyBroker(MemoryServer())
        self.lease = Lease(self.broker, "price_feed", "me", renew_every_s=0.05)
        self.source, self.metrics = Script(), Metrics()
        self.feed = PriceFeed(
            broker=self.broker,
            lease=self.lease,
            source=self.source,
            instance="me",
            metrics=self.metrics,
            now_ms=lambda: 1_800_000_000_000,
        )
        self.ticks: list[Message] = []
        self.beats: list[SystemStatus] = []
        self._task: asyncio.Task[NoReturn] | None = None

    async def listen(self) -> None:
        await self.broker.subscribe(subjects.ALL_PRICES, self.ticks.append)
        await self.broker.subscribe(
            subjects.ALL_STATUS, lambda message: self.beats.append(SystemStatus.model_validate_json(message.data))
        )

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self.feed.run())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    def count(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"fanfare_{name}") or 0.0


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    await stage.listen()
    yield stage
    await stage.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_ticks_carry_fence_and_position_and_are_counted(stage: Stage) -> None:
    stage.start()
    await until(lambda: len(stage.ticks) >= 3)
    await stage.stop()

    assert len({tick.headers[FENCE_HEADER] for tick in stage.ticks}) == 1
    assert [tick.headers[POSITION_HEADER] for tick in stage.ticks[:2]] == ["script:1", "script:2"]
    assert stage.count("price_ticks_total") == len(stage.ticks)
    assert stage.count("price_ticks_skipped_total") == 2 * len(stage.ticks)


async def test_a_new_writer_goes_on_from_what_is_stored_and_passes_over_what_is_not_a_price(stage: Stage) -> None:
    await stage.broker.publish(subjects.price("B"), b'{"symbol":"B","price":7,"timestamp":1}', {POSITION_HEADER: "s:1"})
    await stage.broker.publish(subjects.price("A"), b'{"symbol":"A","price":9,"timestamp":1}', {POSITION_HEADER: "s:2"})
    stage.start()
    await until(lambda: len(stage.source.resumed) == 1)
    await stage.stop()

    await stage.broker.publish(subjects.price("B"), b"not json")
    stage.start()
    await until(lambda: len(stage.source.resumed) == 2)

    assert stage.source.resumed[0] == ({"A": 9.0, "B": 7.0}, "s:2")
    assert set(stage.source.resumed[1][0]) == {"A"}


async def test_nothing_is_published_before_the_stored_prices_were_read(stage: Stage) -> None:
    stage.broker.stored_away = 1
    stage.start()
    await until(lambda: stage.broker.stored_away == 0)
    assert stage.source.pulled == 0

    await until(lambda: len(stage.ticks) > 0)
    assert len(stage.source.resumed) == 1


async def test_while_the_link_is_down_nothing_is_pulled_or_sent(stage: Stage) -> None:
    stage.lease.held = lambda: True  # type: ignore[method-assign]
    stage.broker.up = False
    await stage.feed._publish_due(fence=1)
    assert stage.source.pulled == 0

    stage.broker.up = True
    await stage.feed._publish_due(fence=1)
    assert stage.source.pulled == 1


async def test_a_tick_due_when_the_lease_has_just_gone_is_dropped_and_counted(stage: Stage) -> None:
    answers = iter([True, False])
    stage.lease.held = lambda: next(answers, False)  # type: ignore[method-assign]
    stage.start()
    await until(lambda: stage.count("price_ticks_dropped_total") == 1)

    assert stage.source.pulled == 1
    assert not stage.ticks


async def test_the_heartbeat_says_who_leads_and_the_last_one_that_it_is_down(stage: Stage) -> None:
    stage.start()
    await until(lambda: len(stage.beats) > 0)
    await stage.stop()

    first, last = stage.beats[0], stage.beats[-1]
    assert (first.component, first.instance, first.status) == ("price_feed", "me", "up")
    assert first.metrics["leader"] == 1
    assert str(first.metrics["fence"]) == stage.ticks[0].headers[FENCE_HEADER]
    assert float(first.metrics["ticksPerSecond"]) > 0
    assert (last.status, last.metrics["leader"]) == ("down", 0)


async def test_a_standby_says_so_and_sends_nothing(stage: Stage) -> None:
    await stage.broker.put(subjects.LEASES, "price_feed", value=b"somebody else")
    stage.start()
    await until(lambda: len(stage.beats) > 0)

    assert stage.beats[0].status == "standby"
    assert not stage.ticks
