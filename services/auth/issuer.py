"""Signs tokens. The only module beside `shared.auth.tokens` that knows how a token is written."""

from __future__ import annotations

from dataclasses import dataclass

import jwt

from services.auth.keyring import Keyring
from services.auth.sessions import Session
from shared.auth.principal import Principal
from shared.auth.tickets import TICKET_TTL_S
from shared.clock import now_s
from shared.contracts.claims import ACCESS_TYP, ALGORITHM, TICKET_TYP, Claims
from shared.contracts.ids import new_id


@dataclass(frozen=True, slots=True)
class Issued:
    """A signed token and for how long it holds, in seconds."""

    token: str
    expires_in_s: int


class Issuer:
    """Signs with whatever key signs now."""

    def __init__(self, keyring: Keyring, *, issuer: str, audience: str, access_ttl_s: int) -> None:
        self._keyring, self._issuer, self._audience, self._access_ttl_s = keyring, issuer, audience, access_ttl_s

    def access(self, session: Session, *, name: str, scope: str) -> Issued:
        """Return an access token for `session`, made when that was seen to stand; it never outlives it."""
        issued_at_s = max(session.checked_ms, session.begun_ms) // 1000
        expires_at_s = min(issued_at_s + self._access_ttl_s, session.expires_ms // 1000)
        claims = Claims(
            iss=self._issuer,
            aud=self._audience,
            sub=session.subject,
            sid=session.id,
            jti=new_id(),
            iat=issued_at_s,
            exp=expires_at_s,
            typ="access",
            scope=scope,
            name=name,
        )
        return Issued(self._sign(claims, ACCESS_TYP), expires_at_s - issued_at_s)

    def ticket(self, holder: Principal) -> Issued:
        """Return a ticket: it holds for 30 s, once, and opens a connection until `holder`'s own token is over."""
        now = now_s()
        claims = Claims(
            iss=self._issuer,
            aud=self._audience,
            sub=holder.user_id,
            sid=holder.session,
            jti=new_id(),
            iat=holder.issued_at_s,  # whatever revokes the holder's token revokes what is lent of it
            exp=now + TICKET_TTL_S,
            typ="ticket",
            scope=" ".join(sorted(holder.scopes)),
            name=holder.username,
            session_exp=holder.expires_at_s,
        )
        return Issued(self._sign(claims, TICKET_TYP), TICKET_TTL_S)

    def _sign(self, claims: Claims, typ: str) -> str:
        key = self._keyring.signing()
        payload = claims.model_dump(exclude_none=True)
        return jwt.encode(payload, key.private, algorithm=ALGORITHM, headers={"typ": typ, "kid": key.kid})
