"""Notifications: what a producer published, completed and encoded once; published and read back over HTTP too."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError, from_json

from shared.broker.history import read_before
from shared.broker.port import Broker, Message
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.events import Notification
from shared.contracts.ids import new_id
from shared.edge.delivery.event import Event
from shared.edge.line.hub import LineHub
from shared.errors import BadInput
from shared.telemetry.tracing import span, trace_headers

MAX_HISTORY_PAGE = 200


class Notices:
    """Stores and reads notifications."""

    def __init__(self, broker: Broker, line: LineHub) -> None:
        self._broker, self._line = broker, line

    async def publish(self, subject: str, notice: Notification) -> dict[str, Any]:
        """Store a notification; given an id, a repetition is stored once.

        Raises:
            BadInput: its data is nothing that could be delivered.
        """
        notice = notice.model_copy(
            update={"id": notice.id or new_id("n_"), "created_at": notice.created_at or now_ms()}
        )
        data = _deliverable(notice)
        with span("notifications.publish"):
            stored = await self._broker.append(subject, data, msg_id=f"{subject}:{notice.id}", headers=trace_headers())
        position = Position(self._line.position.epoch, stored.seq)
        return {"id": notice.id, "seq": stored.seq, "cursor": str(position), "duplicate": stored.duplicate}

    async def history(self, subject: str, *, after: int | None, limit: int) -> dict[str, Any]:
        """Return a page of the notifications of a user or a topic, oldest first: after a sequence, or the last ones."""
        epoch = self._line.position.epoch
        if after is None:
            end = await self._broker.last_seq(subjects.NOTIFY, subject)
            messages, more = await read_before(self._broker, subjects.NOTIFY, subject, end_seq=end, limit=limit)
        else:
            page = await self._broker.read_after(subjects.NOTIFY, subject, after, limit=limit)
            messages, more = page.messages, page.more
            end = messages[-1].seq if messages else after
        found = [event for message in messages if (event := _try_encode(message, epoch)) is not None]
        return {
            "notifications": [from_json(event.body) for event in found],
            "cursor": str(Position(epoch, end)),
            "more": more,
        }


def encode_notice(message: Message, epoch: str) -> Event:
    """Validate what a producer published and encode it once, completed by what the stream knows.

    Raises:
        BadInput: it is no notification.
    """
    subject = subjects.stored(message.subject)
    try:
        notice = Notification.model_validate_json(message.data)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        raise BadInput(f"not a notification: {'.'.join(map(str, first['loc']))} {first['msg']}") from None
    completed = notice.model_copy(
        update={
            "id": notice.id or f"{epoch}-{message.seq}",
            "topic": subjects.topic_of(subject),
            "created_at": notice.created_at or message.time_ms,
        }
    )
    return Event("notification", completed.to_json())


def _deliverable(notice: Notification) -> bytes:
    """Return the wire form, read as every edge will read it: what came as JSON may be too deep, or no Unicode.

    Raises:
        BadInput: no edge could.
    """
    try:
        data = notice.to_json()
        Notification.model_validate_json(data)
    except (PydanticSerializationError, ValidationError):
        raise BadInput("data is nested too deeply, or holds text that is no Unicode") from None
    return data


def _try_encode(message: Message, epoch: str) -> Event | None:
    try:
        return encode_notice(message, epoch)
    except BadInput:
        return None
