"""Cursors: where a reader stands, in a form that any edge, transport and restart understands.

A position is `<epoch>:<seq>`: `seq` is the stream's sequence of the last message seen on a subject,
`epoch` names the life of the stream (it changes when the stream is made anew, so that a number of the
old life is never mistaken for one of the new). A reader of several subjects carries one position for
each, as a vector: `<epoch>:<seq>,<tag>:<seq>,…` (ADR 0005 says why one number is not enough).

Cursors come back from clients, so parsing treats them as hostile text.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass, field

from shared.errors import BadInput

_EPOCH = r"[0-9a-z]{1,16}"
_SEQ = r"[0-9]{1,19}"
_POSITION = re.compile(rf"({_EPOCH}):({_SEQ})")
_VECTOR = re.compile(rf"({_EPOCH}):({_SEQ})((?:,[0-9a-z]{{1,8}}:{_SEQ}){{0,64}})")
MAX_CURSOR_CHARS = 2048


@dataclass(frozen=True, slots=True)
class Position:
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


@dataclass(frozen=True, slots=True)
class Vector:
    """One reader's place on several subjects of a stream: the first bare, the others by tag."""

    epoch: str
    seq: int
    others: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        tail = "".join(f",{tag}:{seq}" for tag, seq in self.others.items())
        return f"{self.epoch}:{self.seq}{tail}"

    @classmethod
    def parse(cls, text: str) -> Vector:
        """Read `<epoch>:<seq>[,<tag>:<seq>…]`.

        Raises:
            BadInput: the text is anything else.
        """
        match = _VECTOR.fullmatch(text) if len(text) <= MAX_CURSOR_CHARS else None
        if match is None:
            raise BadInput("a cursor has the form <epoch>:<seq>[,<tag>:<seq>…]")
        pairs = (part.split(":") for part in match[3].split(",") if part)
        return cls(match[1], int(match[2]), {tag: int(seq) for tag, seq in pairs})


def tag(name: str) -> str:
    """Return the short tag of a topic's name inside a vector."""
    return base36(zlib.crc32(name.encode()))


def base36(value: int) -> str:
    """Return a number that is not negative in digits of `[0-9a-z]`."""
    digits = ""
    while value:
        value, digit = divmod(value, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits or "0"
