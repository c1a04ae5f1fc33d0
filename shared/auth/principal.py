"""Whoever holds a credential, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from shared.contracts.claims import Claims
from shared.errors import Forbidden

_EVERY_TOPIC = "topic:*"


@dataclass(frozen=True, slots=True)
class Principal:
    """The holder of a verified credential: a user, or a client such as a producer.

    Attributes:
        user_id: the subject; the only name that authority may rest on.
        username: what other users see.
        session: the session that the credential belongs to; revocation names it.
        expires_at_s: when a connection opened with it must have renewed itself, in seconds since the epoch.
        issued_at_s: when the credential was made, in seconds since the epoch.
    """

    user_id: str
    username: str
    session: str
    scopes: frozenset[str]
    expires_at_s: int
    issued_at_s: int

    @classmethod
    def from_claims(cls, claims: Claims) -> Principal:
        """Return the holder of verified claims; a ticket lends its session's time, not its own 30 s."""
        return cls(
            user_id=claims.sub,
            username=claims.name or claims.sub,
            session=claims.sid,
            scopes=_scopes(claims.scope),
            expires_at_s=_second(claims.session_exp or claims.exp),
            issued_at_s=_second(claims.iat),
        )

    def require(self, scope: str) -> None:
        """Pass if this holder has `scope`.

        Raises:
            Forbidden: it has not.
        """
        if scope not in self.scopes:
            raise Forbidden(f"the scope {scope} is needed")

    def may_follow(self, topic: str) -> bool:
        """Say whether this holder may read the notifications of `topic`."""
        return _EVERY_TOPIC in self.scopes or f"topic:{topic}" in self.scopes

    def warn_in_s(self, now_s: int, warning_s: float) -> float:
        """Return how long until the end of this credential is to be told to who holds it, `warning_s` ahead.

        Never before half of what is left: who renews with the same credential must not be warned at once again. It may
        have come in the leeway behind its end; then that is now.
        """
        left_s = self.expires_at_s - now_s
        return max(0.0, left_s / 2, left_s - warning_s)


@lru_cache(maxsize=1024)
def _scopes(text: str) -> frozenset[str]:
    """Return the scopes of a claim; most tokens have the same, and thousands of connections hold them."""
    return frozenset(text.split())


@lru_cache(maxsize=4096)
def _second(number: int) -> int:
    """Return one object for all who have the same second: there are fewer seconds in a token's life than holders."""
    return number
