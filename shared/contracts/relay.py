"""What members of a room say to each other in a form of their own: binary WebSocket messages; pure (ADR 0025).

Moves of a game, changes of a document: much that is small, which is worth nothing later, and which no server reads.

From a client:  version (1 byte, 1) | length of the room (1 byte; 0: the connection's first room) | room | what it says
To a client:    version (1 byte, 1) | length of the room | room | length of the user (1 byte) | user | what they say

No JSON begins with the byte 1, so a client may send both over one socket.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from shared.contracts.ids import require_id
from shared.errors import BadInput

VERSION: Final = b"\x01"
MAX_RELAY_BYTES: Final = 16 * 1024
"""Of what is said. It is for much that is small: what is larger is a message, or a file that a message names."""


class ToRelay(NamedTuple):
    """Bytes from a client for the others in a room; None for its first room."""

    room: str | None
    payload: bytes


def is_relay(raw: bytes) -> bool:
    """Whether a client's message is bytes to relay; it is JSON otherwise."""
    return raw[:1] == VERSION


def parse_relay(raw: bytes) -> ToRelay:
    """Return what a client sent, of which `is_relay` holds.

    Raises:
        BadInput: it is cut off, or says more than MAX_RELAY_BYTES.
        BadId: its room is no id.
    """
    room, payload = _take_name(raw, 1)
    if len(payload) > MAX_RELAY_BYTES:
        raise BadInput(f"what is relayed exceeds the limit of {MAX_RELAY_BYTES} bytes")
    return ToRelay(require_id(room, "room") if room else None, payload)


def encode_relayed(room: str, user: str, payload: bytes) -> bytes:
    """Return what the others in `room` get: who says it is the server's word."""
    return head(room) + _name(user) + payload


def head(room: str) -> bytes:
    """Return how all that is relayed in `room` begins."""
    return VERSION + _name(room)


# -- private ----------------------------------------------------------------------------------------------------------


def _name(text: str) -> bytes:
    return bytes((len(text),)) + text.encode()


def _take_name(raw: bytes, place: int) -> tuple[str, bytes]:
    """Return the name that begins at `place`, and what follows it."""
    end = place + 1 + (raw[place] if place < len(raw) else 0)
    if place >= len(raw) or len(raw) < end:
        raise BadInput("what is to be relayed ends before its room does")
    return raw[place + 1 : end].decode("ascii", "replace"), raw[end:]
