"""The process's own log on the bus: what is in a record, how much there can be, and that it never feeds itself."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import structlog
from pydantic_core import from_json

from shared.broker.memory import MemoryBroker, MemoryServer
from shared.contracts import subjects
from shared.contracts.events import MAX_LOG_BYTES, LogRecord
from shared.runtime import logs as publishing
from shared.runtime.logs import publish_logs
from shared.telemetry.live_logs import MAX_WAITING, LiveLogs
from shared.telemetry.logs import configure_logs, get_logger
from shared.telemetry.metrics import Metrics
from tests.support.listening import Ear
from tests.support.price_board import settle
from tests.support.waiting import eventually

TOKEN = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiJ1In0.c2lnbmF0dXJl"


class Unclear:
    """Something whose text holds a credential."""

    def __repr__(self) -> str:
        return f"Request(authorization='Bearer {TOKEN}')"


@pytest.fixture
def live() -> Iterator[LiveLogs]:
    """The log of this process as a service sets it up, with what it tells live."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    live = LiveLogs("chat", "one", "warning", max_bytes=MAX_LOG_BYTES, clock_ms=lambda: 1_000)
    configure_logs("info", service="chat", instance="one", live=live)
    yield live
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def told(live: LiveLogs) -> list[dict[str, Any]]:
    """Return what waits; each is a payload that an edge takes."""
    waiting = live.take()
    assert all(len(each) <= MAX_LOG_BYTES for each in waiting)
    for each in waiting:
        LogRecord.model_validate_json(each)
    return [from_json(each) for each in waiting]


def test_what_is_logged_at_or_above_the_level_is_told_with_its_fields(live: LiveLogs) -> None:
    get_logger().info("below")
    get_logger().warning("roster_not_written", room="r", tries=3, late_s=0.5, final=False, cause=None)
    logging.getLogger("a.library").critical("out of %s", "disk")
    about = {"component": "chat", "instance": "one", "timestamp": 1_000}
    fields = {"room": "r", "tries": 3, "late_s": 0.5, "final": False}

    assert told(live) == [
        about | {"level": "warning", "event": "roster_not_written", "fields": fields},
        about | {"level": "error", "event": "out of disk", "fields": {}},
    ]


def test_no_credential_is_told(live: LiveLogs) -> None:
    get_logger().error("refused", token=TOKEN, url=f"/ws/chat?ticket={TOKEN}", request=Unclear())
    try:
        raise ValueError(f"Bearer {TOKEN}")
    except ValueError:
        get_logger().exception("failed")
    waiting = b"".join(live.take()).decode()

    assert waiting.count("[redacted]") >= 4
    assert TOKEN not in waiting
    assert "c2lnbmF0dXJl" not in waiting


@pytest.mark.parametrize(
    "fields",
    [
        {"text": "x" * 100_000},
        {"text": "\x00" * 2_000},
        {"text": "\ud800" + "é" * 1_999},
        {f"field_{number}": "x" * 100 for number in range(1_000)},
        {"n" * 10_000: 1},
        {"things": list(range(100_000))},
    ],
    ids=["text", "escapes", "surrogate", "many", "name", "list"],
)
def test_a_record_is_bounded_whatever_is_logged_and_says_if_something_is_missing(
    live: LiveLogs, fields: dict[str, Any]
) -> None:
    get_logger().error("large", **fields)
    (record,) = told(live)

    assert (record["event"], record.get("truncated", False)) == ("large", fields != {"n" * 10_000: 1})


def test_of_a_long_traceback_the_last_line_is_told(live: LiveLogs) -> None:
    try:
        raise ValueError("long " * 1_000 + "the point")
    except ValueError:
        get_logger().exception("failed")
    (record,) = told(live)

    assert record["fields"]["exception"].startswith("Traceback")
    assert record["fields"]["exception"].endswith("the point")
    assert record["truncated"] is True


