"""A large audience is reached in slices; each listener gets each event once and in order, whoever comes or goes."""

from __future__ import annotations

import asyncio

from shared.contracts.cursor import Position
from shared.edge.delivery.event import Event
from shared.edge.fanout import MAX_QUEUED_EVENTS, SLICE, TURN_S, FanOut
from shared.edge.topics.topic import Topic


class Reader:
    """A listener that keeps what it is given; `on_first` runs at its first event."""

    user_id = "u"

    def __init__(self) -> None:
        self.got: list[int] = []

    def deliver(self, event: Event) -> None:
        self.got.append(event.seq)

    async def writable(self) -> None:
        """It always is."""


def audience(size: int) -> tuple[Topic, list[Reader]]:
    topic = Topic("CHAT", "s", Position("e", 0))
    readers = [Reader() for _ in range(size)]
    topic.listeners.update({reader: reader for reader in readers})
    return topic, readers


def event(seq: int) -> Event:
    return Event("t", b"{}", seq=seq)


class SlowClock:
    """A clock on which every look takes a whole turn: one slice is all that there is time for."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += TURN_S
        return self.now_s


async def until_idle(readers: list[Reader], last: int) -> None:
    async with asyncio.timeout(5):
        while any(last not in reader.got for reader in readers):
            await asyncio.sleep(0)


async def test_a_small_audience_has_it_at_once() -> None:
    topic, readers = audience(SLICE)
    FanOut().send(topic, event(1), topic.listeners)

    assert all(reader.got == [1] for reader in readers)


async def test_a_large_audience_gets_everything_in_order_and_the_loop_runs_when_a_turn_is_over() -> None:
    topic, readers = audience(3 * SLICE + 1)
    fan_out, turns = FanOut(SlowClock()), []
    for seq in (1, 2, 3):
        fan_out.send(topic, event(seq), topic.listeners)
    asyncio.get_running_loop().call_soon(lambda: turns.append(sum(len(reader.got) for reader in readers)))
    await until_idle(readers, 3)

    assert all(reader.got == [1, 2, 3] for reader in readers)
    assert turns == [SLICE]


async def test_a_turn_is_as_many_slices_as_there_is_time_for() -> None:
    topic, readers = audience(3 * SLICE + 1)
    FanOut(clock=lambda: 0.0).send(topic, event(1), topic.listeners)
    await asyncio.sleep(0)

    assert all(reader.got == [1] for reader in readers)


async def test_large_audiences_share_a_turn_and_none_waits_for_the_end_of_another() -> None:
    fan_out = FanOut(SlowClock())
    long, many = audience(10 * SLICE)
    short, few = audience(2 * SLICE)
    fan_out.send(long, event(1), long.listeners)
    fan_out.send(short, event(1), short.listeners)
    await until_idle(few, 1)
    reached = sum(len(reader.got) for reader in many)
    await until_idle(many, 1)

    assert reached <= 3 * SLICE
    assert all(reader.got == [1] for reader in (*many, *few))


async def test_who_leaves_gets_nothing_more_and_who_comes_only_what_is_new() -> None:
    topic, readers = audience(2 * SLICE)
    fan_out, late = FanOut(), Reader()
    fan_out.send(topic, event(1), topic.listeners)
    leaver = readers[-1]
    del topic.listeners[leaver]
    fan_out.forget(topic, leaver)
    topic.listeners[late] = late
    fan_out.send(topic, event(2), topic.listeners)
    await until_idle([*readers[:-1], late], 2)

    assert leaver.got == []
    assert late.got == [2]


async def test_a_full_queue_is_worked_off_and_loses_nothing() -> None:
    topic, readers = audience(SLICE + 1)
    fan_out, last = FanOut(), MAX_QUEUED_EVENTS + 50
    for seq in range(1, last + 1):
        fan_out.send(topic, event(seq), topic.listeners)
    await until_idle(readers, last)

    assert all(reader.got == list(range(1, last + 1)) for reader in readers)
