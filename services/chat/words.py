"""What a chat connection says of itself: that it has begun, what of a room is missing, that its client should go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from services.chat.settings import ChatSettings
from shared.auth.principal import Principal
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.edge.delivery.event import Event, make_event
from shared.edge.delivery.gap import Gap


def connected(
    user: Principal, rooms: Sequence[dict[str, Any]], settings: ChatSettings, given_id: str | None = None
) -> Event:
    """Return the first frame of a session, which answers the one that brought its token, if one did.

    Args:
        rooms: those it has entered, the default one first.
    """
    data = {
        "userId": user.user_id,
        "username": user.username,
        "session": f"{settings.instance}.{new_id()[:16]}",
        "cursor": rooms[0]["cursor"],
        "rooms": rooms,
        "heartbeatMs": int(settings.heartbeat_s * 1000),
        "limits": {
            "messages": settings.message_limit if settings.limited else 0,
            "windowMs": settings.message_window_s * 1000,
            "rooms": settings.max_rooms_per_socket,
        },
        "timestamp": now_ms(),
    }
    return answer("connected", data, given_id)


def presence(room: str, user: str, name: str, *, online: bool) -> Event:
    """Return what tells a room's clients that somebody came or went."""
    status = "online" if online else "offline"
    data = {"room": room, "userId": user, "username": name, "status": status, "timestamp": now_ms()}
    return make_event("presence_update", data)


def missing(gap: Gap) -> Event:
    """Return what a client is told about a gap in a room, and where it stands now; everything after that comes."""
    (room,) = subjects.tokens_after(gap.subject, 2)[:1]
    data = {"room": room, "reason": gap.reason, "cursor": str(Position(gap.epoch, gap.end))}
    if gap.starts_over:  # its place before means nothing any more
        return make_event("resync", data)
    return make_event("gap", data | {"from": gap.start, "to": gap.end})


def reconnect(after_ms: int, rooms: Sequence[dict[str, Any]]) -> Event:
    """Return what asks a client to come back elsewhere, with where it stands in each of its rooms."""
    cursor = rooms[0]["cursor"] if rooms else None
    return make_event("reconnect", {"afterMs": after_ms, "cursor": cursor, "rooms": rooms})


def answer(type_: str, data: dict[str, Any], given_id: str | None) -> Event:
    """Return a frame that answers one of the client's, with the id that it gave."""
    event = make_event(type_, data)
    return event if given_id is None else event.answering(to_json(given_id))
