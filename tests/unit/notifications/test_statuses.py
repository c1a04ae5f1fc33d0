"""The status board: the last word of each part, for newcomers too, until it has long been silent."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic_core import to_json

from services.notifications.statuses import FORGET_AFTER_S, StatusBoard
from tests.support.price_board import Feed, Screen, settle


class Statuses(Feed):
    """A status board on a broker in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.statuses = StatusBoard(self.broker, self.deadletters, clock=self.hand)

    async def say(self, subject: str, **fields: Any) -> None:
        """Publish a status, and let it arrive."""
        component, instance = subject.split(".")
        given = {"component": component, "instance": instance, "status": "up", "timestamp": 1} | fields
        await self.broker.publish(f"status.{subject}", to_json(given))
        await settle()


def parts(screen: Screen) -> list[str]:
    return [f"{data['component']}.{data['instance']}={data['status']}" for data in screen.data("system_status")]


async def test_a_newcomer_gets_the_last_word_of_each_and_then_every_change() -> None:
    board = Statuses()
    await board.say("chat.a")
    await board.statuses.start()
    await board.say("chat.b")
    await board.say("chat.b", status="draining")
    screen = Screen(board.hand)
    board.statuses.add(screen)
    await board.say("chat.c")
    board.statuses.remove(screen)
    await board.say("chat.d")

    assert parts(screen) == ["chat.a=up", "chat.b=draining", "chat.c=up"]


async def test_a_part_that_fell_silent_is_not_shown_to_newcomers() -> None:
    board = Statuses()
    await board.statuses.start()
    await board.say("chat.gone")
    await board.pass_time(FORGET_AFTER_S / 2)
    await board.say("chat.lives")
    await board.pass_time(FORGET_AFTER_S / 2 + 1)
    screen = Screen(board.hand)
    board.statuses.add(screen)

    assert parts(screen) == ["chat.lives=up"]


@pytest.mark.parametrize(
    "fields",
    [{"status": "fine"}, {"component": "other"}, {"instance": "other"}, {"timestamp": None}, {"metrics": {"a": []}}],
)
async def test_what_is_no_status_is_a_dead_letter_and_is_not_shown(fields: dict[str, Any]) -> None:
    board = Statuses()
    await board.statuses.start()
    screen = Screen(board.hand)
    board.statuses.add(screen)
    await board.say("chat.a", **fields)

    assert len(await board.dead()) == 1
    assert parts(screen) == []
