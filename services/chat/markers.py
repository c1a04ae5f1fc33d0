"""Read markers: how far each user has read each room; in NATS, so at every edge and after every restart (ADR 20).

A user's markers are one key of a bucket: one read gives them all, and one write moves as many as are asked for while
the write before it is under way. Nobody moves a marker back: a write expects the revision that it has read.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from weakref import WeakValueDictionary

from pydantic import ValidationError

from shared.broker.port import Broker, Entry
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.events import Payload
from shared.contracts.ids import Id
from shared.errors import BadInput, Conflict, FanfareError, Unavailable
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

MAX_MARKERS = 200
"""Of one user; the one that was moved longest ago goes first. All are 22 KB at most, a third of what a key takes."""

UPDATE_ATTEMPTS = 8
RETRY_WITHIN_S = 0.05

Markers = Mapping[str, Position]
"""A user's markers by room, in the order in which they were moved."""


class MarkerRecord(Payload):
    """A user's markers as they are stored: cursors by room."""

    rooms: dict[Id, str]


class Moved(NamedTuple):
    """Where a marker stands, and whether it was this move that brought it there."""

    position: Position
    anew: bool


@dataclass(slots=True)
class _Batch:
    """Moves of one user that are written together.

    Attributes:
        anew: the rooms whose markers this has moved; None until it is written.
    """

    wanted: dict[str, Position] = field(default_factory=dict)
    stored: Markers = field(default_factory=dict)
    anew: frozenset[str] | None = None
    error: FanfareError | None = None


@dataclass(slots=True, weakref_slot=True)
class _Turn:
    """One write of a user at a time; lives while somebody writes or waits to.

    Attributes:
        next: what is to be written next, and can still be joined.
    """

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    next: _Batch | None = None


class ReadMarkers:
    """Reads and moves the markers of all users."""

    def __init__(self, broker: Broker, metrics: Metrics) -> None:
        self._broker = broker
        self._turns: WeakValueDictionary[str, _Turn] = WeakValueDictionary()
        self._dropped = metrics.counter("read_markers_dropped", "Read markers dropped: their users have too many")

    async def of_user(self, user: str) -> Markers:
        """Return a user's markers, read from the leader."""
        return _markers(await self._broker.get(subjects.MARKERS, user))

    async def advance(self, user: str, room: str, to: Position) -> Moved:
        """Move a marker forward to `to`, unless it is there or further; return where it stands then.

        Moves of one user that come while a write of theirs is under way are the next write, all together.

        Args:
            to: a place in the stream as it is now; a marker of another life of the stream gives way to it.

        Raises:
            Conflict: the user's markers change too fast from elsewhere.
            Unavailable: they cannot be read or stored now.
        """
        turn = self._turns.setdefault(user, _Turn())
        batch = turn.next = turn.next or _Batch()
        batch.wanted.update(merged(batch.wanted, {room: to}))
        async with turn.lock:
            if turn.next is batch:
                turn.next = None  # whoever comes from now on is of the next
            if batch.anew is None and batch.error is None:
                await self._write(user, batch)
        if batch.error is not None:
            raise batch.error
        position = batch.stored.get(room, to)
        return Moved(position, anew=position == to and room in (batch.anew or ()))

    # -- private ------------------------------------------------------------------------------------------------------

    async def _write(self, user: str, batch: _Batch) -> None:
        """Write a batch for all who are in it; all of them hear how it went."""
        try:
            await self._store(user, batch)
        except FanfareError as error:
            batch.error = error

    async def _store(self, user: str, batch: _Batch) -> None:
        for _attempt in range(UPDATE_ATTEMPTS):
            entry = await self._broker.get(subjects.MARKERS, user)
            before = _markers(entry)
            after = merged(before, batch.wanted)
            if after != before:
                try:
                    await self._put(user, after, entry)
                except Conflict:  # another edge was first
                    await asyncio.sleep(random.uniform(0, RETRY_WITHIN_S))
                    continue
            self._dropped.inc(len(before.keys() - after.keys()))
            batch.stored = after
            batch.anew = frozenset(room for room in batch.wanted if after.get(room) != before.get(room))
            return
        raise Conflict("the read markers change too fast; try again")

    async def _put(self, user: str, markers: Markers, entry: Entry | None) -> None:
        record = MarkerRecord(rooms={room: str(position) for room, position in markers.items()})
        expect = entry.revision if entry is not None else 0
        await self._broker.put(subjects.MARKERS, user, value=record.to_json(), expect=expect)


def merged(markers: Markers, wanted: Markers) -> dict[str, Position]:
    """Return `markers` with those moved forward that are behind what is wanted: the last ones, at most MAX_MARKERS."""
    moved = {room: to for room, to in wanted.items() if room not in markers or _is_behind(markers[room], to)}
    kept = {room: position for room, position in markers.items() if room not in moved}
    return dict([*kept.items(), *moved.items()][-MAX_MARKERS:])


# -- private ----------------------------------------------------------------------------------------------------------


def _is_behind(position: Position, to: Position) -> bool:
    """Say whether a marker may move: forward, or into the life that the stream has now."""
    return position.epoch != to.epoch or position.seq < to.seq


def _markers(entry: Entry | None) -> dict[str, Position]:
    """Return stored markers.

    Raises:
        Unavailable: they cannot be read, so they are not overwritten either.
    """
    if entry is None:
        return {}
    try:
        record = MarkerRecord.model_validate_json(entry.value)
        return {room: Position.parse(cursor) for room, cursor in record.rooms.items()}
    except (ValidationError, BadInput) as error:
        get_logger().error("read_markers_invalid", reason=type(error).__name__)
        raise Unavailable("the read markers of this user cannot be read") from None
