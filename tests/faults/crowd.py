"""The crowd: chat members in rooms and followers of topics, who talk at a rate while something goes wrong."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import nats.errors
from nats.aio.client import Client as NatsClient

from shared.contracts.ids import new_id
from tests.faults.client import Balancer, ChatMember, Client, Follower, topic_room
from tests.faults.record import NO_EPOCH, Op, Recorder
from tests.support.tokens import Mint

POLL_S = 0.02
PROBE_AGAIN_S = 2.0
STORE_TIMEOUT_S = 2.0
TOKEN_TTL_S = 4 * 3600


@dataclass(frozen=True)
class Size:
    """How large a crowd is, and how much it says.

    Attributes:
        members, room_size: chat members, and how many of them share a room.
        followers, topics: streams, each of one topic and of its user's own notifications.
        messages_hz, notices_hz: over all of them.
    """

    members: int = 40
    room_size: int = 8
    followers: int = 16
    topics: int = 4
    messages_hz: float = 40.0
    notices_hz: float = 20.0


class Announcer:
    """A producer of notifications that repeats each, with the same id, until it is acked.

    Attributes:
        epoch: what the records call this life of the stream.
    """

    def __init__(self, client: NatsClient, recorder: Recorder) -> None:
        self._js, self._recorder = client.jetstream(), recorder
        self._busy: set[asyncio.Task[None]] = set()
        self.epoch = NO_EPOCH

    def announce(self, topic: str) -> str:
        """Publish to a topic, and return the notification's id."""
        given = new_id("n_")
        task = asyncio.ensure_future(self._publish(topic, given))
        self._busy.add(task)
        task.add_done_callback(self._busy.discard)
        return given

    async def done(self) -> None:
        """Return when all has been acked."""
        while self._busy:
            await asyncio.gather(*self._busy)

    def stop(self) -> None:
        """Repeat nothing any more."""
        for task in self._busy:
            task.cancel()

    async def _publish(self, topic: str, given: str) -> None:
        room, data = topic_room(topic), f'{{"id":"{given}","title":"{given}"}}'.encode()
        self._recorder.note(Op.SEND, "producer", room=room, own_id=given)
        while True:
            try:
                ack = await self._js.publish(room, data, timeout=STORE_TIMEOUT_S, headers={"Nats-Msg-Id": given})
                break
            except (nats.errors.Error, TimeoutError):
                await asyncio.sleep(0.1)
        self._recorder.note(Op.ACK, "producer", room=room, id=given, epoch=self.epoch, seq=ack.seq, own_id=given)


