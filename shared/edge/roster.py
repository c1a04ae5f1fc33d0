"""A roster: who an edge has in a room, as the broker keeps it."""

from __future__ import annotations

from collections.abc import ItemsView, Mapping
from itertools import islice

from pydantic_core import from_json, to_json

MAX_ROSTER_USERS = 256
"""A roster names at most so many; a room with as many is an audience."""


def roster(users: Mapping[str, str]) -> bytes:
    """Return the stored form of `users`, with names."""
    return to_json({"users": dict(islice(users.items(), MAX_ROSTER_USERS))})


def users_in(stored: bytes) -> ItemsView[str, str]:
    """Return who stands in a roster, with names; nobody if it is none: it must not keep an edge from starting."""
    try:
        found = from_json(stored)
    except ValueError:
        found = None
    users = found.get("users") if isinstance(found, dict) else None
    return (users if isinstance(users, dict) else {}).items()
