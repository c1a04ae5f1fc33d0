"""The log board: who is told which records, what is no record, and what a flood of them comes to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic_core import to_json

from services.notifications.logs import MAX_PER_S, LogBoard
from shared.contracts.events import MAX_LOG_BYTES
from shared.edge.delivery.event import Overflow
from tests.support.price_board import Feed, Screen, settle


class Logs(Feed):
    """A log board on a broker in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.logs = LogBoard(self.broker, self.deadletters, self.metrics, clock=self.hand)

    @property
    def followed(self) -> bool:
        return any(interest.pattern == "logs.*.*" for interest in self.server._interests)

    async def say(self, event: str = "e", subject: str = "chat.a", **fields: Any) -> None:
        """Publish a record, and let it arrive."""
        given = {"component": "chat", "instance": "a", "level": "warning", "event": event, "timestamp": 1}
        await self.broker.publish(f"logs.{subject}", to_json(given | fields))
        await settle()


@pytest.fixture
async def board() -> AsyncIterator[Logs]:
    board = Logs()
    task = asyncio.ensure_future(board.logs.run())
    yield board
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def events(screen: Screen) -> list[str]:
    return [data["event"] for data in screen.data("log")]


async def test_each_is_told_what_is_at_or_above_its_level_and_is_followed_only_while_somebody_is_told(
    board: Logs,
) -> None:
    one, other = Screen(board.hand), Screen(board.hand)
    await settle()
    assert not board.followed
    board.logs.add(one, "debug")
    board.logs.add(other, "error")
    await settle()
    for level in ("debug", "info", "warning", "error"):
        await board.say(level, level=level)
    board.logs.remove(one)
    await board.say("after", level="error")
    assert board.followed
    board.logs.remove(other)
    await settle()

    assert {event.overflow for _, event in one.shown} == {Overflow.DROP}
    assert (events(one), events(other)) == (["debug", "info", "warning", "error"], ["error", "after"])
    assert not board.followed


async def test_the_bus_is_followed_when_it_is_back(board: Logs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.notifications.logs.RETRY_S", 0)
    screen = Screen(board.hand)
    board.server.stop()
    board.logs.add(screen, "debug")
    await settle()
    board.server.start()
    await settle()
    await board.say("heard")

    assert events(screen) == ["heard"]


@pytest.mark.parametrize(
    "fields",
    [
        {"level": "loud"},
        {"component": "other"},
        {"instance": "other"},
        {"timestamp": None},
        {"fields": {"a": []}},
        {"fields": {"a": "x" * MAX_LOG_BYTES}},
        {"dropped": -1},
    ],
)
async def test_what_is_no_record_is_a_dead_letter_and_is_not_told(board: Logs, fields: dict[str, Any]) -> None:
    screen = Screen(board.hand)
    board.logs.add(screen, "debug")
    await settle()
    await board.say(**fields)

    assert len(await board.dead()) == 1
    assert events(screen) == []


async def test_of_a_flood_each_is_told_a_part_and_how_much_is_missing(board: Logs) -> None:
    screen = Screen(board.hand)
    board.logs.add(screen, "debug")
    await settle()
    for number in range(MAX_PER_S + 7):
        await board.say(str(number))
    await board.pass_time(1)
    await board.say("after")

    assert events(screen) == [*map(str, range(MAX_PER_S)), "after"]
    assert screen.data("dropped") == [{"kind": "log", "count": 7}]
    assert board.count("logs_dropped") == 7
    assert [event.type for _, event in screen.shown][-2:] == ["dropped", "log"]


async def test_who_comes_later_is_not_told_how_much_others_missed(board: Logs) -> None:
    one, later = Screen(board.hand), Screen(board.hand)
    board.logs.add(one, "debug")
    await settle()
    for number in range(MAX_PER_S + 7):
        await board.say(str(number))
    board.logs.remove(one)
    await settle()
    await board.pass_time(1)
    board.logs.add(later, "debug")
    await settle()
    await board.say("after")

    assert (later.data("dropped"), events(later)) == ([], ["after"])
