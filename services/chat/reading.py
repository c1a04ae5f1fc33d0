"""What a user has read: marked, counted, and told to the user's other sessions at every edge (ADR 20).

The stored marker is the truth. That others are told of it is ephemeral: who missed it asks, or hears of the next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydantic import ValidationError

from services.chat.markers import ReadMarkers
from shared.auth.principal import Principal
from shared.broker.port import Broker, Message
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.events import Read
from shared.edge.delivery.event import Overflow, make_event
from shared.edge.delivery.listener import Listener
from shared.errors import BadInput, Forbidden
from shared.telemetry.metrics import Metrics

COUNTED_A_CALL = 20
"""Rooms counted for the price of a call, and at once: to count 200 takes 40 ms of an edge."""

Admit = Callable[[Principal, str], Awaitable[object]]
"""Passes if a user may be in a room; raises Forbidden."""

SessionsOf = Callable[[str], Sequence[Listener]]
"""Returns a user's sessions on this edge."""


class Reading:
    """Marks rooms as read and counts what is not.

    Args:
        edge: this one's name, by which it knows what it has said itself.
    """

    def __init__(self, broker: Broker, edge: str, *, admit: Admit, sessions_of: SessionsOf, metrics: Metrics) -> None:
        self._broker, self._edge, self._admit, self._sessions_of = broker, edge, admit, sessions_of
        self._markers = ReadMarkers(broker, metrics)
        self._marks = metrics.counter("read_marks", "Rooms marked as read, by whether that moved a marker", ["moved"])
        self._ignored = metrics.counter(
            "read_events_ignored", "What other edges said of read markers, and is not valid"
        )

    async def start(self) -> None:
        """Follow what is marked at other edges; of a user without a session here it costs one look-up."""
        await self._broker.subscribe(subjects.ALL_READ, self._heard)

    async def mark(
        self, user: Principal, room: str, cursor: str | None, *, by: Listener | None = None
    ) -> dict[str, Any]:
        """Note that `user` has read `room` up to `cursor`, by default all of it, and tell their sessions but `by`.

        Returns:
            The `data` of the `read` frame: where the marker stands, which may be further on, and what is unread then.

        Raises:
            BadInput: the cursor is none, or of another life of the stream, or ahead of its end.
            Forbidden: the room does not admit the user.
            Conflict: the user's markers change too fast from elsewhere.
        """
        await self._admit(user, room)
        to, end_seq = await self._place(room, cursor)
        position, moved = await self._markers.advance(user.user_id, room, to)
        at_end = position.epoch == to.epoch and position.seq >= end_seq
        unread = 0 if at_end else await self._count(room, position, to.epoch)
        self._marks.labels("yes" if moved else "no").inc()
        data = {"room": room, "cursor": str(position), "unread": unread}
        if moved:
            self._tell(user.user_id, data, but=by)
            await self._broker.publish(subjects.read(user.user_id), Read(edge=self._edge, **data).to_json())
        return data

    async def unread(
        self, user: Principal, only: Sequence[str] = (), *, pay: Callable[[], None] = lambda: None
    ) -> list[dict[str, Any]]:
        """Return what is unread in the rooms in which `user` has a marker, each as in `mark`.

        Args:
            only: these rooms, and no others. Of all, those that do not admit the user any more are left out.
            pay: called for each COUNTED_A_CALL rooms after the first; raises RateLimited.

        Raises:
            Forbidden: one of `only` does not admit the user any more.
        """
        markers = await self._markers.of_user(user.user_id)
        wanted = [(room, position) for room, position in markers.items() if not only or room in only]
        epoch = (await self._broker.state(subjects.CHAT)).epoch
        found: list[dict[str, Any] | None] = []
        for start in range(0, len(wanted), COUNTED_A_CALL):
            if start:
                pay()
            page = wanted[start : start + COUNTED_A_CALL]
            found += await asyncio.gather(*(self._entry(user, *marker, epoch, named=bool(only)) for marker in page))
        return [entry for entry in found if entry is not None]

    # -- private ------------------------------------------------------------------------------------------------------

    async def _place(self, room: str, cursor: str | None) -> tuple[Position, int]:
        """Return the place that a cursor names, and one that nothing in the room is behind, as of now.

        Whoever enters a room starts at the stream's end (`Hub.position`), so a cursor may be ahead of the room's last
        message, but never of the stream's.
        """
        state = await self._broker.state(subjects.CHAT)
        if cursor is None:
            last_seq = await self._broker.last_seq(subjects.CHAT, subjects.chat_message(room))
            return Position(state.epoch, last_seq), last_seq
        position = Position.parse(cursor)
        if position.epoch != state.epoch:
            raise BadInput("this cursor is of another life of the stream; mark without it")
        if position.seq > state.last_seq:
            raise BadInput("this cursor is ahead of the room's end")
        return position, state.last_seq

    async def _entry(
        self, user: Principal, room: str, position: Position, epoch: str, *, named: bool
    ) -> dict[str, Any] | None:
        try:
            await self._admit(user, room)
        except Forbidden:
            if named:
                raise
            return None
        return {"room": room, "cursor": str(position), "unread": await self._count(room, position, epoch)}

    async def _count(self, room: str, position: Position, epoch: str) -> int:
        """Return how many messages of a room are behind a marker; all, if it is of another life of the stream."""
        after_seq = position.seq if position.epoch == epoch else 0
        return await self._broker.count_after(subjects.CHAT, after_seq, subjects.chat_message(room))

    def _heard(self, message: Message) -> None:
        user = subjects.tokens_after(message.subject, 3)[0]
        if not self._sessions_of(user):
            return
        try:
            read = Read.model_validate_json(message.data)
        except ValidationError:
            self._ignored.inc()
            return
        if read.edge != self._edge:
            self._tell(user, read.model_dump(by_alias=True, exclude={"edge"}))

    def _tell(self, user: str, data: dict[str, Any], *, but: Listener | None = None) -> None:
        event = make_event("read", data, overflow=Overflow.LATEST, key=f"read.{data['room']}")
        for session in self._sessions_of(user):
            if session is not but:
                session.deliver(event)
