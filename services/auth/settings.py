"""Settings of the auth service, beside those that every service has."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from shared.runtime.settings import ServiceSettings

DAY_S = 86_400
_ASYNC_DRIVERS = {"postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}


class AuthSettings(ServiceSettings):
    """What the auth service reads from its environment.

    Attributes:
        database_url: DATABASE_URL. SQLite for one machine; `postgresql://…` (or `postgres://…`) for several replicas.
        auth_keys_dir: AUTH_KEYS_DIR. A directory of PEM files that are used instead of keys kept in the database:
            `signing.pem` signs, every other `*.pem` is published so that what it signed still holds.
        access_ttl_s: how long an access token holds. A stolen one is good for no longer.
        session_ttl_s: how long a login lasts, however often it is refreshed.
        key_rotate_s: how long a key signs, when keys are kept in the database.
        key_lead_s: how long a key is published before it signs; longer than verifiers keep a key set.
        cookie_secure: COOKIE_SECURE. `auto`: under https, also as a trusted proxy reports it.
        argon2_concurrency: password hashes computed at once, each in 19 MiB and a thread of its own.
        argon2_waiting: password hashes that may wait; the next one is answered 429.
        login_free_per_account: failed logins of one account before each costs a delay.
        login_free_per_address: the same for one client address, which many people may share.
        register_free_per_address: accounts made from one address before each costs a delay.
        call_rate_hz, call_burst: calls of one client address to one replica: so many a second, and so many at once.
        max_sessions_per_user: logins of one user that stand; one more ends the oldest. 0 for no cap.
        refresh_rate_hz: how often a session is refreshed at one replica, 30 times at once.
    """

    port: int = Field(8081, ge=0, le=65535)
    database_url: str = "sqlite+aiosqlite:///./.data/auth.db"
    auth_keys_dir: Path | None = None
    access_ttl_s: int = Field(600, ge=30, le=3600)
    session_ttl_s: int = Field(30 * DAY_S, ge=60, le=366 * DAY_S)
    key_rotate_s: int = Field(30 * DAY_S, ge=3600)
    key_lead_s: int = Field(900, ge=600)
    cookie_secure: Literal["auto", "on", "off"] = "auto"
    argon2_concurrency: int = Field(2, ge=1, le=64)
    argon2_waiting: int = Field(64, ge=0, le=4096)
    login_free_per_account: int = Field(5, ge=1)
    login_free_per_address: int = Field(50, ge=1)
    register_free_per_address: int = Field(200, ge=1)
    call_rate_hz: float = Field(50.0, gt=0)
    call_burst: int = Field(2_000, ge=1)
    max_sessions_per_user: int = Field(100, ge=0)
    refresh_rate_hz: float = Field(0.1, gt=0)

    @field_validator("database_url")
    @classmethod
    def _async_driver(cls, value: str) -> str:
        """Name the asynchronous driver, whichever way the address was written."""
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("not a database address; say postgresql://user:password@host/name") from None
        driver = _ASYNC_DRIVERS.get(url.drivername, url.drivername)
        if driver not in _ASYNC_DRIVERS.values():
            raise ValueError("the database is PostgreSQL or SQLite")
        return url.set(drivername=driver).render_as_string(hide_password=False)