class Crowd:
    """Its members come when it is entered and go when it is left; what they saw is in the recorder.

    Attributes:
        rooms, topics: each room's members, and each topic's followers.
    """

    def __init__(
        self, size: Size, chat: Balancer, notifications: Balancer, announcer: Announcer, mint: Mint, recorder: Recorder
    ) -> None:
        self._size, self._announcer, self._recorder = size, announcer, recorder
        self.rooms: dict[str, list[ChatMember]] = {}
        self.topics: dict[str, list[Follower]] = {}
        for room in _names("room", size.members // size.room_size):
            users = _names("user", size.room_size)
            self.rooms[room] = [
                ChatMember(user, mint.token(user, ttl_s=TOKEN_TTL_S), chat, recorder, [room]) for user in users
            ]
        for topic in _names("topic", size.topics):
            users = _names("user", size.followers // size.topics)
            self.topics[topic] = [
                Follower(user, mint.token(user, ttl_s=TOKEN_TTL_S), notifications, recorder, [topic]) for user in users
            ]
        self._tasks: list[asyncio.Task[None]] = []
        self._silent: set[str] = set()

    @property
    def members(self) -> Sequence[ChatMember]:
        """Everybody in the chat."""
        return [member for room in self.rooms.values() for member in room]

    @property
    def followers(self) -> Sequence[Follower]:
        """Everybody with a stream."""
        return [follower for topic in self.topics.values() for follower in topic]

    @property
    def clients(self) -> Sequence[Client]:
        """Everybody."""
        return [*self.members, *self.followers]

    async def come(self, *, within_s: float) -> None:
        """Connect everybody, a few at a time."""
        async with asyncio.timeout(within_s):
            for number, client in enumerate(self.clients, 1):
                self._tasks.append(asyncio.ensure_future(client.run()))
                if number % 50 == 0:
                    await self.all_open()
            await self.all_open()

    async def go(self) -> None:
        """Disconnect everybody."""
        self._announcer.stop()
        for client in self.clients:
            client.leave()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @asynccontextmanager
    async def talking(self) -> AsyncIterator[None]:
        """Have its members talk until the block ends."""
        talks = [
            asyncio.ensure_future(_at_rate(self._size.messages_hz, self._say_something)),
            asyncio.ensure_future(_at_rate(self._size.notices_hz, self._announce_something)),
        ]
        try:
            yield
        finally:
            for talk in talks:
                talk.cancel()
            await asyncio.gather(*talks, return_exceptions=True)

    async def recovered(self, *, within_s: float) -> float:
        """Return how many seconds it takes until something new said everywhere has reached everybody.

        It comes after all that was said before, so that has come too, or its loss was announced.
        """
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(within_s):
                await asyncio.gather(
                    *(self._reaches_room(members) for members in self.rooms.values()),
                    *(self._reaches_topic(topic, followers) for topic, followers in self.topics.items()),
                )
        except TimeoutError:
            raise AssertionError(f"not recovered within {within_s:g} s: {self._who_waits()}") from None
        return time.monotonic() - began_s

    async def settled(self, *, within_s: float) -> None:
        """Return when every message has been acked and has reached everybody."""
        async with asyncio.timeout(within_s):
            while any(member.pending for member in self.members if not member.leaving):  # thousands: no event for each
                await asyncio.sleep(POLL_S)
            await self._announcer.done()
        await self.recovered(within_s=within_s)

    async def all_open(self) -> None:
        """Return when everybody who was started is connected."""
        while not all(client.is_open or client.leaving for client in self.clients[: len(self._tasks)]):
            await asyncio.sleep(POLL_S)

    # -- private ------------------------------------------------------------------------------------------------------

    def _say_something(self) -> None:
        room = random.choice(list(self.rooms))
        random.choice([member for member in self.rooms[room] if not member.leaving]).say(room)

    def _announce_something(self) -> None:
        self._announcer.announce(random.choice(list(self.topics)))

    async def _reaches_room(self, members: Sequence[ChatMember]) -> None:
        """Return when something that one member says has reached every other who is in the room still."""
        self._silent.update(member.user for member in members)
        speaker = next(member for member in members if member.reads and not member.leaving)
        (room,) = speaker.cursors
        own_id = speaker.say(room)
        while own_id in speaker.pending:
            await asyncio.sleep(POLL_S)
        epoch, seq = self._recorder.acked[own_id]
        for member in members:
            while member.is_behind(room, epoch, seq):
                await asyncio.sleep(POLL_S)
            self._silent.discard(member.user)

    async def _reaches_topic(self, topic: str, followers: Sequence[Follower]) -> None:
        self._silent.update(follower.user for follower in followers)
        given, again_s = "", 0.0
        for follower in followers:
            while follower.reads and given not in follower.got:
                if time.monotonic() > again_s:  # what is stored just before a resync is part of what that announces
                    given, again_s = self._announcer.announce(topic), time.monotonic() + PROBE_AGAIN_S
                await asyncio.sleep(POLL_S)
            self._silent.discard(follower.user)

    def _who_waits(self) -> str:
        away = sum(not client.is_open and not client.leaving for client in self.clients)
        unacked = sum(len(member.pending) for member in self.members if not member.leaving)
        members = sum(member.user in self._silent for member in self.members)
        return (
            f"{away} are not connected, {unacked} messages not acked, "
            f"{members} members and {len(self._silent) - members} followers did not hear what was said since"
        )


async def _at_rate(rate_hz: float, act: Callable[[], None]) -> None:
    """Act `rate_hz` times a second, late rather than never."""
    began_s, number = time.monotonic(), 0
    while rate_hz:
        number += 1
        await asyncio.sleep(max(0.0, began_s + number / rate_hz - time.monotonic()))
        act()


def _names(kind: str, count: int) -> list[str]:
    return [new_id(f"{kind}-")[:20] for _ in range(count)]
