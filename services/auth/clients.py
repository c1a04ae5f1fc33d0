"""Programs' accounts: producers and dashboards that sign in with a secret of their own (RFC 6749 section 4.4).

`python -m services.auth.clients add NAME --scope notify:write` prints the new client's id and its secret, once.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import hmac
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from services.auth.database import Database
from services.auth.migrate import migrate
from services.auth.models import Client as ClientRow
from services.auth.settings import AuthSettings
from shared.clock import now_ms
from shared.contracts.claims import Scope
from shared.contracts.ids import new_id, require_id
from shared.errors import BadInput, Conflict, FanfareError, Forbidden, NotFound, Unauthorized
from shared.runtime.settings import load_settings

_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Client:
    """A program that has signed in, with the scopes it asked for."""

    id: str
    name: str
    scope: str


class Clients:
    """Keeps clients; their secrets are 256 random bits, so a plain digest guards them as well as a slow one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, name: str, scopes: Sequence[str]) -> tuple[str, str]:
        """Make a client and return its id and its secret, which nobody can read again.

        Raises:
            BadInput: the name is no id, or a scope is not known.
            Conflict: the name is taken.
        """
        require_id(name, "name")
        if unknown := [scope for scope in scopes if not known_scope(scope)]:
            raise BadInput(f"not a scope: {', '.join(unknown)}")
        secret = secrets.token_urlsafe(32)
        row = ClientRow(
            id=new_id("c"),
            name=name,
            secret_digest=_digest(secret),
            scopes=" ".join(sorted(set(scopes))),
            created_ms=now_ms(),
        )
        try:
            async with self._database.transaction() as tx:
                tx.add(row)
        except IntegrityError:
            raise Conflict(f"there is a client {name} already") from None
        return row.id, secret

    async def remove(self, name: str) -> None:
        """Delete a client; it cannot sign in again, and what it holds ends within a token's life.

        Raises:
            NotFound: there is none of this name.
        """
        async with self._database.transaction() as tx:
            gone = await tx.scalar(delete(ClientRow).where(ClientRow.name == name).returning(ClientRow.id))
        if gone is None:
            raise NotFound(f"there is no client {name}")

    async def names(self) -> list[tuple[str, str, str]]:
        """Return name, id and scopes of all clients."""
        async with self._database.transaction() as tx:
            rows = await tx.scalars(select(ClientRow).order_by(ClientRow.name))
            return [(row.name, row.id, row.scopes) for row in rows]

    async def exists(self, client_id: str) -> bool:
        """Say whether there is a client of this id."""
        async with self._database.transaction() as tx:
            return await tx.get(ClientRow, client_id) is not None

    async def authenticate(self, client_id: str, secret: str, scope: str = "") -> Client:
        """Return the client with these credentials, limited to the scopes it asks for; all it has if it names none.

        Raises:
            Unauthorized: the credentials do not hold.
            Forbidden: it asks for a scope that it does not have.
        """
        async with self._database.transaction() as tx:
            row = await tx.get(ClientRow, client_id)
        fits = hmac.compare_digest(row.secret_digest if row else _NO_DIGEST, _digest(secret))
        if row is None or not fits:
            raise Unauthorized("wrong client id or secret")
        asked, has = set(scope.split()), set(row.scopes.split())
        if not asked <= has:
            raise Forbidden("this client does not have every scope that it asks for")
        return Client(row.id, row.name, " ".join(sorted(asked or has)))


def known_scope(scope: str) -> bool:
    """Say whether `scope` is one of the suite's, or follows a topic."""
    return scope in set(Scope) or scope.startswith("topic:")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


# -- the command ------------------------------------------------------------------------------------------------------


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m services.auth.clients", description="Programs that may sign in.")
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a client; prints its id and, once, its secret")
    add.add_argument("name")
    add.add_argument("--scope", action="append", default=[], dest="scopes", help="a right it has; may be repeated")
    commands.add_parser("remove", help="delete a client").add_argument("name")
    commands.add_parser("list", help="show all clients")
    return parser.parse_args()


async def _main(arguments: argparse.Namespace) -> None:
    database = Database(load_settings(AuthSettings).database_url)
    try:
        await migrate(database)
        await _command(Clients(database), arguments)
    except FanfareError as error:
        raise SystemExit(str(error)) from None
    finally:
        await database.close()


async def _command(clients: Clients, arguments: argparse.Namespace) -> None:
    if arguments.command == "add":
        client_id, secret = await clients.add(arguments.name, arguments.scopes)
        sys.stdout.write(f"client_id={client_id}\nclient_secret={secret}\n")
    elif arguments.command == "remove":
        await clients.remove(arguments.name)
    else:
        sys.stdout.writelines(f"{name}\t{client_id}\t{scopes}\n" for name, client_id, scopes in await clients.names())


if __name__ == "__main__":
    asyncio.run(_main(_arguments()))
