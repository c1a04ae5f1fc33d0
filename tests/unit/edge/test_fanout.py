"""A large audience is reached in slices; each listener gets each event once and in order, whoever comes or goes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.contracts.cursor import Position
from shared.edge import fanout
from shared.edge.delivery.event import Event
from shared.edge.fanout import FEW, MAX_QUEUED_EVENTS, SLICE, SLICE_BYTES, FanOut
from shared.edge.pauses import TURN_S
from shared.edge.topics.topic import Topic
from shared.edge.wire.volley import Delivery


class Reader:
    """A listener that keeps what it is given.

    Attributes:
        writes: what it was handed together, as often as `written` is in place.
    """

    user_id = "u"

    def __init__(self) -> None:
        self.got: list[int] = []
        self.writes: list[list[int]] = []

    def deliver(self, event: Event) -> None:
        self.got.append(event.seq)

    async def writable(self) -> None:
        """It always is."""


def audience(size: int) -> tuple[Topic, list[Reader]]:
    topic = Topic("CHAT", "s", Position("e", 0))
    readers = [Reader() for _ in range(size)]
    topic.listeners.update({reader: reader for reader in readers})
    return topic, readers


def event(seq: int, size: int = 2, subject: str = "s") -> Event:
    return Event("t", b"x" * size, subject=subject, seq=seq)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each reader note what a pooled connection would be written in one."""

    def deliver_to_each(readers: Sequence[Reader], events: Sequence[Event]) -> None:
        for reader in readers:
            reader.got += (each.seq for each in events)
            reader.writes.append([each.seq for each in events])

    def deliver_all(deliveries: Iterable[Delivery]) -> None:
        for outlets, events in deliveries:
            deliver_to_each(cast("Sequence[Reader]", outlets), events)

    monkeypatch.setattr(fanout, "deliver_all", deliver_all)


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


