"""The sessions of this edge: caps on how many, and the end of those that are revoked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from shared.auth.principal import Principal
from shared.auth.revocations import revokes
from shared.contracts.events import Revocation
from shared.errors import FanfareError, RateLimited, SessionRevoked
from shared.telemetry.metrics import Metrics


class Session(Protocol):
    """One client, on either transport; hashable by identity."""

    principal: Principal

    def end(self, error: FanfareError) -> None:
        """Tell the client why, then close."""

    def ask_to_leave(self, after_ms: int) -> None:
        """Tell the client to come back elsewhere after `after_ms`, with its cursor; then close."""


@dataclass(frozen=True, slots=True)
class SessionLimits:
    """How many sessions one user and this process may have; 0 for no cap."""

    per_user: int = 0
    per_process: int = 0


class Sessions:
    """Adds, finds and ends sessions.

    Attributes:
        draining: all have been asked to leave, or are being; whoever comes now came to the wrong place.
    """

    def __init__(self, limits: SessionLimits, metrics: Metrics, transport: str) -> None:
        self._limits = limits
        # Nearly all users have one session, and a collection for one would cost as much as half of it.
        self._by_user: dict[str, Session | tuple[Session, ...]] = {}
        self._count = 0
        gauge = metrics.gauge("sessions", "Clients connected to this process", ["transport"])
        gauge.labels(transport).set_function(self.__len__)
        self._refused = metrics.counter("sessions_refused", "Clients refused by a cap", ["transport", "cap"])
        self._refused.labels(transport, "process")  # 0 from the start: an alert sees the first as an increase
        self._transport = transport
        self.draining = False

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Session]:
        return iter([session for user in self._by_user for session in self._of(user)])

    @property
    def users(self) -> list[str]:
        """Who has a session on this edge."""
        return list(self._by_user)

    def of_user(self, user: str) -> list[Session]:
        """Return a user's sessions on this edge."""
        return list(self._of(user))

    def add(self, session: Session) -> None:
        """Count a session in.

        Raises:
            RateLimited: its user, or this process, has too many.
        """
        user = session.principal.user_id
        mine = self._of(user)
        if self._limits.per_process and self._count >= self._limits.per_process:
            self._refuse("process", "this edge is full; try again")
        if self._limits.per_user and len(mine) >= self._limits.per_user:
            self._refuse("user", f"a user may have {self._limits.per_user} connections to one edge")
        self._by_user[user] = (*mine, session) if mine else session
        self._count += 1

    def remove(self, session: Session) -> bool:
        """Count a session out; False if it was not in, or is out already."""
        user = session.principal.user_id
        mine = self._of(user)
        if session not in mine:
            return False
        self._count -= 1
        others = tuple(other for other in mine if other is not session)
        if others:
            self._by_user[user] = others if len(others) > 1 else others[0]
        else:
            del self._by_user[user]
        return True

    def revoked(self, revocation: Revocation) -> None:
        """End the sessions that a revocation names."""
        for session in self.of_user(revocation.user_id):
            if revokes(revocation, session.principal):
                session.end(SessionRevoked(revocation.reason or "the session has been revoked"))

    def _of(self, user: str) -> tuple[Session, ...]:
        found = self._by_user.get(user, ())
        return found if isinstance(found, tuple) else (found,)

    def _refuse(self, cap: str, message: str) -> None:
        self._refused.labels(self._transport, cap).inc()
        raise RateLimited(message, retry_after_ms=5_000)
