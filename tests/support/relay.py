"""Bytes to relay as a client writes and reads them, by docs/protocol.md and not by the product's own codec."""

from __future__ import annotations

from typing import Any


def to_relay(payload: bytes, room: str = "") -> bytes:
    """Return the binary message that has `payload` relayed in a room, by default the connection's first."""
    name = room.encode("latin-1")
    return bytes((1, len(name))) + name + payload


def relayed(raw: bytes) -> dict[str, Any]:
    """Return what a binary message from an edge says."""
    version, room_end = raw[0], 2 + raw[1]
    assert version == 1, raw[:2]
    user_end = room_end + 1 + raw[room_end]
    user = raw[room_end + 1 : user_end].decode("ascii")
    return {"room": raw[2:room_end].decode("ascii"), "userId": user, "payload": raw[user_end:]}
