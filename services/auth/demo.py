"""A demo account, so that a newcomer can log in at once; for a developer's machine only.

`make run` makes it by itself; compose by `python -m services.auth.demo`. Elsewhere nobody makes it, and where
there is one from before, its known password opens nothing.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import NamedTuple

from services.auth.database import Database
from services.auth.migrate import migrate
from services.auth.names import username_key
from services.auth.passwords import Passwords
from services.auth.settings import AuthSettings
from services.auth.users import Users
from shared.contracts.claims import USER_SCOPES, Scope
from shared.errors import Conflict, Forbidden
from shared.runtime.settings import load_settings
from shared.telemetry.metrics import Metrics

USERNAME = "demo"
PASSWORD = "demo-password"  # noqa: S105  # known to everybody, and refused in production
SCOPE = f"{USER_SCOPES} {Scope.OPS_READ} {Scope.NOTIFY_WRITE}"


class DemoAccount(NamedTuple):
    """What a newcomer is told."""

    username: str
    password: str
    user_id: str


async def ensure_demo_user(settings: AuthSettings) -> DemoAccount:
    """Make the demo account unless it is there, and return it.

    Raises:
        Forbidden: this is not a developer's machine.
    """
    if settings.env != "development":
        raise Forbidden("the demo account is for FANFARE_ENV=development only")
    database = Database(settings.database_url)
    passwords = Passwords(concurrency=1, waiting=0, metrics=Metrics())
    try:
        await migrate(database)
        users = Users(database, passwords)
        with suppress(Conflict):
            await users.register(USERNAME, PASSWORD, "Demo", scope=SCOPE)
        user = await users.authenticate(USERNAME, PASSWORD)
    finally:
        passwords.close()
        await database.close()
    return DemoAccount(USERNAME, PASSWORD, user.id)


def is_demo(username: str, password: str) -> bool:
    """Say whether these are what everybody knows."""
    return username_key(username) == USERNAME and password == PASSWORD


def main() -> None:
    """Make the account on a developer's machine, and nothing anywhere else."""
    settings = load_settings(AuthSettings)
    if settings.env == "development":
        asyncio.run(ensure_demo_user(settings))


if __name__ == "__main__":
    main()
