"""What an edge of the chat tells browsers: the `data` of each WebSocket frame, by its type.

Edges make these frames as plain dicts, on paths where a model would cost too much. The models are for tools
(`asyncapi.py`) and for the tests, which hold every frame that they receive to them. A field that may be `MISSING` is
left out when there is nothing to say, and never null.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import MISSING, Field

from shared.contracts.events import ChatMessage, Milliseconds, Payload
from shared.contracts.ids import Id
from shared.contracts.wire_errors import HTTP_STATUS

Count = Annotated[int, Field(ge=0)]
Cursor = Annotated[str, Field(min_length=1, max_length=64)]

# -- of a connection --------------------------------------------------------------------------------------------------


class RoomEntry(Payload):
    """`joined`, and each room of `connected`: where the client begins to read, and the ids of who is there.

    `members` is empty for an audience: a room of so many that nobody is told who comes and goes.
    """

    room: Id
    cursor: Cursor
    members: list[Id]


class ChatLimits(Payload):
    """What one user may send in a window of time (0: as much as they like), and the rooms of one connection."""

    messages: Count
    window_ms: Milliseconds
    rooms: Count


class ChatConnected(Payload):
    """`connected`: the first frame of a session. `cursor` is that of its first room."""

    user_id: Id
    username: str
    session: str
    cursor: Cursor
    rooms: list[RoomEntry]
    heartbeat_ms: Milliseconds
    limits: ChatLimits
    timestamp: Milliseconds


class Renewed(Payload):
    """`renewed`: the connection goes on with a new token."""

    expires_at: Milliseconds


class Pong(Payload):
    """`pong`: the answer to `ping`, with the server's time."""

    timestamp: Milliseconds


class RoomPlace(Payload):
    """Where a client stands in a room; null while it is still replayed to: what it received says it."""

    room: Id
    cursor: Cursor | None


class ChatReconnect(Payload):
    """`reconnect`: come back, at whichever edge, after a time. `cursor` is that of the first room."""

    after_ms: Milliseconds
    cursor: Cursor | None
    rooms: list[RoomPlace]


class Dropped(Payload):
    """`dropped`: this client was too slow for so many events of a kind of which losing some is harmless."""

    kind: str
    count: Annotated[int, Field(ge=1)]


class TokenExpiring(Payload):
    """`token_expiring`: renew the token within this time."""

    in_ms: Milliseconds


class LastError(Payload):
    """`error` of a stream: why it ends."""

    code: Annotated[str, Field(examples=[*HTTP_STATUS])]
    message: str
    retryable: bool


class WireError(LastError):
    """`error`: what was asked for is refused, or the connection ends; `room` is the one that was refused."""

    retry_after_ms: Milliseconds | MISSING = MISSING
    room: Id | MISSING = MISSING


# -- of a room --------------------------------------------------------------------------------------------------------


class Ack(Payload):
    """`ack`: the message is stored; `duplicate` if it had been before."""

    id: Id
    room: Id
    seq: Count
    cursor: Cursor
    duplicate: bool
    client_id: Id | MISSING = MISSING


class RoomMessage(ChatMessage):
    """`chat_message`: a message, and its place in the room."""

    client_id: Id | MISSING = MISSING  # type: ignore[assignment]  # a producer's may be null, an edge's is left out
    seq: Count
    cursor: Cursor


class Left(Payload):
    """`left`: this client is in the room no more; with a reason if that was not its own wish."""

    room: Id
    reason: str | MISSING = MISSING


class ReadMarker(Payload):
    """`read`: how far this user has read a room, on whichever device, and how many messages are behind that."""

    room: Id
    cursor: Cursor
    unread: Count


class Presence(Payload):
    """`presence_update`: somebody came into the room, or went, as far as all edges know."""

    room: Id
    user_id: Id
    username: str
    status: Literal["online", "offline"]
    timestamp: Milliseconds


class TypingIndicator(Payload):
    """`typing_indicator`: somebody begins or ends to type."""

    room: Id
    user_id: Id
    username: str
    is_typing: bool
    timestamp: Milliseconds


class RoomGap(Payload):
    """`gap`: messages of the room between two places may be missing; the client stands at `cursor` now."""

    room: Id
    first: Annotated[Count, Field(alias="from")]
    last: Annotated[Count, Field(alias="to")]
    reason: Literal["expired", "too_many"]
    cursor: Cursor


class RoomResync(Payload):
    """`resync`: the place that the client named means nothing (any more); it stands at `cursor` now."""

    room: Id
    reason: Literal["epoch_changed", "unknown_position"]
    cursor: Cursor


SERVER_FRAMES: Final[dict[str, type[Payload]]] = {
    "connected": ChatConnected,
    "renewed": Renewed,
    "ack": Ack,
    "joined": RoomEntry,
    "left": Left,
    "read": ReadMarker,
    "pong": Pong,
    "chat_message": RoomMessage,
    "presence_update": Presence,
    "typing_indicator": TypingIndicator,
    "gap": RoomGap,
    "resync": RoomResync,
    "reconnect": ChatReconnect,
    "dropped": Dropped,
    "token_expiring": TokenExpiring,
    "error": WireError,
}

ANSWERS: Final[dict[str, tuple[str, ...]]] = {
    "auth": ("connected", "renewed"),
    "send_message": ("ack",),
    "typing_status": (),
    "join": ("joined",),
    "leave": ("left",),
    "mark_read": ("read",),
    "ping": ("pong",),
}
"""What answers each frame of a client and repeats its `id`; each may be answered with `error` instead."""
