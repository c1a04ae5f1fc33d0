"""The database: short transactions, and one lock for what replicas must not do at once. SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, delete, event, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import InstrumentedAttribute

from shared.errors import Unavailable

POOL_SIZE = 10
POOL_WAIT_S = 5.0
BUSY_TIMEOUT_MS = 5_000
STATEMENT_TIMEOUT_S = 5.0
DELETED_AT_ONCE = 2_000
_LOCK_ID = 0x46414E46  # "FANF": any number, the same in every replica


class Database:
    """Owns the pool of connections."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(make_url(url))
        self._sessions = async_sessionmaker(self._engine, expire_on_commit=False, autoflush=False)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Run a transaction: committed at the end, rolled back when anything is raised.

        Raises:
            Unavailable: the database does not answer, or has no connection free in time.
        """
        try:
            async with self._sessions.begin() as session:
                yield session
        except (OSError, PoolTimeout, TimeoutError) as error:
            raise Unavailable("the database does not answer") from error
        except DBAPIError as error:
            if not _passing(error):
                raise
            raise Unavailable("the database does not answer") from error

    @asynccontextmanager
    async def exclusive(self) -> AsyncIterator[AsyncSession]:
        """Run a transaction that no other replica's exclusive one overlaps."""
        async with self.transaction() as session:
            if self._engine.dialect.name == "postgresql":
                await session.execute(text("SELECT pg_advisory_xact_lock(:id)"), {"id": _LOCK_ID})
            yield session

    async def delete_by_and_by(self, key: InstrumentedAttribute[str], where: ColumnElement[bool]) -> None:
        """Delete all rows of a table that `where` holds for, a part in each transaction: none may take too long.

        Args:
            key: the table's primary key.
        """
        table = key.class_
        part = select(key).where(where).limit(DELETED_AT_ONCE)
        deleted = DELETED_AT_ONCE
        while deleted == DELETED_AT_ONCE:
            async with self.transaction() as tx:
                result = await tx.execute(delete(table).where(key.in_(part.scalar_subquery())))
                deleted = result.rowcount if isinstance(result, CursorResult) else 0

    async def check(self) -> None:
        """Pass if the database answers: a readiness check.

        Raises:
            Unavailable: it does not.
        """
        async with self.transaction() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Close all connections."""
        await self._engine.dispose()


# -- private ----------------------------------------------------------------------------------------------------------


def _engine(url: URL) -> AsyncEngine:
    """Return the engine; what a failed statement was given stays out of its error, and so out of the logs."""
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    return create_async_engine(
        url,
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=POOL_WAIT_S,
        pool_pre_ping=True,
        hide_parameters=True,
        connect_args={"timeout": STATEMENT_TIMEOUT_S, "command_timeout": STATEMENT_TIMEOUT_S},
    )


def _sqlite(url: URL) -> AsyncEngine:
    """Return an engine whose transactions take the write lock as they begin.

    SQLite's own BEGIN takes it at the first write and fails at once if another transaction wrote since our first
    read; waiting for the lock first turns that into a short queue. Transactions here are a few statements long. A
    write-ahead log would let readers pass, but here nobody reads without the lock, and two processes that switch a
    new file to it at once are told "locked" whatever the timeout.
    """
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_async_engine(
        url, pool_size=POOL_SIZE, max_overflow=0, pool_timeout=POOL_WAIT_S, hide_parameters=True
    )

    @event.listens_for(engine.sync_engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine.sync_engine, "begin")
    def _begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _passing(error: DBAPIError) -> bool:
    """Say whether the statement may succeed later: the connection was lost, or the lock was not free in time."""
    return error.connection_invalidated or "database is locked" in str(error.orig) or _refused(error)


def _refused(error: DBAPIError) -> bool:
    """Say whether PostgreSQL is starting, stopping or full: classes 08, 53 and 57 of its error codes."""
    return str(getattr(error.orig, "sqlstate", None) or "")[:2] in {"08", "53", "57"}
