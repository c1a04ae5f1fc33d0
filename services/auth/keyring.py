"""The keys that sign, and when: one signs, the next is already published, the last is still published.

A key is published `lead_s` before it signs, which is longer than any verifier keeps a key set, and stays published
until the last token that it signed is over. So a rotation never makes a good token unknown. Keys live in the database,
where all replicas see the same, or in a directory of PEM files that somebody else rotates.

`python -m services.auth.keyring rotate` lets the next key sign from now on.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from nacl.signing import VerifyKey
from sqlalchemy import delete, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from services.auth.database import Database
from services.auth.migrate import migrate
from services.auth.models import SigningKeyRow
from services.auth.settings import AuthSettings
from shared.clock import now_ms
from shared.contracts.claims import ALGORITHM
from shared.errors import FanfareError, Unavailable
from shared.runtime.settings import load_settings
from shared.telemetry.logs import get_logger

RELOAD_S = 30.0
SIGNING_PEM = "signing.pem"


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key and when it begins to sign."""

    kid: str
    private: Ed25519PrivateKey
    signs_from_ms: int

    @property
    def public(self) -> Ed25519PublicKey:
        """The key that verifies."""
        return self.private.public_key()


class KeyStore(Protocol):
    """Where keys are kept."""

    async def load(self) -> Sequence[SigningKey]:
        """Return the keys to publish, by the time from which they sign; makes those that are due."""


class Keyring:
    """The keys as this replica knows them; a `shared.auth.keys.KeySource` too."""

    def __init__(self, store: KeyStore) -> None:
        self.generation = 0
        self._store, self._log = store, get_logger()
        self._keys: dict[str, SigningKey] = {}

    async def load(self) -> None:
        """Read the keys anew.

        Raises:
            Unavailable: there is none, or they cannot be read.
        """
        keys = {key.kid: key for key in await self._store.load()}
        if not any(key.signs_from_ms <= now_ms() for key in keys.values()):
            raise Unavailable("there is no key to sign with")
        if keys.keys() != self._keys.keys():
            self.generation += 1
        self._keys = keys

    async def run(self) -> None:
        """Keep up with what is stored; never returns. What was read last stays in use if it cannot be read."""
        while True:
            await asyncio.sleep(RELOAD_S)
            try:
                await self.load()
            except (FanfareError, SQLAlchemyError, OSError) as error:
                self._log.error("keys_not_read", error=repr(error))

    def signing(self) -> SigningKey:
        """Return the key that signs now."""
        now = now_ms()
        return max((key for key in self._keys.values() if key.signs_from_ms <= now), key=lambda key: key.signs_from_ms)

    async def key(self, kid: str) -> VerifyKey | None:
        """Return the public key of this id."""
        return VerifyKey(self._keys[kid].public.public_bytes_raw()) if kid in self._keys else None

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """Return the public keys as a JWK set (RFC 7517, RFC 8037)."""
        return {"keys": [_jwk(key) for key in self._keys.values()]}


class DatabaseKeys:
    """Keys in the database, made and retired here; replicas take turns by the database's lock."""

    def __init__(self, database: Database, *, rotate_s: int, lead_s: int, token_life_s: int) -> None:
        self._database = database
        self._rotate_ms, self._lead_ms, self._token_life_ms = rotate_s * 1000, lead_s * 1000, token_life_s * 1000

    async def load(self) -> Sequence[SigningKey]:
        """Return the keys to publish; the next one is made when the one before it begins to sign."""
        async with self._database.exclusive() as tx:
            rows = list(await tx.scalars(select(SigningKeyRow).order_by(SigningKeyRow.signs_from_ms)))
            now = now_ms()
            if not rows:
                rows.append(_new_row(tx, now))
            if rows[-1].signs_from_ms <= now:
                rows.append(_new_row(tx, max(now + self._lead_ms, rows[-1].signs_from_ms + self._rotate_ms)))
            retired = [row for row, successor in pairwise(rows) if self._over(successor, now)]
            await tx.execute(delete(SigningKeyRow).where(SigningKeyRow.kid.in_([row.kid for row in retired])))
        return [_from_row(row) for row in rows if row not in retired]

    async def rotate(self) -> str:
        """Let the next key sign from now on, and return its id. It is published already, so no token is refused."""
        await self.load()
        async with self._database.exclusive() as tx:
            kid = await tx.scalar(select(SigningKeyRow.kid).order_by(SigningKeyRow.signs_from_ms.desc()).limit(1))
            await tx.execute(update(SigningKeyRow).where(SigningKeyRow.kid == kid).values(signs_from_ms=now_ms()))
        await self.load()
        return str(kid)

    def _over(self, successor: SigningKeyRow, now: int) -> bool:
        return successor.signs_from_ms + self._token_life_ms + self._lead_ms < now


