"""Who may be in a room, and how often that is asked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest

from services.chat import rooms as module
from services.chat.records import MAX_MEMBERS, RoomRecord
from services.chat.rooms import CACHE_S, LISTED_AT_ONCE, Rooms
from shared.auth.principal import Principal
from shared.broker.memory import MemoryBroker, MemoryServer, MemorySubscription
from shared.broker.port import Entry, Handler, Message
from shared.contracts import subjects
from shared.errors import Forbidden, Unavailable
from tests.support.waiting import eventually


class SlowBroker(MemoryBroker):
    """A broker that counts reads and answers them when it is told to."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.reads = 0
        self.answer = asyncio.Event()

    async def get(self, bucket: str, *tokens: str) -> Entry | None:
        self.reads += 1
        await self.answer.wait()
        return await super().get(bucket, *tokens)


def user(name: str) -> Principal:
    return Principal(name, name, "s", frozenset(), 2_000_000_000, 0)


@pytest.fixture
def clock() -> list[float]:
    return [0.0]


@pytest.fixture
def broker() -> SlowBroker:
    return SlowBroker(MemoryServer())


@pytest.fixture
async def rooms(broker: SlowBroker, clock: list[float]) -> AsyncIterator[Rooms]:
    rooms = Rooms(broker, on_private=lambda _record: None, clock=lambda: clock[0])
    await rooms.start()
    yield rooms
    await rooms.close()


async def test_all_who_come_to_a_room_at_once_cost_one_read(rooms: Rooms, broker: SlowBroker) -> None:
    coming = [asyncio.ensure_future(rooms.admit(user(f"u{number}"), "lobby")) for number in range(50)]
    await asyncio.sleep(0)
    coming[0].cancel()  # one who leaves again does not take the answer from the others
    await asyncio.sleep(0)
    broker.answer.set()
    await asyncio.gather(*coming[1:])

    assert broker.reads == 1


async def test_a_room_is_asked_about_again_after_its_time(rooms: Rooms, broker: SlowBroker, clock: list[float]) -> None:
    broker.answer.set()
    await rooms.admit(user("ann"), "lobby")
    await rooms.admit(user("bob"), "lobby")
    clock[0] += CACHE_S
    await rooms.admit(user("ann"), "lobby")

    assert broker.reads == 2


async def test_one_read_answers_each_for_himself(rooms: Rooms, broker: SlowBroker) -> None:
    broker.answer.set()
    await rooms.create(user("ann"), "den", title="", private=True, members=["bob"])
    rooms._cache.clear()
    answers = await asyncio.gather(
        *(rooms.admit(user(name), "den") for name in ("ann", "bob", "eve")), return_exceptions=True
    )

    assert [answer.room for answer in answers[:2] if isinstance(answer, RoomRecord)] == ["den", "den"]
    assert isinstance(answers[2], Forbidden)


async def test_a_read_that_fails_is_made_again_for_the_next(rooms: Rooms, broker: SlowBroker) -> None:
    broker.answer.set()
    await broker.close()
    for _ in range(2):
        with pytest.raises(Unavailable):
            await rooms.admit(user("ann"), "lobby")

    assert broker.reads == 2


