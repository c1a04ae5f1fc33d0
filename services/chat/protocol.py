"""The chat protocol, pure: what a frame means for a session in its state. No I/O: the session performs the actions."""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts import frames
from shared.errors import BadInput, Conflict, Unauthorized


@dataclass(frozen=True, slots=True)
class Authenticate:
    """Verify a token: the first, or a renewal."""

    token: str


@dataclass(frozen=True, slots=True)
class Store:
    """Store a message in a room, then ack it."""

    room: str
    content: str
    client_id: str | None


@dataclass(frozen=True, slots=True)
class ShowTyping:
    """Tell a room that this user types, or does no more."""

    room: str
    is_typing: bool


@dataclass(frozen=True, slots=True)
class Follow:
    """Join a room, from a cursor on if there is one."""

    room: str
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Unfollow:
    """Leave a room."""

    room: str


@dataclass(frozen=True, slots=True)
class Pong:
    """Answer a ping."""


Action = Authenticate | Store | ShowTyping | Follow | Unfollow | Pong


@dataclass(slots=True)
class ChatProtocol:
    """One client's side of the protocol.

    Attributes:
        authenticated: before this, only `auth` is a frame.
        room: where a frame goes that names no room.
    """

    room: str
    authenticated: bool = False

    def receive(self, raw: str | bytes) -> tuple[Action, str | None]:
        """Return what a frame asks for, and the id that the answer repeats.

        Binary frames are taken as UTF-8 JSON, as text ones are.

        Raises:
            BadInput: it is no frame of the protocol; also TooLarge, BadId.
            Unauthorized: it came before `auth`.
        """
        if not self.authenticated:
            return self._first(raw), None
        frame, frame_id = frames.parse_frame(raw)
        return self._action(frame), frame_id

    def _first(self, raw: str | bytes) -> Action:
        try:
            frame, _ = frames.parse_frame(raw)
        except BadInput:
            raise Unauthorized("the first frame must be auth") from None
        if not isinstance(frame, frames.Authenticate):
            raise Unauthorized("the first frame must be auth")
        return Authenticate(frame.token)

    def _action(self, frame: frames.ClientFrame) -> Action:
        match frame:
            case frames.SendMessage(content=content, room=room, client_id=client_id):
                return Store(room or self.room, content, client_id)
            case frames.TypingStatus(is_typing=is_typing, room=room):
                return ShowTyping(room or self.room, is_typing)
            case frames.Join(room=room, cursor=cursor):
                return Follow(room, cursor)
            case frames.Leave(room=room):
                return Unfollow(room)
            case frames.Authenticate(token=token):
                return Authenticate(token)
            case frames.Ping():
                return Pong()


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
