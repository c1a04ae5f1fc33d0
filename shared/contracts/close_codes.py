"""WebSocket close codes: what happened, and whether a client comes back. Clients read the same table."""

from __future__ import annotations

from enum import Enum, IntEnum


class Reconnect(Enum):
    """What a client does after a close."""

    NO = "no"
    AFTER_LOGIN = "after_login"
    NOW = "now"
    LATER = "later"


class CloseCode(IntEnum):
    """Why the server closed. 4xxx are the suite's own (RFC 6455 section 7.4.2)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    RESTART = 1012
    FORBIDDEN = 4003
    UNAUTHORIZED = 4008
    TOKEN_EXPIRED = 4009
    SESSION_REVOKED = 4010
    TOO_LARGE = 4013
    RATE_LIMITED = 4029
    TOO_SLOW = 4080


RECONNECT: dict[CloseCode, Reconnect] = {
    CloseCode.NORMAL: Reconnect.NO,
    CloseCode.GOING_AWAY: Reconnect.NOW,
    CloseCode.RESTART: Reconnect.NOW,
    CloseCode.FORBIDDEN: Reconnect.NO,
    CloseCode.UNAUTHORIZED: Reconnect.AFTER_LOGIN,
    CloseCode.TOKEN_EXPIRED: Reconnect.AFTER_LOGIN,
    CloseCode.SESSION_REVOKED: Reconnect.NO,
    CloseCode.TOO_LARGE: Reconnect.NO,
    CloseCode.RATE_LIMITED: Reconnect.LATER,
    CloseCode.TOO_SLOW: Reconnect.NOW,
}
"""For each code, whether a client reconnects; a code not in the table is an unclean close: reconnect."""
