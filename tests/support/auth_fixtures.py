"""Fixtures of the auth service's tests; each test that takes `database_url` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.auth.settings import AuthSettings
from tests.support.auth_service import RunningAuth, running_auth
from tests.support.postgres import PostgresServer, postgres_server


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL server, for the session."""
    with postgres_server() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database of this test's own."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/auth.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.new_database()


@pytest.fixture
def settings(database_url: str, nats_url: str) -> AuthSettings:
    """Settings of a replica on a free port."""
    return AuthSettings(port=0, database_url=database_url, nats_url=nats_url)


@pytest.fixture
async def auth(settings: AuthSettings) -> AsyncIterator[RunningAuth]:
    """One replica."""
    async with running_auth(settings) as running:
        yield running


@pytest.fixture
async def replica(auth: RunningAuth) -> AsyncIterator[RunningAuth]:
    """A second one, on the same database and broker."""
    async with running_auth(auth.settings) as running:
        yield running
