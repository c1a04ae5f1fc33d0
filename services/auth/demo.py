"""A demo account, so that a newcomer can log in at once; for a developer's machine only."""

from __future__ import annotations

from services.auth.database import Database
from services.auth.migrate import migrate
from services.auth.passwords import Passwords
from services.auth.settings import AuthSettings
from services.auth.users import Users
from shared.contracts.claims import USER_SCOPES, Scope
from shared.errors import Conflict, Forbidden
from shared.telemetry.metrics import Metrics

USERNAME = "demo"
PASSWORD = "demo-password"  # noqa: S105  # known to everybody, and refused in production
SCOPE = f"{USER_SCOPES} {Scope.OPS_READ} {Scope.NOTIFY_WRITE}"


async def ensure_demo_user(settings: AuthSettings) -> tuple[str, str]:
    """Make the demo account unless it is there, and return its name and password.

    Raises:
        Forbidden: this is not a developer's machine.
    """
    if settings.env != "development":
        raise Forbidden("the demo account is for FANFARE_ENV=development only")
    database = Database(settings.database_url)
    passwords = Passwords(concurrency=1, waiting=0, metrics=Metrics())
    try:
        await migrate(database)
        await Users(database, passwords).register(USERNAME, PASSWORD, "Demo", scope=SCOPE)
    except Conflict:
        pass
    finally:
        passwords.close()
        await database.close()
    return USERNAME, PASSWORD
