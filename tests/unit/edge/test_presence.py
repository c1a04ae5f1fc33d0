"""Presence is what the keys say: told once, kept through a reload, and healed when the keys are lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack

import pytest

from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message
from shared.contracts import subjects
from shared.edge import lately as lately_module
from shared.edge import living as living_module
from shared.edge import presence as presence_module
from shared.edge.departures import TURN_S
from shared.edge.living import EDGE_LEASE
from shared.edge.presence import GRACE_S, MOVING_GRACE_S, Presence
from shared.edge.roster import users_in
from shared.edge.timers import Wheel
from shared.errors import Unavailable
from tests.support.waiting import eventually

ROOM = "room"


class Hand:
    """The clock of all wheels."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class EdgeOfOne:
    """One edge's presence, and what its clients were told."""

    def __init__(self, server: MemoryServer, name: str, hand: Hand) -> None:
        self.name, self._hand = name, hand
        self._server = server
        self.broker, self.wheel = MemoryBroker(server), Wheel(hand)
        self.told: list[tuple[str, bool]] = []
        self.presence = Presence(self.broker, name, wheel=self.wheel, on_change=self._note)

    def _note(self, room: str, user: str, _name: str, online: bool) -> None:
        assert room == ROOM
        self.told.append((user, online))

    async def join(self, user: str) -> list[str]:
        await self.presence.join(ROOM, user, user.title())
        return self.presence.listed(ROOM, user)

    def leave(self, user: str, *, after_s: float = GRACE_S + 0.1, moving: bool = False) -> None:
        """End a connection, and let time pass."""
        self.presence.leave(ROOM, user, moving=moving)
        self._hand.now_s += after_s
        self.wheel.turn()

    def pass_time(self, seconds: float) -> None:
        """Let the wheel fire what is due by then."""
        self._hand.now_s += seconds
        self.wheel.turn()

    async def has_on_roster(self, user: str) -> bool:
        """Say whether the broker knows that `user` is here."""
        entry = await self.broker.get(subjects.PRESENCE, ROOM, self.name)
        return entry is not None and user in dict(users_in(entry.value))

    def left(self) -> list[str]:
        """Return of whom backends were told that they left, in order."""
        stored = self._server.stream(subjects.LEFT).find(subjects.ALL_PRESENCE_GONE)
        return [subjects.tokens_after(message.subject, 3)[0] for message in stored]

    async def hears(self, *told: tuple[str, bool]) -> None:
        """Return once clients have been told this, in any order, and nothing else."""
        await eventually(lambda: sorted(self.told) == sorted(told), deadline_s=3)


class NoPatience:
    """Pauses that are always due."""

    async def when_due(self) -> None:
        await asyncio.sleep(0)


Maker = Callable[[str], Awaitable[EdgeOfOne]]


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Maker]:
    monkeypatch.setattr(presence_module, "FLUSH_S", 0.01)
    server, hand = MemoryServer(), Hand()
    async with AsyncExitStack() as stack:

        async def make(name: str) -> EdgeOfOne:
            made = EdgeOfOne(server, name, hand)
            await made.presence.start()
            stack.push_async_callback(made.presence.close)
            return made

        yield make


