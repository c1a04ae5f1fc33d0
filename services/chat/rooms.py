"""Rooms: open to every user who may chat, unless made private; then to their members alone."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from services.chat.content import visible
from services.chat.ownership import Ownership
from services.chat.records import MAX_MEMBERS, MAX_TITLE_CHARS, RoomRecord, readable
from shared.auth.principal import Principal
from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s, now_ms
from shared.contracts import subjects
from shared.contracts.ids import require_id
from shared.edge.pauses import Pauses
from shared.errors import Conflict, FanfareError, Forbidden, NotFound, Unavailable
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger

MAX_CACHED_ROOMS = 20_000
LISTED_AT_ONCE = 250
"""How many rooms one call looks at: whoever asks may enter few of them, and pays for each call."""

CACHE_S = 30.0
UPDATE_ATTEMPTS = 8
PURGED_AGAIN_AFTER_S = 50.0
"""What an edge still let in that had missed the news (CACHE_S) and repeated for its 15 s is stored by then."""

CLOSED_S = 90
"""How long a name is nobody's after its room was deleted: past the second purge and what that may wait for, and past
the time that edges keep what was said last in a room without listeners (`hub.LINGER_S`)."""

LAST_PURGES_S = 2.0
REVIEWED_AT_ONCE = 500
REVIEWED_AGAIN_AFTER_S = 1.0
_LISTED = {"room", "title", "private", "owner", "relay"}

OnPrivate = Callable[[Mapping[str, RoomRecord]], None]
"""Called with the records of private rooms that may have changed, by room: whoever one does not admit must leave."""


@dataclass(slots=True)
class _Cached:
    record: RoomRecord | None
    revision: int
    read_at_s: float


class Rooms:
    """Who may be where. Records are kept for CACHE_S and follow every change as it is stored.

    Args:
        occupied: returns the rooms that somebody here is in.
        ownership: limits how many a user owns; None for no limit.
        default_room: it is everybody's: nobody can make it theirs.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        on_private: OnPrivate,
        occupied: Callable[[], Iterable[str]] = tuple,
        ownership: Ownership | None = None,
        default_room: str = "",
        clock: Clock = monotonic_s,
    ) -> None:
        self._broker, self._ownership, self._default_room = broker, ownership, default_room
        self._on_private, self._occupied, self._clock = on_private, occupied, clock
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._reading: dict[str, asyncio.Task[RoomRecord | None]] = {}
        self._closing: set[str] = set()
        self._doubted = asyncio.Event()
        self._tasks = TaskKeeper()

    async def start(self) -> None:
        """Follow changes made at any edge, and review them: news of one may be lost."""
        await self._broker.subscribe(subjects.bucket_changes(subjects.ROOMS), self._changed)
        await self._broker.subscribe(subjects.leader_elected(subjects.bucket_stream(subjects.ROOMS)), self._doubt)
        self._broker.on_reconnect(self._doubt)
        self._tasks.keep(self._review_for_ever, "rooms-review")

    async def close(self) -> None:
        """Follow no more; what was to be purged again is purged now."""
        await self._tasks.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_PURGES_S):
                await asyncio.gather(*map(self._purge_again, list(self._closing)))

    async def admit(self, user: Principal, room: str) -> RoomRecord | None:
        """Return the record of `room`, None if nobody made it; `user` may be there.

        Raises:
            Forbidden: the room is private and the user no member.
        """
        cached = self._cached(room)
        if cached is None:
            record = await self._fresh(require_id(room, "room"))
            cached = self._cached(room)  # a newer one may have been heard since that was read
        record = cached.record if cached is not None else record
        if record is not None and not record.admits(user.user_id):
            raise Forbidden(f"the room {room} is private", room=room)
        return record

    async def create(
        self, user: Principal, room: str, *, title: str, private: bool, members: Sequence[str], relay: bool = False
    ) -> RoomRecord:
        """Make a room, whose title is one line of what a reader may see.

        Raises:
            Conflict: the room has been made already, was deleted just now, or is in use as an open one: whoever could
                make that theirs could put out those who are there, and delete what they said.
            QuotaExceeded: the user owns as many as they may.
        """
        await self._require_free(room)
        shown = " ".join(visible(title).split())[:MAX_TITLE_CHARS]
        record = RoomRecord(
            room=room,
            title=shown,
            private=private,
            owner=user.user_id,
            members=tuple(members),
            created_at=now_ms(),
            relay=relay,
        )
        if self._ownership is not None:
            await self._ownership.note(user.user_id, room)
        revision = await self._broker.put(subjects.ROOMS, room, value=record.to_json(), expect=0)
        self._apply(room, record, revision)
        return record

    async def delete(self, by: Principal, room: str) -> None:
        """Delete a room, for its owner: all must leave, and what was said is purged before its name is free again.

        The record stays, closed, until the purge is done, so that a failure opens no private room; repeat it then.

        Raises:
            NotFound: nobody made this room.
            Forbidden: `by` does not own it.
        """
        record, revision = await self._close(by, room)
        await self._purge(room)
        if room not in self._closing:
            self._closing.add(room)
            self._tasks.spawn(self._purge_later(room), f"purge {room}")
        with suppress(Conflict):  # somebody else has done the same
            await self._broker.put(subjects.ROOMS, room, value=record.to_json(), expect=revision, ttl_s=CLOSED_S)
        if self._ownership is not None:
            await self._ownership.strike(by.user_id, room)

    async def set_member(self, by: Principal, room: str, user: str, *, member: bool) -> RoomRecord:
        """Add or remove a member of a private room; its owner may, and members may remove themselves.

        Raises:
            NotFound: nobody made this room.
            Forbidden: `by` may not.
        """
        for _attempt in range(UPDATE_ATTEMPTS):
            entry = await self._broker.get(subjects.ROOMS, require_id(room, "room"))
            if entry is None:
                raise NotFound("nobody made this room: it is open and has no list of members")
            record = _record(entry.value)
            if record.closed:
                raise NotFound("this room was deleted")
            if by.user_id != record.owner and not (by.user_id == user and not member):
                raise Forbidden("only the owner may change the members")
            others = [name for name in record.members if name != user]
            if member and len(others) >= MAX_MEMBERS:
                raise Conflict(f"a room has at most {MAX_MEMBERS} members")
            changed = record.model_copy(update={"members": (*others, user) if member else tuple(others)})
            try:
                revision = await self._broker.put(subjects.ROOMS, room, value=changed.to_json(), expect=entry.revision)
            except Conflict:
                await asyncio.sleep(0)
                continue
            self._apply(room, changed, revision)
            return changed
        raise Conflict("the room changes too fast; try again")

    async def visible(self, user: Principal, after: int) -> tuple[list[dict[str, Any]], int | None]:
        """Return those of the next LISTED_AT_ONCE rooms that `user` may enter, and where others follow, if any do.

        They come in the order of their last change, so one that changes meanwhile may come twice and is never missed.
        """
        stream, pattern = subjects.bucket_stream(subjects.ROOMS), subjects.bucket_keys(subjects.ROOMS)
        page = await self._broker.read_after(stream, pattern, after, limit=LISTED_AT_ONCE)
        found: list[dict[str, Any]] = []
        pauses = Pauses()
        for message in page.messages:
            await pauses.when_due()  # a record names up to five hundred members
            record = None if message.gone else readable(message.data)
            if record is not None and record.admits(user.user_id):
                found.append(record.model_dump(by_alias=True, include=_LISTED))
        return found, page.messages[-1].seq if page.more and page.messages else None

    # -- private ------------------------------------------------------------------------------------------------------

    async def _require_free(self, room: str) -> None:
        if room == self._default_room:
            raise Conflict("this room is everybody's")
        if await self._broker.get(subjects.ROOMS, require_id(room, "room")) is not None:
            raise Conflict("this room has been made already, or was deleted just now")
        if await self._broker.last_seq(subjects.CHAT, subjects.chat_message(room)):
            raise Conflict("this room is in use, and open to all")

    async def _close(self, by: Principal, room: str) -> tuple[RoomRecord, int]:
        """Have a room admit nobody; return its record and its revision. Errors as `delete`."""
        for _attempt in range(UPDATE_ATTEMPTS):
            entry = await self._broker.get(subjects.ROOMS, require_id(room, "room"))
            if entry is None:
                raise NotFound("nobody made this room: it is open and has no owner")
            record = _record(entry.value)
            if by.user_id != record.owner:
                raise Forbidden("only the owner may delete a room")
            if record.closed:
                return record, entry.revision
            record = record.model_copy(update={"closed": True, "private": True, "members": (), "title": ""})
            try:
                revision = await self._broker.put(subjects.ROOMS, room, value=record.to_json(), expect=entry.revision)
            except Conflict:
                await asyncio.sleep(0)
                continue
            self._apply(room, record, revision)
            return record, revision
        raise Conflict("the room changes too fast; try again")

    async def _purge(self, room: str) -> None:
        await self._broker.purge(subjects.CHAT, subjects.chat_message(room))

    async def _purge_later(self, room: str) -> None:
        await asyncio.sleep(PURGED_AGAIN_AFTER_S)
        await self._purge_again(room)

    async def _purge_again(self, room: str) -> None:
        self._closing.discard(room)
        try:
            await self._purge(room)
        except FanfareError as error:
            get_logger().warning("room_not_purged_again", room=room, reason=str(error))

    def _cached(self, room: str) -> _Cached | None:
        """Return what is known of a room, if it is fresh."""
        cached = self._cache.get(room)
        return cached if cached is not None and self._clock() - cached.read_at_s < CACHE_S else None

    async def _fresh(self, room: str) -> RoomRecord | None:
        if (reading := self._reading.get(room)) is None:  # one read for all who come to a room at once
            reading = self._reading[room] = self._tasks.spawn(self._read(room), f"room {room}")
            reading.add_done_callback(lambda _done: self._reading.pop(room, None))
        return await asyncio.shield(reading)

    async def _read(self, room: str) -> RoomRecord | None:
        entry = await self._broker.get(subjects.ROOMS, room)
        self._apply(room, *((_record(entry.value), entry.revision) if entry else (None, 0)))
        return self._cache[room].record

    def _doubt(self, *_news: Message) -> None:
        """Changes may have been missed: go by nothing that was read before, and review who is where."""
        self._cache.clear()
        self._doubted.set()

    async def _review_for_ever(self) -> None:
        """Review every CACHE_S, and at once when in doubt; until that has been done, again and again."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(CACHE_S):
                    await self._doubted.wait()
            self._doubted.clear()
            try:
                await self._review()
            except FanfareError as error:
                get_logger().warning("rooms_not_reviewed", reason=str(error))
                await asyncio.sleep(REVIEWED_AGAIN_AFTER_S)
                self._doubted.set()

    async def _review(self) -> None:
        """Read the records of all rooms that somebody here is in, and have those leave whom they do not admit."""
        rooms, stream = sorted(self._occupied()), subjects.bucket_stream(subjects.ROOMS)
        for first in range(0, len(rooms), REVIEWED_AT_ONCE):
            keys = [subjects.bucket_key(subjects.ROOMS, room) for room in rooms[first : first + REVIEWED_AT_ONCE]]
            private: dict[str, RoomRecord] = {}
            for message in await self._broker.read_last(stream, keys):
                room = subjects.tokens_after(message.subject, 2)[0]
                record = None if message.gone else readable(message.data)
                if record is None and not message.gone:
                    continue  # it is logged; whoever is in stays, and nobody else gets in
                newest = self._newest(room, record, message.seq)
                if newest is not None and newest.private:
                    private[room] = newest
            if private:
                self._on_private(private)

    def _changed(self, message: Message) -> None:
        room = subjects.tokens_after(message.subject, 3)[0]
        record = None if message.gone else readable(message.data)
        if message.gone or record is not None:
            self._apply(room, record, message.seq)
        else:
            self._cache.pop(room, None)

    def _apply(self, room: str, record: RoomRecord | None, revision: int) -> None:
        """Go by a record from now on, and have those leave whom it does not admit."""
        newest = self._newest(room, record, revision)
        if newest is not None and newest.private:
            self._on_private({room: newest})

    def _newest(self, room: str, record: RoomRecord | None, revision: int) -> RoomRecord | None:
        """Keep a record, or return a newer one that is known: what is heard may overtake what was asked for."""
        cached = self._cached(room)
        if cached is not None and cached.revision > revision:
            return cached.record
        self._keep(room, record, revision)
        return record

    def _keep(self, room: str, record: RoomRecord | None, revision: int) -> None:
        self._cache[room] = _Cached(record, revision, self._clock())
        self._cache.move_to_end(room)
        if len(self._cache) > MAX_CACHED_ROOMS:
            self._cache.popitem(last=False)


def _record(value: bytes) -> RoomRecord:
    """Return a stored record.

    Raises:
        Unavailable: it cannot be read, so nobody can be let in: it may be a private room's.
    """
    record = readable(value)
    if record is None:
        raise Unavailable("the record of this room cannot be read")
    return record
