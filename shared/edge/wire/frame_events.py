"""What WebSocket frames say to a server, what they may cost, and how they can be wrong (RFC 6455)."""

from __future__ import annotations

from dataclasses import dataclass

CONTINUATION, CLOSE, PING, PONG = 0x0, 0x8, 0x9, 0xA  # opcodes (section 5.2); those of data are in `framing.py`
MAX_CONTROL_BYTES = 125  # section 5.5
NO_STATUS = 1005  # what a Close without a code means; never on the wire (section 7.4.1)

# Section 7.4.1 and the IANA registry; 3000-4999 belong to libraries and applications.
_REGISTERED_CODES = frozenset({*range(1000, 1004), *range(1007, 1015)})


@dataclass(frozen=True, slots=True)
class Limits:
    """What one message may cost, all of its fragments together."""

    max_message_bytes: int
    max_fragments: int = 4096


@dataclass(frozen=True, slots=True)
class Text:
    """A text message; the payload is valid UTF-8, still encoded."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary message."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """The peer asks for a Pong with the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The peer answers a Ping, or just says that it is there."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The last event of a connection; `code` is 1005 if the peer gave none."""

    code: int
    reason: str


Event = Text | Binary | Ping | Pong | Close


class ProtocolViolation(Exception):
    """The peer broke the protocol: handle `events`, close with `code` and `reason`, read no more.

    Attributes:
        code: 1002 (protocol error), 1007 (not UTF-8) or 1009 (too big).
        reason: what was wrong, short enough for a Close frame.
        events: what was complete before the violation in the same read.
    """

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason
        self.events: list[Event] = []


def may_be_sent(code: int) -> bool:
    """Whether a Close frame may carry this code (section 7.4.2)."""
    return code in _REGISTERED_CODES or 3000 <= code < 5000
