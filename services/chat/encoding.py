"""Stored messages as events: each validated and encoded once, its place in the stream included."""

from __future__ import annotations

from pydantic import ValidationError

from shared.broker.port import Message
from shared.contracts import subjects
from shared.contracts.events import ChatMessage
from shared.edge.delivery.event import Event, placed
from shared.errors import BadInput

MAX_UNDER_WAY = 1_000


class MessageEncoder:
    """Encodes what comes from the stream; what this edge has sent itself it knows again, and takes as it is.

    To validate and encode that a second time was a twentieth of what a message in a small room cost.
    """

    def __init__(self) -> None:
        self._under_way: dict[bytes, str] = {}

    def expect(self, subject: str, data: bytes) -> None:
        """Know `data` again when it comes on `subject`; over MAX_UNDER_WAY the oldest is validated as others' are."""
        self._under_way[data] = subject
        if len(self._under_way) > MAX_UNDER_WAY:
            del self._under_way[next(iter(self._under_way))]

    def encode(self, message: Message, epoch: str) -> Event:
        """Return the event of a stored message.

        Raises:
            BadInput: its payload is not a chat message of this room.
        """
        sent_on = self._under_way.pop(message.data, None)
        body = message.data if sent_on == subjects.stored(message.subject) else _validated(message)
        return Event("chat_message", placed(body, epoch, message.seq))


def encode_message(message: Message, epoch: str) -> Event:
    """Return the event of a stored message, whoever sent it; errors as `MessageEncoder.encode`."""
    return Event("chat_message", placed(_validated(message), epoch, message.seq))


# -- private ----------------------------------------------------------------------------------------------------------


def _validated(message: Message) -> bytes:
    """Return the fields of a chat message, and nothing else that a payload may hold."""
    try:
        payload = ChatMessage.model_validate_json(message.data)
    except ValidationError as error:
        raise BadInput(f"not a chat message: {error.errors(include_input=False)[0]['msg']}") from None
    if subjects.stored(message.subject) != subjects.chat_message(payload.room):
        raise BadInput("a chat message of another room")
    return payload.to_json()
