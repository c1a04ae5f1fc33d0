"""Rooms: open to every user who may chat, unless made private; then to their members alone."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from services.chat.content import visible
from shared.auth.principal import Principal
from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s, now_ms
from shared.contracts import subjects
from shared.contracts.events import Milliseconds, Payload
from shared.contracts.ids import Id, require_id
from shared.errors import Conflict, Forbidden, NotFound, Unavailable
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger

MAX_MEMBERS = 500
MAX_TITLE_CHARS = 128
MAX_CACHED_ROOMS = 20_000
MAX_LISTED_ROOMS = 1_000
CACHE_S = 30.0
UPDATE_ATTEMPTS = 8

OnPrivate = Callable[["RoomRecord"], None]
"""Called with a private room's record whenever it may have changed: whoever it does not admit must leave."""


class RoomRecord(Payload):
    """A room that somebody made; a room without a record is open and has no owner."""

    room: Id
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] = ""
    private: bool = False
    owner: Id
    members: Annotated[tuple[Id, ...], Field(max_length=MAX_MEMBERS)] = ()
    created_at: Milliseconds

    def admits(self, user: str) -> bool:
        """Say whether `user` may read and write here."""
        return not self.private or user == self.owner or user in self.members


@dataclass(slots=True)
class _Cached:
    record: RoomRecord | None
    read_at_s: float


class Rooms:
    """Who may be where. Records are kept for CACHE_S and follow every change as it is stored."""

    def __init__(self, broker: Broker, *, on_private: OnPrivate, clock: Clock = monotonic_s) -> None:
        self._broker, self._on_private, self._clock = broker, on_private, clock
        self._cache: OrderedDict[str, _Cached] = OrderedDict()
        self._reading: dict[str, asyncio.Task[RoomRecord | None]] = {}
        self._tasks = TaskKeeper()

    async def start(self) -> None:
        """Follow changes made at any edge."""
        await self._broker.subscribe(subjects.bucket_changes(subjects.ROOMS), self._changed)
        self._broker.on_reconnect(self._reconnected)

    async def close(self) -> None:
        """Follow no more."""
        await self._tasks.close()

    async def admit(self, user: Principal, room: str) -> None:
        """Pass if `user` may be in `room`.

        Raises:
            Forbidden: the room is private and the user no member.
        """
        cached = self._cached(room)
        record = cached.record if cached is not None else await self._fresh(require_id(room, "room"))
        if record is not None and not record.admits(user.user_id):
            raise Forbidden(f"the room {room} is private", room=room)

    async def create(
        self, user: Principal, room: str, *, title: str, private: bool, members: Sequence[str]
    ) -> RoomRecord:
        """Make a room, whose title is one line of what a reader may see.

        Raises:
            Conflict: the room has been made already.
        """
        shown = " ".join(visible(title).split())[:MAX_TITLE_CHARS]
        record = RoomRecord(
            room=room, title=shown, private=private, owner=user.user_id, members=tuple(members), created_at=now_ms()
        )
        await self._broker.put(subjects.ROOMS, room, value=record.to_json(), expect=0)
        self._keep(room, record)
        return record

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
            if by.user_id != record.owner and not (by.user_id == user and not member):
                raise Forbidden("only the owner may change the members")
            others = [name for name in record.members if name != user]
            if member and len(others) >= MAX_MEMBERS:
                raise Conflict(f"a room has at most {MAX_MEMBERS} members")
            changed = record.model_copy(update={"members": (*others, user) if member else tuple(others)})
            try:
                await self._broker.put(subjects.ROOMS, room, value=changed.to_json(), expect=entry.revision)
            except Conflict:
                await asyncio.sleep(0)
                continue
            self._apply(room, changed)
            return changed
        raise Conflict("the room changes too fast; try again")

    async def visible(self, user: Principal) -> list[dict[str, Any]]:
        """Return the rooms that were made and that `user` may enter, at most MAX_LISTED_ROOMS."""
        found: list[dict[str, Any]] = []
        after, more = 0, True
        while more and len(found) < MAX_LISTED_ROOMS:
            stream, pattern = subjects.bucket_stream(subjects.ROOMS), subjects.bucket_keys(subjects.ROOMS)
            page = await self._broker.read_after(stream, pattern, after, limit=500)
            for message in page.messages:
                after = message.seq
                record = None if message.gone else _readable(message.data)
                if record is not None and record.admits(user.user_id):
                    found.append(record.model_dump(by_alias=True, include={"room", "title", "private", "owner"}))
            more = page.more and bool(page.messages)
        return found

    # -- private ------------------------------------------------------------------------------------------------------

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
        record = _record(entry.value) if entry else None
        self._apply(room, record)
        return record

    def _reconnected(self) -> None:
        self._tasks.spawn(self._read_again(), "rooms-read-again")

    async def _read_again(self) -> None:
        """Changes may have been missed: read every private room that is known here, and forget the others."""
        private = [room for room, cached in self._cache.items() if cached.record and cached.record.private]
        self._cache.clear()
        for room in private:
            await self._fresh(room)

    def _changed(self, message: Message) -> None:
        room = subjects.tokens_after(message.subject, 3)[0]
        record = None if message.gone else _readable(message.data)
        if message.gone or record is not None:
            self._apply(room, record)
        else:
            self._cache.pop(room, None)

    def _apply(self, room: str, record: RoomRecord | None) -> None:
        self._keep(room, record)
        if record is not None and record.private:
            self._on_private(record)

    def _keep(self, room: str, record: RoomRecord | None) -> None:
        self._cache[room] = _Cached(record, self._clock())
        self._cache.move_to_end(room)
        if len(self._cache) > MAX_CACHED_ROOMS:
            self._cache.popitem(last=False)


def _record(value: bytes) -> RoomRecord:
    """Return a stored record.

    Raises:
        Unavailable: it cannot be read, so nobody can be let in: it may be a private room's.
    """
    record = _readable(value)
    if record is None:
        raise Unavailable("the record of this room cannot be read")
    return record


def _readable(value: bytes) -> RoomRecord | None:
    try:
        return RoomRecord.model_validate_json(value)
    except ValidationError as error:
        get_logger().error("room_record_invalid", reason=str(error.errors(include_input=False)[0]["msg"]))
        return None
