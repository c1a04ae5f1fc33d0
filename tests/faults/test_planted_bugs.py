"""The checker can fail: six bugs, each planted in a real edge, and each found by what its clients recorded."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Hashable
from typing import Any

import nats
import pytest

from services.chat.rooms import Rooms
from services.chat.session import ChatSession
from shared.broker.provision import provision
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Listener
from shared.edge.fanout import FanOut
from shared.edge.sessions import Sessions
from shared.edge.topics.hub import Hub
from tests.faults.checker import REVOKED_WITHIN_S, Verdict, check
from tests.faults.client import ChatMember
from tests.faults.record import Op, Recorder
from tests.support.edges import Edges, LocalEdge
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

ROOM_SIZE = 5
MANY = 1_100
WINDOW = 100
AWAY_S = 2.5
MARGIN_S = 0.5

Plant = Callable[[pytest.MonkeyPatch], None]


# -- the bugs ---------------------------------------------------------------------------------------------------------


def no_bug(_monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything as it is."""


def drop_every_thousandth(monkeypatch: pytest.MonkeyPatch) -> None:
    real, count = FanOut.send, 0

    def send(self: FanOut, lane: Hashable, event: Event, listeners: Collection[Listener]) -> None:
        nonlocal count
        count += event.type == "chat_message" and bool(listeners)
        if count % 1000:
            real(self, lane, event, listeners)

    monkeypatch.setattr(FanOut, "send", send)


def swap_two(monkeypatch: pytest.MonkeyPatch) -> None:
    real, count, held = FanOut.send, 0, list[tuple[Any, ...]]()

    def send(self: FanOut, *delivery: Any) -> None:
        nonlocal count
        count += delivery[1].type == "chat_message" and bool(delivery[2])
        if count == 500 and not held:
            held.append((self, *delivery))
            return
        real(self, *delivery)
        if held and (self, delivery[0]) == held[0][:2]:
            real(*held.pop())

    monkeypatch.setattr(FanOut, "send", send)


def double_on_reconnect(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Hub.attach

    async def attach(self: Hub, stream: str, subject: str, listener: Listener, after: Position, **rest: Any) -> Any:
        return await real(self, stream, subject, listener, Position(after.epoch, max(0, after.seq - 1)), **rest)

    monkeypatch.setattr(Hub, "attach", attach)


def skip_a_resync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ChatSession, "missed", lambda *_args: None)


def leak_to_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    async def admit(*_args: object) -> None:
        pass

    monkeypatch.setattr(Rooms, "admit", admit)


def ignore_a_revocation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sessions, "revoked", lambda *_args: None)


# -- what happens to a room, with and without them --------------------------------------------------------------------


class AnyEdge:
    """A balancer between edges of this process."""

    def __init__(self, *edges: LocalEdge) -> None:
        self._urls = [edge.url for edge in edges]

    def pick(self) -> str:
        """Return the address of either."""
        return random.choice(self._urls)


class Room:
    """A private room, its members, and a stranger who wants to read along."""

    def __init__(self, edges: Edges, balancer: AnyEdge) -> None:
        self.name, self.recorder = new_id("room-")[:20], Recorder()
        names = [new_id("user-")[:20] for _ in range(ROOM_SIZE + 1)]
        everybody = [ChatMember(name, edges.mint.token(name), balancer, self.recorder, [self.name]) for name in names]
        *self.members, self.stranger = everybody
        self._running = list[asyncio.Task[None]]()

    async def open(self, edge: LocalEdge) -> None:
        """Make the room, and have everybody come."""
        owner, *others = [member.user for member in self.members]
        body = {"room": self.name, "private": True, "members": others}
        answer = await edge.http.post("/api/chat/rooms", json=body, headers=edge.headers(owner))
        assert answer.status_code == 201
        for member in self.members:
            self.recorder.note(Op.ADMIT, member.user, room=self.name)
        self._running = [asyncio.ensure_future(client.run()) for client in (*self.members, self.stranger)]
        await eventually(lambda: all(member.is_open for member in self.members))
        await eventually(lambda: self.stranger.is_open or self.stranger.leaving)

    async def say(self, count: int) -> None:
        """Have one after the other say something, and wait until it is stored."""
        for number in range(count):
            self.members[1 + number % (ROOM_SIZE - 1)].say(self.name)
            if number % WINDOW == 0:
                await self.all_acked()
        await self.all_acked()

    async def all_acked(self) -> None:
        """Return when all that was said is stored."""
        await eventually(lambda: not any(member.pending for member in self.members))

    async def close(self) -> None:
        """Have everybody go."""
        for client in (*self.members, self.stranger):
            client.leave()
        await asyncio.gather(*self._running)


async def live_through(edges: Edges, nats_server: NatsServer) -> Verdict:
    """Talk much, reconnect, come back to a stream made anew, end a session; return what that proves."""
    one, other = await edges.chat(message_limit=10_000), await edges.chat(message_limit=10_000)
    room = Room(edges, AnyEdge(one, other))
    await room.open(one)
    await room.say(MANY)
    for member in room.members:
        member.cut()
    await room.say(20)
    await miss_the_end_of_a_stream(room, nats_server)
    await room.say(20)
    await end_a_session(room, nats_server)
    await room.say(1)
    await asyncio.sleep(MARGIN_S)
    await room.close()
    return check(room.recorder.records)


async def miss_the_end_of_a_stream(room: Room, nats_server: NatsServer) -> None:
    """Have a member be away while others talk and the stream is made anew."""
    away = room.members[0]
    await eventually(lambda: away.is_open)
    away.hold(AWAY_S)
    away.cut()
    await eventually(lambda: not away.is_open)
    await room.say(20)
    client = await nats.connect(nats_server.url)
    await client.jetstream().delete_stream(subjects.CHAT)
    await client.close()
    await provision(nats_server.url)
    await room.say(5)
    await eventually(lambda: away.is_open)


async def end_a_session(room: Room, nats_server: NatsServer) -> None:
    """Revoke a member's session, and wait as long as it may take to end."""
    ended = room.members[0]
    client = await nats.connect(nats_server.url)
    await client.jetstream().publish(f"auth.revoked.{ended.user}", ended.revocation())
    await client.close()
    room.recorder.note(Op.REVOKE, ended.user)
    await asyncio.sleep(REVOKED_WITHIN_S + MARGIN_S)


@pytest.mark.quick
@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("plant", "broken"),
    [
        (no_bug, set()),
        (drop_every_thousandth, {"lost"}),
        (swap_two, {"disordered"}),
        (double_on_reconnect, {"doubled"}),
        (skip_a_resync, {"lost"}),
        (leak_to_a_stranger, {"leaked"}),
        (ignore_a_revocation, {"leaked"}),
    ],
)
async def test_each_planted_bug_is_found_and_nothing_is_where_there_is_none(
    plant: Plant, broken: set[str], own_edges: Edges, nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    verdict = await live_through(own_edges, nats_server)

    print(f"{plant.__name__}: {verdict}")
    found = {kind for kind in ("lost", "doubled", "disordered", "leaked") if getattr(verdict, kind)}
    assert found == broken, verdict.examples
    assert verdict.announced or plant is skip_a_resync
