"""Ids: the only user-influenced text that may become a token of a subject."""

from __future__ import annotations

import re
import secrets
from typing import Annotated

from pydantic import StringConstraints

from shared.errors import BadId

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}$"
_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]
"""An id as a field of a pydantic model."""


def require_id(value: object, kind: str = "id") -> str:
    """Return `value` if it is an id.

    Raises:
        BadId: it is anything else; NATS wildcards, dots and long texts among it.
    """
    if isinstance(value, str) and is_id(value):
        return value
    raise BadId(kind)


def is_id(text: str) -> bool:
    """Say whether a text is an id."""
    return _ID.fullmatch(text) is not None


def new_id(prefix: str = "") -> str:
    """Return a fresh random id of 96 bits, with `prefix` in front."""
    return prefix + secrets.token_hex(12)
