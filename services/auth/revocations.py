"""The ends of sessions: one table says which have ended, and carries the news to the edges until the broker has it.

A revocation is written in the caller's transaction and published after it (a transactional outbox): a broker that is
away, or a process that dies in between, delays the news and never loses it. Whichever replica sees it first publishes
it; the row's id is the message's id, so that it is stored once.
"""

from __future__ import annotations

import asyncio

from sqlalchemy import ColumnElement, exists, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.database import Database
from services.auth.models import Revoked
from services.auth.models import Session as SessionRow
from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.events import Revocation
from shared.contracts.ids import new_id
from shared.errors import FanfareError
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

SOON_S = 1.0
PERIOD_S = 2.0
BATCH = 100
AHEAD_MS = 1000
"""How far ahead of now all sessions are revoked: what was looked at on another replica, whose clock differs or whose
answer is under way, is covered. The next login begins behind that."""


class RevocationLog:
    """Writes revocations and sees to it that every edge hears of them."""

    def __init__(self, database: Database, broker: Broker, metrics: Metrics) -> None:
        self._database, self._broker, self._log = database, broker, get_logger()
        self._publishing = asyncio.Lock()
        self._published = metrics.counter("revocations_published", "Revocations that the broker has")
        self._late = metrics.counter("revocations_late", "Times that publishing a revocation had to be put off")

    async def write(self, tx: AsyncSession, subject: str, session_id: str | None, reason: str) -> None:
        """Revoke one session of `subject`, or with None all it has begun so far, as part of `tx`."""
        before_ms = now_ms()
        if session_id is None:
            before_ms = max(before_ms + AHEAD_MS, await self._latest_begin_ms(tx, subject))
        tx.add(Revoked(id=new_id(), subject=subject, session_id=session_id, before_ms=before_ms, reason=reason))
        await tx.flush()

    async def earliest_begin_ms(self, tx: AsyncSession, subject: str) -> int:
        """Return from when on a new session of `subject` is not one of those revoked; 0 if there are none.

        Tokens tell their time in whole seconds, so the next session begins in the second after a revocation.
        """
        every = select(Revoked.before_ms).where(Revoked.subject == subject, Revoked.session_id.is_(None))
        before_ms = await tx.scalar(every.order_by(Revoked.before_ms.desc()).limit(1))
        return 0 if before_ms is None else (before_ms // 1000 + 1) * 1000

    async def publish_now(self) -> None:
        """Publish what is waiting, for as long as a caller can wait; what remains, `run` publishes."""
        try:
            async with asyncio.timeout(SOON_S):
                await self._publish()
        except (FanfareError, TimeoutError, SQLAlchemyError) as error:
            self._late.inc()
            self._log.warning("revocation_put_off", error=repr(error))

    async def run(self) -> None:
        """Publish what other replicas, or this one, could not; never returns."""
        while True:
            await self.publish_now()
            await asyncio.sleep(PERIOD_S)

    async def purge(self, before_ms: int) -> None:
        """Delete what is older, unless it holds off a session that is there still: a setting may have changed."""
        needed = exists().where(SessionRow.subject == Revoked.subject, _covers())
        old = (Revoked.before_ms < before_ms) & Revoked.published_ms.is_not(None) & ~needed
        await self._database.delete_by_and_by(Revoked.id, old)

    async def _latest_begin_ms(self, tx: AsyncSession, subject: str) -> int:
        """Return when the subject's last session began; after a revocation that may be up to a second ahead of now."""
        found = select(SessionRow.begun_ms).where(SessionRow.subject == subject)
        return await tx.scalar(found.order_by(SessionRow.begun_ms.desc()).limit(1)) or 0

    async def _publish(self) -> None:
        async with self._publishing:
            async with self._database.transaction() as tx:
                waiting = select(Revoked).where(Revoked.published_ms.is_(None)).order_by(Revoked.before_ms).limit(BATCH)
                rows = (await tx.scalars(waiting)).all()
            for row in rows:
                await self._broker.append(subjects.revoked(row.subject), _event(row).to_json(), msg_id=row.id)
                async with self._database.transaction() as tx:
                    await tx.execute(update(Revoked).where(Revoked.id == row.id).values(published_ms=now_ms()))
                self._published.inc()


def is_revoked() -> ColumnElement[bool]:
    """Return the column that says of each session in a query whether it has been revoked, alone or with all before."""
    return exists().where(Revoked.subject == SessionRow.subject, _covers())


def _covers() -> ColumnElement[bool]:
    """Return whether a revocation of a subject is of a session of theirs."""
    alone = Revoked.session_id == SessionRow.id
    return alone | Revoked.session_id.is_(None) & (Revoked.before_ms >= SessionRow.begun_ms)


def _event(row: Revoked) -> Revocation:
    return Revocation(user_id=row.subject, session=row.session_id, before=row.before_ms, reason=row.reason)
