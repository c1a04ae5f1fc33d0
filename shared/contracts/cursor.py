"""Cursors: where a reader stands, in a form that any edge, transport and restart understands.

A position is `<epoch>:<seq>`: `seq` is the stream's sequence of the last message seen on a subject,
`epoch` names the life of the stream (it changes when the stream is made anew, so that a number of the
old life is never mistaken for one of the new). Over WebSocket each room has its own; a stream of events has one
for all that it carries, since its edge reads the stream NOTIFY whole and in order (ADR 0015).

Cursors come back from clients, so parsing treats them as hostile text.
"""

from __future__ import annotations

import re
import zlib
from typing import NamedTuple

from shared.errors import BadInput

_EPOCH = r"[0-9a-z]{1,16}"
_SEQ = r"[0-9]{1,19}"
_POSITION = re.compile(rf"({_EPOCH}):({_SEQ})")
MAX_CURSOR_CHARS = 2048


class Position(NamedTuple):
    """One reader's place on one subject."""

    epoch: str
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Read `<epoch>:<seq>`.

        Raises:
            BadInput: the text is anything else.
        """
        match = _POSITION.fullmatch(text) if len(text) <= MAX_CURSOR_CHARS else None
        if match is None:
            raise BadInput("a cursor has the form <epoch>:<seq>")
        return cls(match[1], int(match[2]))


def tag(name: str) -> str:
    """Return a short tag of a name, in the letters of an epoch."""
    return base36(zlib.crc32(name.encode()))


def base36(value: int) -> str:
    """Return a number that is not negative in digits of `[0-9a-z]`."""
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