async def until_turns_begin() -> None:
    """Let the loop come round twice: the first turn is over then."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_a_small_audience_has_it_behind_all_that_what_is_read_wakes() -> None:
    topic, readers = audience(FEW)
    FanOut().send(topic, event(1), topic.listeners)
    await asyncio.sleep(0)
    before = [list(reader.got) for reader in readers]
    await asyncio.sleep(0)

    assert before == [[]] * FEW
    assert all(reader.got == [1] for reader in readers)


@pytest.mark.usefixtures("written")
async def test_what_comes_together_for_a_small_audience_is_one_write_and_other_lanes_wait_for_none_of_it() -> None:
    (topic, readers), (other, others) = audience(FEW), audience(1)
    fan_out = FanOut()
    for seq in (1, 2, 3):
        fan_out.send(topic, event(seq), topic.listeners)
    fan_out.send(other, event(1), other.listeners)
    await until_turns_begin()
    fan_out.send(topic, event(4), topic.listeners)
    await until_turns_begin()

    assert all(reader.writes == [[1, 2, 3], [4]] for reader in readers)
    assert others[0].writes == [[1]]


@pytest.mark.usefixtures("written")
async def test_what_one_lane_brings_to_different_people_is_there_in_the_same_round() -> None:
    topic, readers = audience(3)
    fan_out = FanOut()
    for seq, reader in enumerate(readers):
        fan_out.send(topic, event(seq, subject=f"user.{seq}"), [reader])
    fan_out.send(topic, event(3, subject="all"), readers)
    await until_turns_begin()

    assert [reader.writes for reader in readers] == [[[0], [3]], [[1], [3]], [[2], [3]]]


async def test_who_left_before_the_turn_gets_nothing_and_finishing_waits_for_nothing() -> None:
    topic, readers = audience(3)
    fan_out = FanOut()
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.forget(topic, readers[0])
    fan_out.finish(topic)
    finished = [list(reader.got) for reader in readers]
    await until_turns_begin()

    assert finished == [reader.got for reader in readers] == [[], [1], [1]]


@pytest.mark.usefixtures("written")
async def test_an_answer_goes_in_one_write_with_what_waits_and_to_nobody_else() -> None:
    topic, readers = audience(3)
    fan_out = FanOut()
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.answer(topic, readers[1], event(100))
    fan_out.answer(topic, readers[1], event(101))
    await until_turns_begin()

    assert [reader.writes for reader in readers] == [[[1]], [[1, 100], [101]], [[1]]]
    assert readers[1].got == [1, 100, 101]


async def test_an_answer_comes_at_once_where_nothing_waits_or_where_a_lane_gets_busy() -> None:
    topic, readers = audience(3)
    fan_out, answered = FanOut(), readers[0]
    fan_out.answer(topic, answered, event(100))
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.answer(topic, answered, event(101))
    fan_out.send(topic, event(2), topic.listeners)

    assert answered.got == [100, 101]


async def test_an_answer_is_not_forgotten_with_what_it_would_have_gone_with() -> None:
    topic, readers = audience(3)
    fan_out, leaver = FanOut(), readers[0]
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.answer(topic, leaver, event(100))
    fan_out.forget(topic, leaver)
    await until_turns_begin()

    assert [reader.got for reader in readers] == [[100], [1], [1]]


async def test_what_waits_is_written_before_somebody_is_closed() -> None:
    topic, readers = audience(3)
    fan_out = FanOut()
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.answer(topic, readers[1], event(100))
    fan_out.settle()

    assert [reader.got for reader in readers] == [[1], [1, 100], [1]]


async def test_a_large_audience_gets_everything_in_order_and_the_loop_runs_when_a_turn_is_over() -> None:
    topic, readers = audience(3 * SLICE + 1)
    fan_out = FanOut(SlowClock())
    for seq in (1, 2, 3):
        fan_out.send(topic, event(seq), topic.listeners)
    await until_turns_begin()
    in_the_first_turn = sum(len(reader.got) for reader in readers)
    await until_idle(readers, 3)

    assert all(reader.got == [1, 2, 3] for reader in readers)
    assert in_the_first_turn == 3 * SLICE


async def test_a_turn_is_as_many_slices_as_there_is_time_for() -> None:
    topic, readers = audience(3 * SLICE + 1)
    FanOut(clock=lambda: 0.0).send(topic, event(1), topic.listeners)
    await until_turns_begin()

    assert all(reader.got == [1] for reader in readers)


async def test_many_small_audiences_are_no_more_than_a_slice_in_one_go() -> None:
    rooms = [audience(FEW) for _ in range(3 * SLICE // FEW)]
    fan_out, readers = FanOut(SlowClock()), [reader for _, readers in rooms for reader in readers]
    for topic, _ in rooms:
        fan_out.send(topic, event(1), topic.listeners)
    await until_turns_begin()
    in_the_first_turn = sum(len(reader.got) for reader in readers)
    await until_idle(readers, 1)

    assert in_the_first_turn == SLICE
    assert all(reader.got == [1] for reader in readers)


@pytest.mark.parametrize("size", [SLICE_BYTES // 100, SLICE_BYTES // FEW, SLICE_BYTES])
async def test_of_large_events_fewer_are_written_in_one_go(size: int) -> None:
    topic, readers = audience(SLICE)
    rooms = [audience(FEW // 2) for _ in range(SLICE // FEW * 2)]
    members = [reader for _, readers in rooms for reader in readers]
    of_one, of_rooms = FanOut(SlowClock()), FanOut(SlowClock())
    of_one.send(topic, event(1, size), topic.listeners)
    for room, _ in rooms:
        of_rooms.send(room, event(1, size), room.listeners)
    await until_turns_begin()
    written = [sum(len(reader.got) for reader in reached) * size for reached in (readers, members)]
    await until_idle([*readers, *members], 1)

    assert all(0 < each <= max(SLICE_BYTES + FEW * size // 2, FEW * size) for each in written)


async def test_a_large_audience_and_small_ones_that_go_on_and_on_get_a_turn_each() -> None:
    (topic, readers), (room, members) = audience(4 * SLICE), audience(1)
    fan_out, said = FanOut(SlowClock()), 0
    fan_out.send(topic, event(1), topic.listeners)
    async with asyncio.timeout(5):
        while any(reader.got != [1] for reader in readers):
            said += 1
            fan_out.send(room, event(said, subject=f"room.{said}"), room.listeners)
            await asyncio.sleep(0)
    meanwhile = len(members[0].got)
    await until_idle(members, said)

    assert said <= 12
    assert meanwhile >= 3
    assert members[0].got == list(range(1, said + 1))


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


@pytest.mark.usefixtures("written")
async def test_a_burst_is_one_write_to_each() -> None:
    topic, readers = audience(3 * SLICE + 1)
    fan_out = FanOut(SlowClock())
    for seq in range(1, 21):
        fan_out.send(topic, event(seq), topic.listeners)
    await until_idle(readers, 20)

    assert all(reader.writes == [list(range(1, 21))] for reader in readers)


@pytest.mark.usefixtures("written")
async def test_what_comes_while_an_event_is_on_its_way_goes_along_and_round_to_those_it_had_passed() -> None:
    topic, readers = audience(3 * SLICE)
    fan_out = FanOut(SlowClock())
    fan_out.send(topic, event(1), topic.listeners)
    await until_turns_begin()
    fan_out.send(topic, event(2), topic.listeners)
    fan_out.send(topic, event(3), topic.listeners)
    await until_idle(readers, 3)

    assert all(reader.writes == [[1], [2, 3]] for reader in readers[:SLICE])
    assert all(reader.writes == [[1, 2, 3]] for reader in readers[SLICE:])


@pytest.mark.usefixtures("written")
async def test_no_write_joins_more_than_its_bound_and_what_is_larger_goes_alone() -> None:
    topic, readers = audience(SLICE + 1)
    fan_out, half = FanOut(SlowClock()), SLICE_BYTES // SLICE // 2
    for seq, size in enumerate((half, half, 1, SLICE_BYTES // FEW + 1, 1), 1):
        fan_out.send(topic, event(seq, size), topic.listeners)
    await until_idle(readers, 5)

    assert all(reader.writes == [[1, 2], [3], [4], [5]] for reader in readers)


@pytest.mark.usefixtures("written")
async def test_where_one_is_through_there_is_room_for_the_next() -> None:
    topic, readers = audience(2 * SLICE)
    fan_out, half = FanOut(SlowClock()), SLICE_BYTES // SLICE // 2
    fan_out.send(topic, event(1, half), topic.listeners)
    await asyncio.sleep(0)
    for seq in (2, 3):
        await asyncio.sleep(0)
        fan_out.send(topic, event(seq, half), topic.listeners)
    await until_idle(readers, 3)

    assert all(reader.writes == [[1], [2, 3]] for reader in readers[:SLICE])


@pytest.mark.usefixtures("written")
async def test_events_for_others_in_a_lane_are_not_overtaken_by_those_that_follow() -> None:
    topic, readers = audience(2 * SLICE)
    fan_out, some = FanOut(SlowClock()), readers[:5]
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.send(topic, event(2), some)
    fan_out.send(topic, event(3), topic.listeners)
    await until_idle(readers, 3)

    assert all(reader.writes == [[1], [2], [3]] for reader in some)
    assert all(reader.writes == [[1], [3]] for reader in readers[5:])


async def test_one_that_left_and_is_back_gets_what_comes_from_then_on() -> None:
    topic, readers = audience(2 * SLICE)
    fan_out, back = FanOut(), readers[-1]
    fan_out.send(topic, event(1), topic.listeners)
    fan_out.forget(topic, back)
    fan_out.send(topic, event(2), topic.listeners)
    await until_idle(readers, 2)

    assert back.got == [2]


class Room:
    """A topic whose members come and go while events are on their way to them; beside what one by one would bring.

    Attributes:
        owed: to each who was ever there, all that was sent while it was; of one that left, what it had by then.
    """

    def __init__(self, size: int) -> None:
        self.fan_out = FanOut(SlowClock())
        self.members = [Reader() for _ in range(size)]
        self.owed: dict[Reader, list[int]] = {member: [] for member in self.members}
        self.sent = 0

    def send(self, first: int) -> None:
        """Send to all from a place on: to all of them mostly, as in a room, or to some, as on a line."""
        self.sent += 1
        receivers = self.members[first:]
        for member in receivers:
            self.owed[member].append(self.sent)
        self.fan_out.send("lane", event(self.sent, subject=f"s{first}"), receivers)

    def join(self) -> None:
        self.members.append(Reader())
        self.owed[self.members[-1]] = []

    def leave(self, place: int) -> None:
        if place < len(self.members):
            leaver = self.members.pop(place)
            self.fan_out.forget("lane", leaver)
            assert leaver.got == self.owed[leaver][: len(leaver.got)]
            self.owed[leaver] = list(leaver.got)

    def finish(self) -> None:
        self.fan_out.finish("lane")
        assert all(member.got == self.owed[member] for member in self.members)


PLACES = st.integers(0, 9)
STEPS = st.one_of(
    st.tuples(st.just("send"), st.sampled_from((0, 0, 0, 1, 5))),
    st.tuples(st.just("leave"), PLACES),
    st.tuples(st.sampled_from(("join", "turn", "turn", "finish"))),
)


@given(st.integers(0, 9), st.lists(STEPS, max_size=60))
def test_whatever_happens_in_between_each_gets_what_one_by_one_would_bring(
    size: int, steps: list[tuple[str] | tuple[str, int]]
) -> None:
    async def live_through() -> None:
        room = Room(size)
        for name, *place in steps:
            if name == "turn":
                await asyncio.sleep(0)
            else:
                getattr(room, name)(*place)
        async with asyncio.timeout(5):
            while any(reader.got != owed for reader, owed in room.owed.items()):
                await asyncio.sleep(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanout, "SLICE", 2)
        asyncio.run(live_through())


@pytest.mark.usefixtures("written")
@pytest.mark.parametrize("size", [10, FEW + 10])
async def test_what_is_not_for_its_sender_is_joined_for_all_others_as_what_is_for_everybody(size: int) -> None:
    """Moves of players that come together are one write for each, not one for each move."""
    topic, readers = audience(size)
    fan_out = FanOut()
    for seq in (1, 2, 3):
        move = event(seq)
        move.but = readers[seq]
        fan_out.send(topic, move, topic.listeners)
    fan_out.send(topic, event(4), topic.listeners)
    await until_idle(readers, 4)

    for number, reader in enumerate(readers):
        assert reader.writes == [[seq for seq in (1, 2, 3, 4) if seq == 4 or seq != number]]


@pytest.mark.usefixtures("written")
async def test_what_is_for_nobody_but_its_sender_is_written_to_nobody() -> None:
    topic, readers = audience(1)
    alone = event(1)
    alone.but = readers[0]
    FanOut().send(topic, alone, topic.listeners)
    FanOut().send(topic, event(2), topic.listeners)
    await until_idle(readers, 2)

    assert readers[0].writes == [[2]]


async def test_it_says_how_much_of_a_lane_waits() -> None:
    topic, readers = audience(SLICE * 2)
    fan_out = FanOut()
    counts = [fan_out.waiting(topic)]
    for seq in (1, 2, 3):
        fan_out.send(topic, event(seq), topic.listeners)
        counts.append(fan_out.waiting(topic))
    await until_idle(readers, 3)

    assert [*counts, fan_out.waiting(topic)] == [0, 1, 2, 3, 0]


@pytest.mark.usefixtures("written")
async def test_an_answer_to_a_sender_brings_it_nothing_that_it_has_sent_itself() -> None:
    topic, readers = audience(3)
    fan_out, move = FanOut(), event(1)
    move.but = readers[0]
    fan_out.send(topic, move, topic.listeners)
    fan_out.answer(topic, readers[0], event(9))
    await until_idle(readers[1:], 1)

    assert [reader.writes for reader in readers] == [[[9]], [[1]], [[1]]]
