"""Brings the database's schema up to date. Replicas may start at once: one migrates, the others wait and find it done.

`python -m services.auth.migrate` does it as a step of its own; the service does it at every start.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection

from services.auth.database import Database
from services.auth.settings import AuthSettings
from shared.runtime.settings import load_settings

MIGRATIONS = Path(__file__).parent / "migrations"


async def migrate(database: Database) -> None:
    """Apply every migration that is missing, in one transaction."""
    async with database.exclusive() as session:
        connection = await session.connection()
        await connection.run_sync(_upgrade)


def _upgrade(connection: Connection) -> None:
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")


async def _main() -> None:
    database = Database(load_settings(AuthSettings).database_url)
    try:
        await migrate(database)
    finally:
        await database.close()


if __name__ == "__main__":
    asyncio.run(_main())