async def test_who_comes_and_goes_is_told_once_on_every_edge(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    await a.hears(("witness", True), ("bob", True))
    b.leave("bob")

    await a.hears(("witness", True), ("bob", True), ("bob", False))


async def test_a_second_connection_of_a_user_is_told_to_nobody(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    for one in (a, b, b):
        await one.join("bob")
    await a.hears(("witness", True), ("bob", True))
    a.leave("bob")
    b.leave("bob")
    await b.join("end")
    await a.hears(("witness", True), ("bob", True), ("end", True))

    b.leave("bob")
    await a.hears(("witness", True), ("bob", True), ("end", True), ("bob", False))


async def test_whoever_is_back_within_the_grace_never_left(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    await a.hears(("witness", True), ("bob", True))
    b.leave("bob", after_s=GRACE_S - 0.1)
    await b.join("fence")
    await a.hears(("witness", True), ("bob", True), ("fence", True))
    await b.join("bob")
    b.leave("nobody", after_s=1)
    await b.join("end")

    await a.hears(("witness", True), ("bob", True), ("fence", True), ("end", True))


async def test_an_edge_whose_lease_lapses_takes_with_it_whom_nobody_else_has(edge: Maker) -> None:
    a, b, c = await edge("a"), await edge("b"), await edge("c")
    await a.join("witness")
    for user in ("bob", "carol"):
        await b.join(user)
    await c.join("carol")
    known = [("witness", True), ("bob", True), ("carol", True)]
    await a.hears(*known)
    await b.broker.delete(subjects.LEASES, EDGE_LEASE, "b")
    await a.hears(*known, ("bob", False))
    assert sorted(await a.presence.members(ROOM)) == ["carol", "witness"]

    await b.presence._living.renew()
    await a.hears(*known, ("bob", False), ("bob", True))


async def test_an_edge_that_stops_counts_until_its_users_had_time_to_move_and_leaves_nobody_behind(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(living_module, "LINGER_S", 1)
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    for user in ("bob", "carol"):
        await b.join(user)
    known = [("witness", True), ("bob", True), ("carol", True)]
    await a.hears(*known)
    await b.presence.close()
    assert sorted(a.told) == sorted(known)
    await a.join("carol")

    await a.hears(*known, ("bob", False))
    a.pass_time(0.1)
    await eventually(lambda: a.left() == ["bob"], deadline_s=3)
    assert await a.broker.get(subjects.PRESENCE, ROOM, "b") is None


async def test_a_roster_that_the_broker_lost_is_written_again(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    await a.hears(("witness", True), ("bob", True))
    await a.broker.delete(subjects.PRESENCE, ROOM, "b")

    async def written_again() -> bool:
        return await a.broker.get(subjects.PRESENCE, ROOM, "b") is not None

    await eventually(written_again, deadline_s=3)
    await a.hears(("witness", True), ("bob", True), ("bob", False), ("bob", True))


async def test_when_the_broker_comes_back_empty_all_is_written_again_and_nobody_is_seen_to_leave(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    for one in (a, b):
        await one.hears(("witness", True), ("bob", True))
    server = a.broker._server
    server.stop()
    for bucket in (subjects.PRESENCE, subjects.LEASES):
        server.recreate(subjects.bucket_stream(bucket))
    server.start()

    async def stands_again() -> bool:
        return await a.has_on_roster("witness") and await b.has_on_roster("bob")

    await eventually(stands_again, deadline_s=3)
    for one in (a, b):
        await one.presence._living.read()
        await one.presence._read_rosters([ROOM])
        assert sorted(one.told) == [("bob", True), ("witness", True)]
        assert await one.presence.members(ROOM) == {"bob": "Bob", "witness": "Witness"}


async def test_what_a_read_does_not_find_that_spans_a_break_of_the_link_is_not_taken_for_gone(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lately_module, "LATELY_S", 0.0)
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    await a.hears(("witness", True), ("bob", True))
    read = a.broker.read_last

    async def of_an_empty_store(stream: str, keys: Sequence[str]) -> list[Message]:
        a.broker._server.stop()
        a.broker._server.start()
        return [message for message in await read(stream, keys) if not message.subject.endswith(".b")]

    monkeypatch.setattr(a.broker, "read_last", of_an_empty_store)
    await a.presence._living.read()
    await a.presence._read_rosters([ROOM])

    assert sorted(a.told) == [("bob", True), ("witness", True)]
    assert await a.presence.members(ROOM) == {"bob": "Bob", "witness": "Witness"}


async def test_its_own_users_are_not_seen_to_leave_when_the_broker_has_lost_who_they_are(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await edge("a")
    await a.join("witness")
    await a.hears(("witness", True))
    monkeypatch.setattr(lately_module, "LATELY_S", 0.0)  # long ago
    a.broker._server.recreate(subjects.bucket_stream(subjects.PRESENCE))  # and nobody is told
    await a.presence._read_rosters([ROOM])

    await eventually(lambda: a.has_on_roster("witness"), deadline_s=3)
    assert a.told == [("witness", True)]


async def test_a_change_that_was_missed_is_seen_when_the_keys_are_read_again(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await a.hears(("witness", True))
    for subscription in a.broker._subscriptions:  # the live repeat gets lost
        await subscription.close()
    await b.join("bob")

    async def stored() -> bool:
        return await a.broker.get(subjects.PRESENCE, ROOM, "b") is not None

    await eventually(stored, deadline_s=3)
    assert a.told == [("witness", True)]
    await a.presence._living.read()
    await a.presence._read_rosters([ROOM])

    await a.hears(("witness", True), ("bob", True))


async def test_what_was_heard_while_the_keys_were_read_is_newer_than_what_was_read(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await a.hears(("witness", True))
    stored = a.presence._stored_rosters

    async def behind(rooms: list[str]) -> dict[str, dict[str, bytes]]:
        """Read, and hear of what changes before who asked goes on."""
        found = await stored(rooms)
        await b.join("bob")
        await a.hears(("witness", True), ("bob", True))
        return found

    monkeypatch.setattr(a.presence, "_stored_rosters", behind)
    await a.presence._read_rosters([ROOM])

    assert a.told == [("witness", True), ("bob", True)]
    assert await a.presence.members(ROOM) == {"bob": "Bob", "witness": "Witness"}


async def test_who_was_heard_to_go_while_the_keys_were_read_is_not_back(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    await a.hears(("witness", True), ("bob", True))
    monkeypatch.setattr(lately_module, "LATELY_S", 0.0)  # long ago
    stored = a.presence._stored_rosters

    async def behind(rooms: list[str]) -> dict[str, dict[str, bytes]]:
        found = await stored(rooms)
        b.leave("bob")
        await a.hears(("witness", True), ("bob", True), ("bob", False))
        return found

    monkeypatch.setattr(a.presence, "_stored_rosters", behind)
    await a.presence._read_rosters([ROOM])

    assert a.told[2:] == [("bob", False)]


async def test_an_edge_that_comes_while_the_leases_are_read_is_not_taken_for_dead(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = await edge("a")
    await a.join("witness")
    read = a.broker.read_last

    async def behind(stream: str, keys: Sequence[str]) -> list[Message]:
        found = await read(stream, keys)
        b = await edge("b")
        await b.join("bob")
        await a.hears(("witness", True), ("bob", True))
        return found

    monkeypatch.setattr(a.broker, "read_last", behind)
    await a.presence._living.read()
    monkeypatch.setattr(a.broker, "read_last", read)
    await a.presence._read_rosters([ROOM])

    assert a.told == [("witness", True), ("bob", True)]


async def test_when_an_edge_with_many_rooms_goes_they_are_told_in_turns(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(presence_module, "Pauses", NoPatience)
    told: list[str] = []
    a, b = await edge("a"), await edge("b")
    monkeypatch.setattr(a.presence, "_on_change", lambda room, *_: told.append(room))
    monkeypatch.setattr(b.presence, "_on_change", lambda *_: None)
    rooms = [f"r{number}" for number in range(20)]
    for room in rooms:
        await a.presence.join(room, "witness", "Witness")
        await b.presence.join(room, "bob", "Bob")
    await eventually(lambda: len(told) == 40, deadline_s=3)
    told.clear()

    await a.broker.delete(subjects.LEASES, EDGE_LEASE, "b")
    seen = set[int]()
    while len(told) < 20:
        await asyncio.sleep(0)
        seen.add(len(told))

    assert sorted(told) == sorted(rooms)
    assert len(seen) > 10


async def test_who_leaves_while_an_earlier_leave_cannot_be_written_is_told_too(
    edge: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await edge("a"), await edge("b")
    for user in ("witness", "ann", "bob"):
        await a.join(user)
    await a.hears(("witness", True), ("ann", True), ("bob", True))
    writing, fail = asyncio.Event(), asyncio.Event()

    async def away(*_: object, **__: object) -> int:
        writing.set()
        await fail.wait()
        raise Unavailable("NATS is away")

    put = a.broker.put
    monkeypatch.setattr(a.broker, "put", away)
    a.leave("ann")
    await writing.wait()
    a.leave("bob")
    monkeypatch.setattr(a.broker, "put", put)
    fail.set()
    await eventually(lambda: bool(a.presence._gone), deadline_s=3)
    a.pass_time(2.0)

    await eventually(lambda: sorted(b.left()) == ["ann", "bob"], deadline_s=3)
    assert await b.presence.members(ROOM) == {"witness": "Witness"}


async def test_who_is_there_can_be_asked_where_nobody_is(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await b.join("bob")

    async def seen() -> bool:
        return await a.presence.members(ROOM) == {"bob": "Bob"}

    await eventually(seen, deadline_s=3)
    assert a.told == []


async def test_backends_hear_of_who_left_every_edge_once_and_of_nobody_who_is_still_there(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    for one, user in ((a, "witness"), (a, "bob"), (b, "bob"), (b, "carol")):
        await one.join(user)
    await a.hears(("witness", True), ("bob", True), ("carol", True))
    a.leave("bob")
    b.leave("carol")
    await eventually(lambda: a.left() == ["carol"], deadline_s=3)
    b.leave("bob")

    await eventually(lambda: a.left() == ["carol", "bob"], deadline_s=3)


async def test_of_who_leaves_two_edges_at_once_backends_hear_once(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    for one in (a, b):
        await one.join("bob")
    await a.hears(("witness", True), ("bob", True))
    a.leave("bob", after_s=0)
    b.leave("bob")
    a.wheel.turn()
    await a.hears(("witness", True), ("bob", True), ("bob", False))

    await eventually(lambda: a.left() == ["bob"], deadline_s=3)


async def test_of_the_users_of_a_dead_edge_backends_hear_once_whichever_edge_sweeps_up(edge: Maker) -> None:
    a, b, c = await edge("a"), await edge("b"), await edge("c")
    await a.join("witness")
    for one, user in ((b, "bob"), (b, "carol"), (c, "carol")):
        await one.join(user)
    await a.hears(("witness", True), ("bob", True), ("carol", True))
    await b.presence._tasks.close()
    await b.broker.delete(subjects.LEASES, EDGE_LEASE, "b")
    await a.hears(("witness", True), ("bob", True), ("carol", True), ("bob", False))
    for one in (a, c, c):  # the first in line, and the one that looks after it
        one.pass_time(TURN_S)
    await eventually(lambda: a.left() == ["bob"], deadline_s=3)

    assert await a.broker.get(subjects.PRESENCE, ROOM, "b") is None
    assert await a.broker.get(subjects.PRESENCE, ROOM, "c") is not None


async def test_the_first_edge_after_all_had_died_sweeps_up(edge: Maker) -> None:
    a = await edge("a")
    await a.join("bob")
    await a.hears(("bob", True))
    await a.presence._tasks.close()
    await a.broker.delete(subjects.LEASES, EDGE_LEASE, "a")

    b = await edge("b")

    assert b.left() == ["bob"]
    assert await b.presence.members(ROOM) == {}


async def test_whoever_was_asked_to_move_has_time_to_come_to_another_edge(edge: Maker) -> None:
    a, b = await edge("a"), await edge("b")
    await a.join("witness")
    await b.join("bob")
    await a.hears(("witness", True), ("bob", True))
    b.leave("bob", after_s=MOVING_GRACE_S - 0.5, moving=True)
    await a.join("bob")
    await eventually(lambda: a.has_on_roster("bob"), deadline_s=3)
    b.pass_time(1)
    await a.join("end")

    await a.hears(("witness", True), ("bob", True), ("end", True))
    assert a.left() == []


@pytest.mark.parametrize("garbage", [b"", b"1", b"[]", b"not json", b'{"users":[]}', b'{"users":{"a b":1}}'])
async def test_what_is_no_roster_keeps_no_edge_from_starting_and_is_nobody(edge: Maker, garbage: bytes) -> None:
    a = await edge("a")
    await a.broker.put(subjects.PRESENCE, ROOM, "dead", value=garbage)
    await a.join("witness")
    await eventually(lambda: a.has_on_roster("witness"), deadline_s=3)
    await a.presence._tasks.close()
    await a.broker.delete(subjects.LEASES, EDGE_LEASE, "a")

    b = await edge("b")

    assert b.left() == ["witness"]
    assert await b.presence.members(ROOM) == {}