def test_a_full_queue_drops_the_newest_and_the_next_record_says_how_many(live: LiveLogs) -> None:
    for number in range(MAX_WAITING + 7):
        get_logger().warning("flood", number=number)
    first = told(live)
    get_logger().warning("after")
    get_logger().warning("later")
    after, later = told(live)

    assert [each["fields"]["number"] for each in first] == list(range(MAX_WAITING))
    assert (after["dropped"], "dropped" in later, live.dropped) == (7, False, 7)


# -- on the bus -------------------------------------------------------------------------------------------------------


class Bus(MemoryBroker):
    """A broker that counts how often it was looked whether it is there."""

    beats = 0

    def usable(self) -> bool:
        self.beats += 1
        return super().usable()


@dataclass
class Publishing:
    """A process's log as somebody hears it who listens."""

    ear: Ear
    bus: Bus
    server: MemoryServer
    metrics: Metrics

    @property
    def dropped(self) -> float | None:
        return self.metrics.registry.get_sample_value("fanfare_live_logs_dropped_total")

    @property
    def events(self) -> list[str]:
        return [from_json(each)["event"] for each in self.ear.data]

    async def pass_beats(self, count: int) -> None:
        until = self.bus.beats + count
        await eventually(lambda: self.bus.beats >= until)


@pytest.fixture
async def on_bus(live: LiveLogs) -> AsyncIterator[Publishing]:
    server, metrics = MemoryServer(), Metrics()
    publishing_ = Publishing(Ear(), Bus(server), server, metrics)
    await publishing_.bus.subscribe(subjects.ALL_LOGS, publishing_.ear)
    task = asyncio.ensure_future(publish_logs(publishing_.bus, live, metrics))
    await publishing_.ear.hears(1)
    yield publishing_
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publishing, "EVERY_S", 0.001)


@pytest.mark.usefixtures("_quick")
async def test_it_begins_with_a_record_of_its_own_and_ends_with_all_that_is_left(live: LiveLogs) -> None:
    ear, broker = Ear(), MemoryBroker()
    await broker.subscribe(subjects.ALL_LOGS, ear)
    task = asyncio.ensure_future(publish_logs(broker, live, Metrics()))
    await ear.hears(1)
    for _ in range(3 * publishing.MAX_AT_ONCE):
        get_logger().error("last_words")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await settle()

    assert [from_json(each)["event"] for each in ear.data] == ["live_logs_begin", *30 * ["last_words"]]
    assert {message.subject for message in ear.messages} == {subjects.log("chat", "one")}


@pytest.mark.usefixtures("_quick")
async def test_while_the_broker_is_away_records_wait_up_to_a_bound_and_what_is_over_it_is_counted_and_told(
    on_bus: Publishing,
) -> None:
    on_bus.server.stop()
    for _ in range(MAX_WAITING + 5):
        get_logger().warning("nats_is_away")
    await eventually(lambda: on_bus.dropped == 5)
    assert on_bus.events == ["live_logs_begin"]
    on_bus.server.start()
    await on_bus.ear.hears(1 + MAX_WAITING)
    get_logger().warning("back")
    await on_bus.ear.hears(2 + MAX_WAITING)

    assert on_bus.events[-2:] == ["nats_is_away", "back"]
    assert from_json(on_bus.ear.data[-1])["dropped"] == 5


@pytest.mark.usefixtures("_quick")
async def test_publishing_says_nothing_of_itself_also_while_the_broker_is_away(
    live: LiveLogs, on_bus: Publishing
) -> None:
    """Else one record would make the next, for ever."""
    live.level = "debug"
    get_logger().warning("once")
    await on_bus.pass_beats(20)
    on_bus.server.stop()
    get_logger().warning("away")
    await on_bus.pass_beats(20)
    on_bus.server.start()
    await on_bus.ear.hears(3)
    await on_bus.pass_beats(20)

    assert on_bus.events == ["live_logs_begin", "once", "away"]


async def test_a_process_tells_fifty_a_second(on_bus: Publishing) -> None:
    for _ in range(MAX_WAITING):
        get_logger().warning("flood")
    began_s = asyncio.get_running_loop().time()
    await on_bus.ear.hears(1 + 4 * publishing.MAX_AT_ONCE)

    assert asyncio.get_running_loop().time() - began_s > 3 * publishing.EVERY_S
