"""What a stream tells of a subject's past is all of it, or it is said that it is not; over the broker in memory."""

from __future__ import annotations

import pytest

from shared.broker.memory import MemoryBroker, MemoryServer
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.edge.continuity.past import COUNTS, is_complete, is_whole, read_past
from shared.edge.delivery.gap import GapReason

ROOM, OTHER = subjects.chat_message("room"), subjects.chat_message("other")


class BusyBroker(MemoryBroker):
    """A broker whose stream grows by a message behind each of the next counts."""

    growths = 0

    async def count_after(self, stream: str, after_seq: int, subject: str = ">") -> int:
        count = await super().count_after(stream, after_seq, subject)
        if self.growths:
            self.growths -= 1
            await store(self, OTHER)
        return count


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
def broker(server: MemoryServer) -> BusyBroker:
    return BusyBroker(server)


async def store(broker: MemoryBroker, *subjects_: str) -> list[int]:
    return [(await broker.append(subject, b"{}", msg_id=new_id())).seq for subject in subjects_]


async def complete_since(broker: MemoryBroker, after_seq: int) -> bool:
    return await is_complete(broker, subjects.CHAT, ROOM, after_seq)


async def test_whose_last_is_still_there_has_lost_nothing_whatever_else_was_dropped(
    server: MemoryServer, broker: BusyBroker
) -> None:
    place, *_ = await store(broker, ROOM, OTHER, OTHER, ROOM)
    server.purge(subjects.CHAT, OTHER)

    assert await complete_since(broker, place)
    assert await complete_since(broker, place + 1)


async def test_what_was_purged_behind_a_place_is_not_complete_though_the_subject_goes_on(
    server: MemoryServer, broker: BusyBroker
) -> None:
    _, place, _ = await store(broker, OTHER, ROOM, ROOM)
    server.purge(subjects.CHAT, ROOM)

    assert not await complete_since(broker, place)
    await store(broker, ROOM)
    assert not await complete_since(broker, place)


async def test_a_subject_that_began_behind_a_place_is_complete_though_others_were_purged_before(
    server: MemoryServer, broker: BusyBroker
) -> None:
    _, _, place = await store(broker, subjects.chat_message("first"), OTHER, subjects.chat_message("third"))
    server.purge(subjects.CHAT, OTHER)
    await store(broker, ROOM, OTHER)

    assert (await broker.state(subjects.CHAT)).deleted == 1
    assert await complete_since(broker, place)


async def test_a_stream_whose_beginning_is_beyond_a_place_is_not_whole(
    server: MemoryServer, broker: BusyBroker
) -> None:
    place, _, _ = await store(broker, ROOM, ROOM, OTHER)
    server.purge(subjects.CHAT, ROOM)

    assert not await is_whole(broker, subjects.CHAT, place)
    assert await is_whole(broker, subjects.CHAT, place + 1)


@pytest.mark.parametrize(("growths", "whole"), [(COUNTS - 1, True), (COUNTS, False)])
async def test_what_is_stored_during_a_count_hides_no_loss_and_makes_count_again_a_few_times(
    server: MemoryServer, broker: BusyBroker, growths: int, whole: bool
) -> None:
    _, _, place = await store(broker, OTHER, ROOM, OTHER)
    server.purge(subjects.CHAT, ROOM)

    broker.growths = growths
    assert await is_whole(broker, subjects.CHAT, place) is whole
    broker.growths = growths
    assert not await is_whole(broker, subjects.CHAT, place - 2)


async def test_the_past_is_read_up_to_its_end_and_no_further(broker: BusyBroker) -> None:
    seqs = await store(broker, ROOM, OTHER, ROOM, ROOM, ROOM)

    past = await read_past(broker, subjects.CHAT, ROOM, seqs[0], seqs[3], limit=10)

    assert isinstance(past, list)
    assert [message.seq for message in past] == [seqs[2], seqs[3]]


async def test_a_past_that_reaches_its_limit_is_too_many(broker: BusyBroker) -> None:
    seqs = await store(broker, *[ROOM] * 4)

    assert await read_past(broker, subjects.CHAT, ROOM, seqs[0], seqs[-1], limit=3) is GapReason.TOO_MANY
    assert len(await read_past(broker, subjects.CHAT, ROOM, seqs[0], seqs[-1], limit=4)) == 3  # type: ignore[arg-type]


async def test_what_is_purged_while_it_is_read_ends_the_reading_and_is_told(
    server: MemoryServer, broker: BusyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, place, end = await store(broker, OTHER, ROOM, ROOM)
    last_seq = broker.last_seq

    async def purged_behind(stream: str, subject: str) -> int:
        last = await last_seq(stream, subject)
        server.purge(subjects.CHAT, ROOM)
        return last

    monkeypatch.setattr(broker, "last_seq", purged_behind)

    assert await read_past(broker, subjects.CHAT, ROOM, place, end, limit=10) is GapReason.EXPIRED
