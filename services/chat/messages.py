"""Messages: stored before they are acked, once for each client id; read back as history."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, NamedTuple

from pydantic_core import from_json

from services.chat.content import clean
from services.chat.encoding import MessageEncoder, encode_message
from shared.auth.principal import Principal
from shared.broker.history import read_before
from shared.broker.port import Appended, Broker, Message
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.events import ChatMessage
from shared.edge.delivery.event import Event
from shared.edge.topics.hub import Hub
from shared.errors import BadInput
from shared.telemetry.metrics import Metrics
from shared.telemetry.tracing import trace_headers

MAX_HISTORY_PAGE = 200


class Sent(NamedTuple):
    """The receipt for a stored message."""

    id: str
    room: str
    position: Position
    duplicate: bool
    client_id: str | None

    def to_data(self) -> dict[str, Any]:
        """Return the `data` of the `ack` frame, which is also the HTTP answer."""
        data: dict[str, Any] = {"id": self.id, "room": self.room, "seq": self.position.seq}
        data |= {"cursor": str(self.position), "duplicate": self.duplicate}
        if self.client_id:
            data["clientId"] = self.client_id
        return data


class Messages:
    """Stores and reads the messages of all rooms; `encoder` is the hub's."""

    def __init__(self, broker: Broker, hub: Hub, encoder: MessageEncoder, metrics: Metrics) -> None:
        self._broker, self._hub, self._encoder = broker, hub, encoder
        self._stored = metrics.tally("chat_messages_stored", "Messages stored", "duplicate")
        self._newest_seq = 0

    async def send(self, sender: Principal, room: str, content: str, client_id: str | None) -> Sent:
        """Store a message; it reaches every edge, this one too, through the broker alone.

        Raises:
            BadInput: there is no text left to send.
            OutcomeUnknown: it may have been stored; send it again with the same client id.
        """
        id_, subject = message_id(sender.user_id, room, client_id), subjects.chat_message(room)
        data = ChatMessage.encode(
            id_, room, sender.user_id, sender.username[:128], clean(content), now_ms(), client_id=client_id
        )
        self._encoder.expect(subject, data)
        stored = await self._broker.append(subject, data, msg_id=id_, headers=trace_headers())
        self._stored.add("yes" if stored.duplicate else "no")
        return Sent(id_, room, await self._position(stored), stored.duplicate, client_id)

    async def _position(self, stored: Appended) -> Position:
        """Return where a message was stored.

        A number below one of before may be of a stream that was made anew, which the hub has not noticed yet: with the
        old epoch it would name another message.
        """
        if stored.seq < self._newest_seq and not stored.duplicate:
            await self._hub.renew_epoch(subjects.CHAT)
            self._newest_seq = 0
        self._newest_seq = max(self._newest_seq, stored.seq)
        return Position(await self._hub.epoch(subjects.CHAT), stored.seq)

    async def history(self, room: str, *, before: int | None, after: int | None, limit: int) -> dict[str, Any]:
        """Return a page of a room's messages, oldest first: after a sequence, or the last ones before one.

        `more` says whether there are others in the direction of reading; `cursor` is where a live reader goes on.
        """
        epoch = await self._hub.epoch(subjects.CHAT)
        if after is not None:
            page = await self._broker.read_after(subjects.CHAT, subjects.chat_message(room), after, limit=limit)
            messages, more = page.messages, page.more
            end = messages[-1].seq if messages else after
        else:
            last = await self._broker.last_seq(subjects.CHAT, subjects.chat_message(room))
            end = last if before is None else min(max(0, before - 1), last)
            messages, more = await read_before(
                self._broker, subjects.CHAT, subjects.chat_message(room), end_seq=end, limit=limit
            )
        return {
            "messages": [from_json(event.body) for event in _encode_valid(messages, epoch)],
            "cursor": str(Position(epoch, end)),
            "more": more,
        }


def message_id(user: str, room: str, client_id: str | None) -> str:
    """Return the id of a message, which is also what the broker knows repetitions by.

    It is built from who sends, where and the client's id: a repetition gets the same id at any edge, and no client can
    claim another's, nor one in another room (the broker's ids are unique in the stream, not in the room).
    """
    if client_id is None:
        return f"m_{random.getrandbits(96):024x}"  # need not be secret, and the system's randomness is a call of it
    return "m_" + hashlib.sha256(f"{user}\n{room}\n{client_id}".encode()).hexdigest()[:32]


# -- private ----------------------------------------------------------------------------------------------------------


def _encode_valid(messages: Iterable[Message], epoch: str) -> list[Event]:
    """Encode a page of history without what is no message: one bad payload must not hide a room's past."""
    events = []
    for message in messages:
        with suppress(BadInput):
            events.append(encode_message(message, epoch))
    return events
