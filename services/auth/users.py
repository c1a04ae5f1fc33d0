"""People's accounts."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.exc import IntegrityError

from services.auth import names
from services.auth.database import Database
from services.auth.models import User as UserRow
from services.auth.passwords import Passwords, check_password
from shared.clock import now_ms
from shared.contracts.claims import USER_SCOPES
from shared.contracts.ids import new_id
from shared.errors import BadInput, Conflict, Unauthorized


@dataclass(frozen=True, slots=True)
class User:
    """A person: who they are to others, and what they may do."""

    id: str
    username: str
    display_name: str
    scope: str


class Users:
    """Makes accounts and finds out whose they are."""

    def __init__(self, database: Database, passwords: Passwords) -> None:
        self._database, self._passwords = database, passwords

    async def register(
        self, username: str, password: str, display_name: str | None = None, *, scope: str = USER_SCOPES
    ) -> User:
        """Make an account. A taken name takes as long to refuse as a free one takes to give.

        Raises:
            BadInput: the name or the password may not be used.
            Conflict: the name is taken.
        """
        name = names.new_username(username)
        shown = names.display_name(display_name) if display_name else name
        check_password(password)
        row = UserRow(
            id=new_id("u"),
            username=name,
            username_key=names.username_key(name),
            display_name=shown,
            password_hash=await self._passwords.hash(password),
            scopes=scope,
            created_ms=now_ms(),
        )
        try:
            async with self._database.transaction() as tx:
                tx.add(row)
        except IntegrityError:
            raise Conflict("this username is taken") from None
        return _user(row)

    async def authenticate(self, username: str, password: str) -> User:
        """Return whose name and password these are; for an unknown name it does the same work.

        Raises:
            Unauthorized: nobody's. It does not say which of the two was wrong.
        """
        row = await self._find(username)
        fits = await self._passwords.verify(row.password_hash if row else None, password)
        if row is None or not fits:
            raise Unauthorized("wrong username or password")
        if self._passwords.outdated(row.password_hash):
            await self._rehash(row, password)
        return _user(row)

    async def get(self, user_id: str) -> User | None:
        """Return the user of this id; None if there is none such."""
        async with self._database.transaction() as tx:
            row = await tx.get(UserRow, user_id)
        return _user(row) if row else None

    # -- private ------------------------------------------------------------------------------------------------------

    async def _find(self, username: str) -> UserRow | None:
        try:
            key = names.username_key(names.username(username))
        except BadInput:
            return None
        async with self._database.transaction() as tx:
            found: UserRow | None = await tx.scalar(select(UserRow).where(UserRow.username_key == key))
        return found

    async def _rehash(self, row: UserRow, password: str) -> None:
        """Keep the password under today's parameters; unless it was changed meanwhile."""
        fresh = await self._passwords.hash(password)
        same = (UserRow.id == row.id) & (UserRow.password_hash == row.password_hash)
        async with self._database.transaction() as tx:
            await tx.execute(update(UserRow).where(same).values(password_hash=fresh))


def _user(row: UserRow) -> User:
    return User(row.id, row.username, row.display_name, row.scopes)
