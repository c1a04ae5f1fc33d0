"""The chat protocol, pure: which frames a client may send in its state. No I/O: the session performs them."""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts.frames import Authenticate, ClientFrame, parse_frame
from shared.errors import BadInput, Conflict, Unauthorized


@dataclass(slots=True)
class ChatProtocol:
    """One client's side of the protocol.

    Attributes:
        authenticated: before this, only `auth` is a frame.
        room: where a frame goes that names no room.
    """

    room: str
    authenticated: bool = False

    def receive(self, raw: str | bytes) -> tuple[ClientFrame, str | None]:
        """Return a frame, and the id that its answer repeats.

        Binary frames are taken as UTF-8 JSON, as text ones are.

        Raises:
            BadInput: it is no frame of the protocol; also TooLarge, BadId.
            Unauthorized: it came before `auth`.
        """
        return parse_frame(raw) if self.authenticated else self._first(raw)

    def _first(self, raw: str | bytes) -> tuple[Authenticate, str | None]:
        try:
            frame, given_id = parse_frame(raw)
        except BadInput:
            raise Unauthorized("the first frame must be auth") from None
        if not isinstance(frame, Authenticate):
            raise Unauthorized("the first frame must be auth")
        return frame, given_id


def pair_cursors(rooms: list[str], cursors: list[str], *, default_room: str, limit: int) -> dict[str, str | None]:
    """Return the rooms of a URL with their cursors: `?room=a&cursor=…&room=b&cursor=…`, paired in order.

    One cursor for one room is the usual case; an empty one means none; fewer cursors than rooms leave the last without.

    Raises:
        BadInput: more cursors than rooms, or too many rooms.
        Conflict: a room is named twice.
    """
    named = rooms or [default_room]
    if len(cursors) > len(named):
        raise BadInput("there are more cursors than rooms; cursors pair with rooms in order")
    if len(named) > limit:
        raise BadInput(f"a connection follows at most {limit} rooms")
    if len(set(named)) < len(named):
        raise Conflict("a room is named twice")
    padded = [*cursors, *[""] * (len(named) - len(cursors))]
    return {room: cursor or None for room, cursor in zip(named, padded, strict=True)}
