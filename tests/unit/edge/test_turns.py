"""A herd begins in turns: a few in each round of the loop, in order, and whoever is alone does not wait."""

from __future__ import annotations

import asyncio

from shared.edge.turns import Turns


class Herd:
    """Who comes, and in which round of the loop each began."""

    def __init__(self, turns: Turns, size: int) -> None:
        self._turns, self._round = turns, 0
        self.began: list[tuple[int, int]] = []
        self.tasks = [asyncio.ensure_future(self._come(number)) for number in range(size)]

    async def watch(self) -> None:
        while not all(task.done() for task in self.tasks):
            self._round += 1
            await asyncio.sleep(0)

    async def _come(self, number: int) -> None:
        await self._turns.wait()
        self.began.append((number, self._round))


async def test_a_herd_begins_a_few_in_a_round_and_in_order() -> None:
    herd = Herd(Turns(3), 20)
    await herd.watch()

    rounds = [round_ for _, round_ in herd.began]
    assert [number for number, _ in herd.began] == list(range(20))
    assert max(map(rounds.count, rounds)) == 3


async def test_whoever_comes_alone_does_not_wait() -> None:
    turns = Turns(1)
    for _ in range(3):
        waiting = turns.wait()
        try:
            waiting.send(None)
        except StopIteration:
            pass
        else:
            raise AssertionError("it had to wait")
        await asyncio.sleep(0)


async def test_whoever_gives_up_takes_nobodys_turn() -> None:
    herd = Herd(Turns(1), 5)
    await asyncio.sleep(0)
    for task in herd.tasks[1:4]:
        task.cancel()
    await herd.watch()

    assert [number for number, _ in herd.began] == [0, 4]
    assert herd.began[1][1] <= 3