class DirectoryKeys:
    """Keys in PEM files: `signing.pem` signs, the others are published; a secret mounted by an orchestrator."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def load(self) -> Sequence[SigningKey]:
        """Return all keys; the files are read again each time, since a mounted secret may change."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Sequence[SigningKey]:
        try:
            return [_from_pem(path.read_text(), signs=path.name == SIGNING_PEM) for path in self._paths()]
        except (OSError, ValueError, TypeError) as error:
            raise Unavailable(f"the keys in {self._directory} cannot be read: {error}") from error

    def _paths(self) -> list[Path]:
        return sorted(self._directory.glob("*.pem"))


def key_store(settings: AuthSettings, database: Database) -> DatabaseKeys | DirectoryKeys:
    """Return the store that the settings name."""
    if settings.auth_keys_dir is not None:
        return DirectoryKeys(settings.auth_keys_dir)
    return DatabaseKeys(
        database,
        rotate_s=settings.key_rotate_s,
        lead_s=settings.key_lead_s,
        token_life_s=settings.access_ttl_s,
    )


# -- private ----------------------------------------------------------------------------------------------------------

_NEVER_MS = 2**62


def _new_row(tx: AsyncSession, signs_from_ms: int) -> SigningKeyRow:
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    row = SigningKeyRow(kid=_thumbprint(private), private_pem=pem.decode(), signs_from_ms=signs_from_ms)
    tx.add(row)
    return row


def _from_row(row: SigningKeyRow) -> SigningKey:
    return SigningKey(row.kid, _private(row.private_pem), row.signs_from_ms)


def _from_pem(pem: str, *, signs: bool) -> SigningKey:
    private = _private(pem)
    return SigningKey(_thumbprint(private), private, 0 if signs else _NEVER_MS)


def _private(pem: str) -> Ed25519PrivateKey:
    key = serialization.load_pem_private_key(pem.encode(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise TypeError("an Ed25519 private key is needed")
    return key


def _thumbprint(private: Ed25519PrivateKey) -> str:
    """Return the key's id: its RFC 7638 thumbprint, so that the same key has the same id wherever it is kept."""
    members = {"crv": "Ed25519", "kty": "OKP", "x": _x(private.public_key())}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":"), sort_keys=True).encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _x(public: Ed25519PublicKey) -> str:
    return base64.urlsafe_b64encode(public.public_bytes_raw()).rstrip(b"=").decode()


def _jwk(key: SigningKey) -> dict[str, str]:
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM, "kid": key.kid, "x": _x(key.public)}


async def _rotate() -> None:
    settings = load_settings(AuthSettings)
    database = Database(settings.database_url)
    store = key_store(settings, database)
    try:
        if not isinstance(store, DatabaseKeys):
            raise SystemExit(f"the keys are files: replace {SIGNING_PEM} in AUTH_KEYS_DIR")
        await migrate(database)
        sys.stdout.write(f"signs from now on: {await store.rotate()}\n")
    finally:
        await database.close()


if __name__ == "__main__":
    if sys.argv[1:] != ["rotate"]:
        raise SystemExit("usage: python -m services.auth.keyring rotate")
    asyncio.run(_rotate())
