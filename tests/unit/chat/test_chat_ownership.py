"""How many rooms a user owns, whatever failed in between; and what a deletion that fails leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress

import pytest

from services.chat import ownership as module
from services.chat.ownership import Ownership
from services.chat.records import RoomRecord
from services.chat.rooms import CACHE_S, CLOSED_S, PURGED_AGAIN_AFTER_S, Rooms
from shared.auth.principal import Principal
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message
from shared.clock import now_ms
from shared.contracts import subjects
from shared.edge.topics.hub import LINGER_S
from shared.errors import Conflict, Forbidden, OutcomeUnknown, QuotaExceeded, Unavailable

ANN = Principal("ann", "Ann", "s", frozenset(), 2_000_000_000, 0)
LIMIT = 3
Later = Callable[[int], None]


class ShakyBroker(MemoryBroker):
    """A broker that fails when it is told to, and counts its reads of rooms.

    Attributes:
        fails: what does not work: `make` a room's record, `purge`, or `list`.
    """

    fails = ""
    comparisons = 0

    async def put(
        self, bucket: str, *tokens: str, value: bytes, expect: int | None = None, ttl_s: int | None = None
    ) -> int:
        if (self.fails, bucket) in {("make", subjects.ROOMS), ("list", subjects.OWNERS)}:
            raise OutcomeUnknown
        return await super().put(bucket, *tokens, value=value, expect=expect, ttl_s=ttl_s)

    async def delete(self, bucket: str, *tokens: str, expect: int | None = None) -> None:
        if (self.fails, bucket) == ("list", subjects.OWNERS):
            raise OutcomeUnknown
        await super().delete(bucket, *tokens, expect=expect)

    async def purge(self, stream: str, subject: str) -> None:
        if self.fails == "purge":
            raise Unavailable
        await super().purge(stream, subject)

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        self.comparisons += 1
        return await super().read_last(stream, subjects)


@pytest.fixture
def broker() -> ShakyBroker:
    return ShakyBroker(MemoryServer())


@pytest.fixture
async def rooms(broker: ShakyBroker) -> AsyncIterator[Rooms]:
    rooms = Rooms(broker, on_private=lambda _record: None, ownership=Ownership(broker, limit=LIMIT))
    await rooms.start()
    yield rooms
    await rooms.close()


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Returns what makes time pass for lists of rooms."""
    gone_ms = [0]
    monkeypatch.setattr(module, "now_ms", lambda: now_ms() + gone_ms[0])

    def minutes(number: int) -> None:
        gone_ms[0] += number * 60_000

    return minutes


async def make(rooms: Rooms, name: str, *, private: bool = False) -> RoomRecord:
    return await rooms.create(ANN, name, title="", private=private, members=())


async def made(rooms: Rooms, names: str) -> list[str]:
    """Return which of several rooms could be made."""
    done = []
    for name in names:
        with suppress(QuotaExceeded):
            done.append((await make(rooms, name)).room)
    return done


async def test_rooms_that_were_never_made_take_no_place_for_long(
    rooms: Rooms, broker: ShakyBroker, later: Later
) -> None:
    broker.fails = "make"
    for name in "abc":
        with pytest.raises(OutcomeUnknown):
            await make(rooms, name)
    broker.fails = ""
    at_once = await made(rooms, "def")
    later(2)

    assert at_once == []
    assert await made(rooms, "defg") == ["d", "e", "f"]


async def test_a_room_whose_name_could_not_be_struck_off_takes_no_place_for_long(
    rooms: Rooms, broker: ShakyBroker, later: Later
) -> None:
    await made(rooms, "abc")
    broker.fails = "list"
    await rooms.delete(ANN, "a")
    broker.fails = ""
    await broker.delete(subjects.ROOMS, "a")  # its time is over
    later(2)

    assert await made(rooms, "de") == ["d"]


async def test_a_list_that_cannot_be_read_keeps_nobody_from_making_rooms(rooms: Rooms, broker: ShakyBroker) -> None:
    await broker.put(subjects.OWNERS, "ann", value=b"nonsense")

    assert await made(rooms, "abcd") == ["a", "b", "c"]


async def test_whoever_keeps_asking_over_their_limit_costs_one_comparison_a_minute(
    rooms: Rooms, broker: ShakyBroker, later: Later
) -> None:
    await made(rooms, "abc")
    later(2)
    assert await made(rooms, "defghi") == []
    assert broker.comparisons == 1
    later(2)
    assert await made(rooms, "defghi") == []
    assert broker.comparisons == 2


async def test_of_many_that_are_made_at_once_at_two_edges_no_more_are_made_than_fit(broker: ShakyBroker) -> None:
    edges = [Rooms(broker, on_private=lambda _record: None, ownership=Ownership(broker, limit=LIMIT)) for _ in "ab"]
    answers = await asyncio.gather(
        *(make(edges[number % 2], f"room-{number}") for number in range(20)), return_exceptions=True
    )

    assert sum(isinstance(answer, RoomRecord) for answer in answers) == LIMIT
    assert {type(answer) for answer in answers} <= {RoomRecord, QuotaExceeded, Conflict}


async def test_a_room_that_could_not_be_purged_admits_nobody_until_it_is(
    rooms: Rooms, broker: ShakyBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.chat.rooms.CLOSED_S", 0)
    await make(rooms, "den", private=True)
    await broker.append(subjects.chat_message("den"), b"secret", msg_id="1")
    broker.fails = "purge"
    with pytest.raises(Unavailable):
        await rooms.delete(ANN, "den")
    await asyncio.sleep(0.05)
    for forget in (False, True):
        if forget:
            rooms._cache.clear()
        with pytest.raises(Forbidden):
            await rooms.admit(ANN, "den")
    broker.fails = ""
    await rooms.delete(ANN, "den")
    async with asyncio.timeout(5):
        while await broker.get(subjects.ROOMS, "den"):
            await asyncio.sleep(0.01)

    assert await broker.last_seq(subjects.CHAT, subjects.chat_message("den")) == 0
    await make(rooms, "den")


def test_a_name_is_free_again_only_when_no_edge_can_still_let_in_store_or_show_what_was_said() -> None:
    append_s = read_s = reconcile_s = 15

    assert CACHE_S + append_s < PURGED_AGAIN_AFTER_S
    assert max(PURGED_AGAIN_AFTER_S + read_s, LINGER_S + reconcile_s) < CLOSED_S
