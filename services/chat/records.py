"""What is stored of a room that somebody made. A room without a record is open and has no owner."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError

from shared.contracts.events import Milliseconds, Payload
from shared.contracts.ids import Id
from shared.telemetry.logs import get_logger

MAX_MEMBERS = 500
MAX_TITLE_CHARS = 128


class RoomRecord(Payload):
    """A room, its owner, and whom it admits. What a newer edge has noted beside that is kept when this one writes.

    Attributes:
        relay: its members may send each other bytes of a form of their own.
        closed: its owner has deleted it. It admits nobody until nothing is left of what was said in it; an edge that
            does not know the field yet sees a private room without members.
    """

    model_config = ConfigDict(extra="allow")

    room: Id
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] = ""
    private: bool = False
    owner: Id
    members: Annotated[tuple[Id, ...], Field(max_length=MAX_MEMBERS)] = ()
    created_at: Milliseconds
    relay: bool = False
    closed: bool = False

    def admits(self, user: str) -> bool:
        """Say whether `user` may read and write here."""
        return not self.closed and (not self.private or user == self.owner or user in self.members)

    def to_data(self) -> dict[str, Any]:
        """Return what its owner and its members are told of it."""
        return self.model_dump(by_alias=True, include=set(RoomRecord.model_fields) - {"closed"})


def readable(value: bytes) -> RoomRecord | None:
    """Return a stored record; None if it is none, which is logged."""
    try:
        return RoomRecord.model_validate_json(value)
    except ValidationError as error:
        get_logger().error("room_record_invalid", reason=str(error.errors(include_input=False)[0]["msg"]))
        return None
