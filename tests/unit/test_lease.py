"""The lease: one holder at a time, by the holder's own clock, through lost answers, outages and long sleeps."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest

from shared.broker.lease import Lease
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.contracts import subjects
from shared.errors import OutcomeUnknown, Unavailable

TTL_S = 4
RENEW_S = 0.01  # the tests turn the clock; only the pauses between looks are real


class TurnedClock:
    """A clock that stands still until a test turns it."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class FaultyBroker(MemoryBroker):
    """A broker whose `put` fails on demand, before or after it took effect."""

    away = False
    lose_answers = 0
    answer_late_s = 0.0
    clock: TurnedClock

    async def put(self, bucket: str, *tokens: str, **options: Any) -> int:
        if self.away:
            raise Unavailable
        revision = await super().put(bucket, *tokens, **options)
        self.clock.now_s += self.answer_late_s
        if self.lose_answers:
            self.lose_answers -= 1
            raise OutcomeUnknown
        return revision


class Party:
    """One process that wants the lease; it notes the fence whenever it acts."""

    def __init__(self, server: MemoryServer, clock: TurnedClock, name: str, renew_every_s: float = RENEW_S) -> None:
        self.broker = FaultyBroker(server)
        self.broker.clock = clock
        self.lease = Lease(self.broker, "writer", name, ttl_s=TTL_S, renew_every_s=renew_every_s, clock=clock)
        self.fences: list[int] = []
        self.acting = False

    async def act(self, fence: int) -> NoReturn:
        self.fences.append(fence)
        self.acting = True
        try:
            await asyncio.Event().wait()
        finally:
            self.acting = False
        raise AssertionError


class Room:
    """Parties on one server with one clock."""

    def __init__(self) -> None:
        self.clock = TurnedClock()
        self.server = MemoryServer(clock=self.clock)
        self._tasks: dict[Party, asyncio.Task[NoReturn]] = {}

    def enter(self, name: str, *, renew_every_s: float = RENEW_S) -> Party:
        party = Party(self.server, self.clock, name, renew_every_s)
        self._tasks[party] = asyncio.get_running_loop().create_task(party.lease.run(party.act))
        return party

    async def stop(self, party: Party) -> None:
        """End a party cleanly."""
        task = self._tasks.pop(party)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    async def close(self) -> None:
        for party in list(self._tasks):
            await self.stop(party)


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    yield room
    await room.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


async def looks(count: int = 5) -> None:
    """Let each party look at the lease some times."""
    await asyncio.sleep(RENEW_S * count)


async def test_only_one_of_several_acts(room: Room) -> None:
    parties = [room.enter(name) for name in ("a", "b", "c")]
    await until(lambda: any(party.lease.held() for party in parties))
    await looks()

    assert sum(party.lease.held() for party in parties) == 1
    assert sum(party.acting for party in parties) == 1


async def test_a_holder_that_renews_keeps_it_for_long(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    other = room.enter("b")
    for _ in range(20):
        room.clock.now_s += 1
        await looks(3)

    assert holder.lease.held()
    assert len(holder.fences) == 1
    assert not other.fences


async def test_a_clean_stop_hands_over_without_the_clock_moving(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    other = room.enter("b")
    await looks()

    await room.stop(holder)
    await until(lambda: other.acting)

    assert not holder.acting
    assert not holder.lease.held()
    assert other.fences > holder.fences


async def test_a_release_is_heard_and_not_only_looked_for(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    other = room.enter("b", renew_every_s=3600)
    await looks()

    await room.stop(holder)

    await until(lambda: other.acting)


async def test_the_holder_stops_before_the_server_lets_another_in(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    other = room.enter("b")
    holder.broker.away = True
    for _ in range(TTL_S * 10):
        room.clock.now_s += 0.1
        assert not (holder.lease.held() and other.lease.held())
        await looks(2)
    await until(lambda: other.acting)

    assert not holder.lease.held()
    assert other.fences > holder.fences


async def test_a_process_that_slept_past_its_lease_does_not_hold_it_when_it_wakes(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)

    room.clock.now_s += TTL_S  # no await in between: the very next act asks held()

    assert not holder.lease.held()


async def test_the_time_of_a_slow_renewal_counts_from_before_it_was_sent(room: Room) -> None:
    holder = room.enter("a")
    holder.broker.answer_late_s = TTL_S
    await until(lambda: holder.acting)

    assert not holder.lease.held()


async def test_a_renewal_whose_answer_was_lost_is_found_again(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    holder.broker.lose_answers = 1
    await until(lambda: holder.broker.lose_answers == 0)
    for _ in range(10):
        room.clock.now_s += 1
        await looks(3)

    assert holder.lease.held()
    assert len(holder.fences) == 1


async def test_an_acquisition_whose_answer_was_lost_is_not_waited_out(room: Room) -> None:
    server_clock_before = room.clock.now_s
    holder = room.enter("a")
    holder.broker.lose_answers = 1
    await until(lambda: holder.acting)

    assert holder.lease.held()
    assert room.clock.now_s == server_clock_before


async def test_a_lease_that_was_taken_away_is_lost_and_waited_for_again(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)

    revision = await holder.broker.put(subjects.LEASES, "writer", value=b"somebody else")
    await until(lambda: not holder.acting)
    assert not holder.lease.held()

    await holder.broker.delete(subjects.LEASES, "writer", expect=revision)
    await until(lambda: holder.acting)
    assert holder.fences == sorted(set(holder.fences))


async def test_a_stop_does_not_release_what_is_somebody_elses(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    await holder.broker.put(subjects.LEASES, "writer", value=b"somebody else")

    await room.stop(holder)

    entry = await MemoryBroker(room.server).get(subjects.LEASES, "writer")
    assert entry is not None
    assert entry.value == b"somebody else"


async def test_after_a_break_of_the_link_nothing_is_done_until_the_lease_is_confirmed(room: Room) -> None:
    holder = room.enter("a")
    await until(lambda: holder.acting)
    fences = list(holder.fences)

    room.server.start()  # says to all brokers that it is back
    await asyncio.sleep(0)
    assert not holder.lease.held()

    await until(holder.lease.held)
    assert holder.fences == fences


async def test_what_act_raises_ends_the_run_and_frees_the_lease(room: Room) -> None:
    async def fail(_fence: int) -> NoReturn:
        raise ValueError("broken")

    party = Party(room.server, room.clock, "a")
    with pytest.raises(ExceptionGroup) as caught:
        await party.lease.run(fail)

    assert caught.group_contains(ValueError)
    assert await party.broker.get(subjects.LEASES, "writer") is None