async def test_who_was_removed_while_the_room_was_read_is_not_let_in_by_what_was_read(
    rooms: Rooms, broker: SlowBroker, clock: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.answer.set()
    await rooms.create(user("ann"), "den", title="", private=True, members=["bob"])
    clock[0] += CACHE_S
    overtaken = await broker.get(subjects.ROOMS, "den")
    assert overtaken is not None
    elsewhere = Rooms(MemoryBroker(broker._server), on_private=lambda _record: None)

    async def read(*_: str) -> Entry | None:
        """Answer with what there was before bob was removed at another edge, which is heard first."""
        await elsewhere.set_member(user("ann"), "den", "bob", member=False)
        await eventually(lambda: (known := rooms._cache["den"].record) is not None and not known.members)
        return overtaken

    monkeypatch.setattr(broker, "get", read)
    for _ in range(2):
        with pytest.raises(Forbidden):
            await rooms.admit(user("bob"), "den")


async def test_others_are_served_while_rooms_with_many_members_are_listed() -> None:
    server = MemoryServer()
    broker = MemoryBroker(server)
    members = tuple(f"user-{number:04d}-{'x' * 40}" for number in range(MAX_MEMBERS))
    for number in range(LISTED_AT_ONCE):
        record = RoomRecord(room=f"r{number}", private=True, owner="o", members=members, created_at=0)
        await broker.put(subjects.ROOMS, record.room, value=record.to_json(), expect=0)
    rooms = Rooms(broker, on_private=lambda _record: None)
    listing = asyncio.ensure_future(rooms.visible(user("o"), 0))
    turns = 0
    while not listing.done():
        turns += 1
        await asyncio.sleep(0)
    found, following = await listing

    assert (len(found), following) == (LISTED_AT_ONCE, None)
    assert turns > 5  # some 30 ms of reading, 3 at a time


# -- news that is lost ------------------------------------------------------------------------------------------------


class DeafBroker(MemoryBroker):
    """A broker that tells nothing of changed rooms, and fails to read them when it is told to."""

    fails = False
    failures = 0

    async def subscribe(self, pattern: str, handler: Handler) -> MemorySubscription:
        deaf = pattern == subjects.bucket_changes(subjects.ROOMS)
        return await super().subscribe(subjects.live("nothing") if deaf else pattern, handler)

    async def read_last(self, stream: str, subjects: Sequence[str]) -> list[Message]:
        if self.fails:
            self.failures += 1
            raise Unavailable
        return await super().read_last(stream, subjects)


class DeafEdge:
    """An edge that hears nothing of changes, with somebody in each room; what it has put out."""

    def __init__(self, server: MemoryServer, *occupied: str) -> None:
        self.broker = DeafBroker(server)
        self.admitted: dict[str, RoomRecord] = {}
        self.rooms = Rooms(self.broker, on_private=self._note, occupied=lambda: occupied)

    def _note(self, records: Mapping[str, RoomRecord]) -> None:
        self.admitted.update(records)

    def is_in(self, room: str, name: str) -> bool:
        return room not in self.admitted or self.admitted[room].admits(name)


@pytest.mark.parametrize("cause", ["time", "a new leader"])
async def test_who_was_removed_is_put_out_though_the_news_of_it_was_lost(
    cause: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if cause == "time":
        monkeypatch.setattr(module, "CACHE_S", 0.05)
    server = MemoryServer()
    edge, elsewhere = DeafEdge(server, "den", "open"), Rooms(MemoryBroker(server), on_private=lambda _records: None)
    await elsewhere.create(user("ann"), "den", title="", private=True, members=["bob"])
    await edge.rooms.start()
    await edge.rooms.admit(user("bob"), "den")
    await elsewhere.set_member(user("ann"), "den", "bob", member=False)
    assert edge.is_in("den", "bob")
    if cause == "a new leader":
        await edge.broker.publish(subjects.leader_elected(subjects.bucket_stream(subjects.ROOMS)), b"{}")

    await eventually(lambda: not edge.is_in("den", "bob"))
    assert edge.is_in("den", "ann")
    assert "open" not in edge.admitted
    await edge.rooms.close()


async def test_a_review_that_fails_is_made_again_and_no_record_that_cannot_be_read_stops_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "CACHE_S", 0.05)
    monkeypatch.setattr(module, "REVIEWED_AGAIN_AFTER_S", 0.01)
    server = MemoryServer()
    edge, elsewhere = DeafEdge(server, "broken", "den"), Rooms(MemoryBroker(server), on_private=lambda _records: None)
    await edge.broker.put(subjects.ROOMS, "broken", value=b"no record")
    await elsewhere.create(user("ann"), "den", title="", private=True, members=[])
    edge.broker.fails = True
    await edge.rooms.start()
    await eventually(lambda: edge.broker.failures > 1)
    edge.broker.fails = False

    await eventually(lambda: not edge.is_in("den", "bob"))
    assert "broken" not in edge.admitted
    with pytest.raises(Unavailable, match="cannot be read"):
        await edge.rooms.admit(user("bob"), "broken")
    await edge.rooms.close()


async def test_what_a_newer_edge_has_noted_of_a_room_is_kept_by_one_that_does_not_know_it(broker: SlowBroker) -> None:
    broker.answer.set()
    rooms = Rooms(broker, on_private=lambda _records: None)
    newer = b'{"room":"den","private":true,"owner":"ann","createdAt":1,"colour":"red"}'
    await broker.put(subjects.ROOMS, "den", value=newer)
    shown = (await rooms.set_member(user("ann"), "den", "bob", member=True)).to_data()
    stored = await broker.get(subjects.ROOMS, "den")

    assert stored is not None
    assert b'"colour":"red"' in stored.value
    assert b'"bob"' in stored.value
    assert "colour" not in shown
    assert "closed" not in shown
