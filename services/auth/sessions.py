"""Sessions and their families of refresh tokens: each token is good once, and a token used twice ends its family.

A client whose answer was lost may ask again with the token it just used, for RETRY_MS and until the successor itself
is used, and gets the same successor. The successor is derived from the token and a nonce that only the database has:
neither alone gives it away, and the token itself is stored as a digest only.

Source: RFC 9700 section 4.14.2 (refresh token rotation).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import CursorResult, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.database import Database
from services.auth.models import RefreshToken
from services.auth.models import Session as SessionRow
from services.auth.revocations import RevocationLog, is_revoked
from shared.clock import now_ms
from shared.contracts.ids import new_id
from shared.errors import SessionRevoked, TokenExpired, Unauthorized
from shared.limits import Buckets
from shared.telemetry.metrics import Metrics

RETRY_MS = 10_000
REFRESH_BURST = 30
ENDED_AT_ONCE = 10
USED_KEPT_MS = 24 * 3600 * 1000
"""How long a used token is remembered. Used again after that it is refused, but no longer ends its family."""

Outcome = Literal["rotated", "retried", "reused"]


@dataclass(frozen=True, slots=True)
class Session:
    """A session that stands, and the refresh token to go on with; None for a client, which has its secret.

    Attributes:
        checked_ms: when the question was asked whether it stands; what it is given was made then, so that all who are
            revoked meanwhile are covered.
    """

    id: str
    subject: str
    begun_ms: int
    expires_ms: int
    refresh_token: str | None = None
    checked_ms: int = 0


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """What one user may make grow; 0 for no limit.

    Attributes:
        per_user: sessions at once; one more ends the oldest.
        refresh_rate_hz: how often a session is refreshed, REFRESH_BURST times at once.
    """

    per_user: int = 0
    refresh_rate_hz: float = 0.0


class Sessions:
    """Begins, refreshes and ends sessions."""

    def __init__(
        self, database: Database, revocations: RevocationLog, metrics: Metrics, *, ttl_s: int, limits: SessionLimits
    ) -> None:
        self._database, self._revocations, self._ttl_s, self._limits = database, revocations, ttl_s, limits
        forgotten = metrics.counter("rate_limit_forgotten", "Rate limits that a full table forgot", ["limit"])
        self._allowances = (
            Buckets(limits.refresh_rate_hz, REFRESH_BURST, count_forgotten=forgotten.labels("refreshes").inc)
            if limits.refresh_rate_hz
            else None
        )
        self._refreshes = metrics.counter("auth_refreshes", "Refresh tokens presented", ["result"])

    async def begin(self, subject: str, *, ttl_s: int | None = None, refreshable: bool = True) -> Session:
        """Begin a session of `subject`."""
        token = secrets.token_urlsafe(32) if refreshable else None
        async with self._database.transaction() as tx:
            begun = max(now_ms(), await self._revocations.earliest_begin_ms(tx, subject))
            row = SessionRow(
                id=new_id("s"), subject=subject, begun_ms=begun, expires_ms=begun + (ttl_s or self._ttl_s) * 1000
            )
            tx.add(row)
            await tx.flush()
            if token:
                tx.add(RefreshToken(digest=_digest(token), session_id=row.id))
                ended = await self._end_oldest(tx, subject)
        if token and ended:
            await self._revocations.publish_now()
        return _session(row, token)

    async def refresh(self, token: str) -> Session:
        """Exchange a refresh token for its successor.

        Raises:
            Unauthorized: it is unknown.
            TokenExpired: its session is over.
            SessionRevoked: its session was revoked, now if the token had been used before.
            RateLimited: its session is refreshed too often.
        """
        checked_ms = now_ms()
        async with self._database.transaction() as tx:
            won = await self._use(tx, token)
            belongs = RefreshToken.session_id == SessionRow.id
            both = select(RefreshToken, SessionRow, is_revoked()).join(SessionRow, belongs)
            found = (await tx.execute(both.where(RefreshToken.digest == _digest(token)))).one_or_none()
            if found is None:
                self._refreshes.labels("unknown").inc()
                raise Unauthorized("this refresh token is not known")
            used, row, revoked = found
            _require_standing(row, revoked=revoked)
            if won and self._allowances is not None:
                self._allowances.require(row.id, "refreshes of this session")
            outcome = await self._take_turn(tx, token, used, row, won=won)
        self._refreshes.labels(outcome).inc()
        if outcome == "reused":
            await self._revocations.publish_now()
            raise SessionRevoked("this refresh token had been used: its session has been ended")
        return _session(row, _successor(token, used.nonce or b""), checked_ms)

    async def end(self, subject: str, session_id: str) -> None:
        """End one session, if it stands; every edge hears of it."""
        async with self._database.transaction() as tx:
            row, revoked = await _find(tx, session_id)
            if row is not None and not revoked:
                await self._revocations.write(tx, subject, session_id, "logout")
        await self._revocations.publish_now()

    async def end_all(self, subject: str, reason: str) -> None:
        """End every session that `subject` has begun; every edge hears of it."""
        async with self._database.transaction() as tx:
            await self._revocations.write(tx, subject, None, reason)
        await self._revocations.publish_now()

    async def of_refresh_token(self, token: str) -> Session | None:
        """Return the session that a refresh token belongs to, used or not; None if it is unknown."""
        found = select(SessionRow).join(RefreshToken, RefreshToken.session_id == SessionRow.id)
        async with self._database.transaction() as tx:
            row = await tx.scalar(found.where(RefreshToken.digest == _digest(token)))
        return _session(row) if row else None

    async def require(self, session_id: str) -> Session:
        """Return a session that stands.

        Raises:
            TokenExpired: it is over.
            SessionRevoked: it was revoked, or is unknown.
        """
        async with self._database.transaction() as tx:
            row, revoked = await _find(tx, session_id)
        if row is None:
            raise SessionRevoked
        _require_standing(row, revoked=revoked)
        return _session(row)

    async def purge(self) -> None:
        """Delete sessions that are over, and what is no longer needed of those that are not."""
        now = now_ms()
        await self._database.delete_by_and_by(SessionRow.id, SessionRow.expires_ms < now)
        await self._database.delete_by_and_by(RefreshToken.digest, RefreshToken.used_ms < now - USED_KEPT_MS)
        await self._revocations.purge(now - self._ttl_s * 1000)

    # -- private ------------------------------------------------------------------------------------------------------

    async def _end_oldest(self, tx: AsyncSession, subject: str) -> int:
        """End the sessions over the limit, the oldest first; return how many."""
        if not self._limits.per_user:
            return 0
        standing = select(SessionRow.id).where(SessionRow.subject == subject, ~is_revoked())
        over = standing.order_by(SessionRow.begun_ms.desc()).offset(self._limits.per_user).limit(ENDED_AT_ONCE)
        ended = (await tx.scalars(over)).all()
        for session_id in ended:
            await self._revocations.write(tx, subject, session_id, "too many sessions")
        return len(ended)

    async def _use(self, tx: AsyncSession, token: str) -> bool:
        """Mark the token as used; of all who try at once, on any replica, one is told that it did it."""
        unused = update(RefreshToken).where(RefreshToken.digest == _digest(token), RefreshToken.used_ms.is_(None))
        result = await tx.execute(unused.values(used_ms=now_ms(), nonce=secrets.token_bytes(32)))
        return isinstance(result, CursorResult) and result.rowcount == 1

    async def _take_turn(
        self, tx: AsyncSession, token: str, used: RefreshToken, row: SessionRow, *, won: bool
    ) -> Outcome:
        if won:
            successor = _digest(_successor(token, used.nonce or b""))
            tx.add(RefreshToken(digest=successor, session_id=row.id, parent=used.digest))
            if used.parent:
                await tx.execute(update(RefreshToken).where(RefreshToken.digest == used.parent).values(nonce=None))
            return "rotated"
        if used.nonce is not None and now_ms() - (used.used_ms or 0) <= RETRY_MS:
            return "retried"
        await self._revocations.write(tx, row.subject, row.id, "a refresh token was used twice")
        return "reused"


async def _find(tx: AsyncSession, session_id: str) -> tuple[SessionRow | None, bool]:
    """Return a session, and whether it has been revoked, in one question."""
    found = (await tx.execute(select(SessionRow, is_revoked()).where(SessionRow.id == session_id))).one_or_none()
    return (found[0], found[1]) if found else (None, False)


def _require_standing(row: SessionRow, *, revoked: bool) -> None:
    if row.expires_ms <= now_ms():
        raise TokenExpired("the session is over")
    if revoked:
        raise SessionRevoked


def _session(row: SessionRow, token: str | None = None, checked_ms: int = 0) -> Session:
    return Session(row.id, row.subject, row.begun_ms, row.expires_ms, token, checked_ms)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _successor(token: str, nonce: bytes) -> str:
    mac = hmac.digest(token.encode(), nonce, "sha256")
    return base64.urlsafe_b64encode(mac).rstrip(b"=").decode()
