"""How many rooms a user owns, over all edges: a list of names for each user, changed by compare-and-set.

A name is noted before its room is made, so that no number of edges makes one too many, and struck off when its room is
gone. What fails in between leaves a name that stands for no room. So a list that is full is compared with the rooms
before anybody is refused, once in CHECKED_EVERY_MS: names that stand for nothing go, unless they were noted just now.
No failure takes a place for longer than that.
"""

from __future__ import annotations

import asyncio
from weakref import WeakValueDictionary

from pydantic import Field, ValidationError

from services.chat.records import readable
from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.events import Milliseconds, Payload
from shared.contracts.ids import Id
from shared.errors import Conflict, FanfareError, QuotaExceeded
from shared.telemetry.logs import get_logger

UPDATE_ATTEMPTS = 8
CHECKED_EVERY_MS = 60_000
SETTLED_AFTER_MS = 60_000
"""A name that was noted longer ago stands for a room, or none will be made: a write is given up long before."""


class Owned(Payload):
    """The rooms of one user.

    Attributes:
        rooms: each name, with when it was noted.
        checked_at: when the list was last compared with the rooms.
    """

    rooms: dict[Id, Milliseconds] = Field(default_factory=dict)
    checked_at: Milliseconds = 0


class Ownership:
    """Keeps each user's list, and refuses a name more than `limit`."""

    def __init__(self, broker: Broker, *, limit: int) -> None:
        self._broker, self._limit = broker, limit
        # Of many calls at once on this edge one writes at a time; those on other edges are few enough to try again.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._log = get_logger()

    async def note(self, owner: str, room: str) -> None:
        """Note that `owner` is about to make `room`.

        Raises:
            QuotaExceeded: they own as many as they may.
            Conflict: their list changes too fast.
        """
        async with self._lock(owner):
            for _attempt in range(UPDATE_ATTEMPTS):
                owned, revision = await self._read(owner)
                owned, fits = await self._with(owner, owned, room)
                if await self._written(owner, owned, revision):
                    break
            else:
                raise Conflict("your list of rooms changes too fast; try again")
        if not fits:
            raise self._too_many()

    async def strike(self, owner: str, room: str) -> None:
        """Strike off a room that is gone; a failure is logged, and the next comparison strikes it off."""
        try:
            async with self._lock(owner):
                for _attempt in range(UPDATE_ATTEMPTS):
                    owned, revision = await self._read(owner)
                    if room not in owned.rooms:
                        return
                    left = {name: at_ms for name, at_ms in owned.rooms.items() if name != room}
                    if await self._written(owner, owned.model_copy(update={"rooms": left}), revision):
                        return
        except FanfareError as error:
            self._log.warning("room_not_struck_off", room=room, reason=str(error))

    # -- private ------------------------------------------------------------------------------------------------------

    def _lock(self, owner: str) -> asyncio.Lock:
        return self._locks.setdefault(owner, asyncio.Lock())

    def _too_many(self) -> QuotaExceeded:
        return QuotaExceeded(f"a user owns at most {self._limit} rooms; delete one first")

    async def _with(self, owner: str, owned: Owned, room: str) -> tuple[Owned, bool]:
        """Return the list with `room` in it, and whether it fits; without it, but compared, if it does not.

        Raises:
            QuotaExceeded: it does not fit, and the list has been compared lately.
        """
        now = now_ms()
        if self._is_full(owned, room):
            if now - owned.checked_at < CHECKED_EVERY_MS:
                raise self._too_many()
            owned = await self._compared(owner, owned, now)
            if self._is_full(owned, room):
                return owned, False
        return owned.model_copy(update={"rooms": owned.rooms | {room: now}}), True

    def _is_full(self, owned: Owned, room: str) -> bool:
        return room not in owned.rooms and len(owned.rooms) >= self._limit

    async def _compared(self, owner: str, owned: Owned, now: int) -> Owned:
        """Return the list without names that stand for no room of this owner. A room that is being deleted is one."""
        stream = subjects.bucket_stream(subjects.ROOMS)
        keys = [subjects.bucket_key(subjects.ROOMS, name) for name in owned.rooms]
        stored = [key for key in await self._broker.read_last(stream, keys) if not key.gone]
        records = [record for key in stored if (record := readable(key.data)) is not None]
        standing = {record.room for record in records if record.owner == owner}
        rooms = {
            name: at_ms for name, at_ms in owned.rooms.items() if name in standing or now - at_ms < SETTLED_AFTER_MS
        }
        return Owned(rooms=rooms, checked_at=now)

    async def _read(self, owner: str) -> tuple[Owned, int]:
        entry = await self._broker.get(subjects.OWNERS, owner)
        if entry is None:
            return Owned(), 0
        try:
            return Owned.model_validate_json(entry.value), entry.revision
        except ValidationError:
            self._log.error("list_of_rooms_invalid", owner=owner)
            return Owned(), entry.revision

    async def _written(self, owner: str, owned: Owned, revision: int) -> bool:
        """Write the list; False if somebody else has since it was read."""
        try:
            if owned.rooms:
                await self._broker.put(subjects.OWNERS, owner, value=owned.to_json(), expect=revision)
            else:
                await self._broker.delete(subjects.OWNERS, owner, expect=revision)
        except Conflict:
            return False
        return True
