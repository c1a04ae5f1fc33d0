"""Delays for those who try too often, shared by all replicas: exponential, capped, and never a lock.

An attempt is counted before it is made and forgiven when it succeeds, so that a burst sent at once is counted as well.
One that is refused is not counted: whoever waits as long as they are told gets their try. The cap on an account is
low, because it is the account's owner who pays for what others try on it.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import case, delete, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.database import Database
from services.auth.models import Attempts
from shared.clock import now_ms
from shared.errors import RateLimited

FORGET_MS = 15 * 60 * 1000
_MAX_DOUBLINGS = 20


@dataclass(frozen=True, slots=True)
class Policy:
    """What a kind of attempt costs: nothing for the first `free`, then `base_ms`, doubling up to `cap_ms`."""

    kind: str
    free: int
    base_ms: int
    cap_ms: int

    def delay_ms(self, count: int) -> int:
        """Return how long to wait after the `count`-th attempt before the next one."""
        if count < self.free:
            return 0
        return min(self.cap_ms, self.base_ms << min(count - self.free, _MAX_DOUBLINGS))


@dataclass(frozen=True, slots=True)
class Subject:
    """Who or what is attempted, under which policy. The name stands in the database as a digest."""

    policy: Policy
    name: str

    @property
    def key(self) -> str:
        """The row's key."""
        return f"{self.policy.kind}:{hashlib.sha256(self.name.encode()).hexdigest()}"


class Throttle:
    """Counts attempts in the database."""

    def __init__(self, database: Database, *, enabled: bool = True, clock_ms: Callable[[], int] = now_ms) -> None:
        self._database, self._enabled, self._clock_ms = database, enabled, clock_ms

    async def attempt(self, *subjects: Subject) -> None:
        """Count an attempt on each of `subjects`.

        Raises:
            RateLimited: one of them must wait; nothing was counted.
        """
        if not self._enabled:
            return
        async with self._database.transaction() as tx:
            for subject in subjects:
                await self._count(tx, subject)

    async def succeeded(self, account: Subject, address: Subject) -> None:
        """Take an attempt back: the account begins anew, the address, which others may share, has one less."""
        if not self._enabled:
            return
        async with self._database.transaction() as tx:
            await tx.execute(delete(Attempts).where(Attempts.key == account.key))
            await _take_one(tx, address)

    async def forgive(self, *subjects: Subject) -> None:
        """Take an attempt back that nobody has made: whoever was to try it was too busy."""
        if not self._enabled:
            return
        async with self._database.transaction() as tx:
            for subject in subjects:
                await _take_one(tx, subject)

    async def purge(self) -> None:
        """Delete what is too old to matter."""
        async with self._database.transaction() as tx:
            await tx.execute(delete(Attempts).where(Attempts.updated_ms < self._clock_ms() - FORGET_MS))

    async def _count(self, tx: AsyncSession, subject: Subject) -> None:
        count, blocked_until = (await tx.execute(_add_one(tx, subject.key, self._clock_ms()))).one()
        now = self._clock_ms()  # read after the row's lock was ours: what others did while we waited is in the past
        if blocked_until > now:
            raise RateLimited("too many attempts", retry_after_ms=blocked_until - now)
        if delay_ms := subject.policy.delay_ms(count):
            row = update(Attempts).where(Attempts.key == subject.key)
            await tx.execute(row.values(blocked_until_ms=now + delay_ms))


def address_of(text: str) -> str:
    """Return what counts as one client: an IPv4 address, an IPv6 /64 (a household's), or the text as it is."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is None:
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(getattr(address, "ipv4_mapped", None) or address)


async def _take_one(tx: AsyncSession, subject: Subject) -> None:
    fewer = case((Attempts.count > 1, Attempts.count - 1), else_=0)
    row = update(Attempts).where(Attempts.key == subject.key)
    await tx.execute(row.values(count=fewer, blocked_until_ms=0))


def _add_one(tx: AsyncSession, key: str, now: int) -> Any:
    """Return the statement that adds an attempt, and answers the count and the wait that stood before it.

    One statement, so that attempts at once on several replicas count one after the other: the row is locked.
    """
    dialect = postgresql if tx.get_bind().dialect.name == "postgresql" else sqlite
    insert = dialect.insert(Attempts).values(key=key, count=1, blocked_until_ms=0, updated_ms=now)
    count = case((Attempts.updated_ms < now - FORGET_MS, 1), else_=Attempts.count + 1)
    upsert = insert.on_conflict_do_update(index_elements=["key"], set_={"count": count, "updated_ms": now})
    return upsert.returning(Attempts.count, Attempts.blocked_until_ms)
