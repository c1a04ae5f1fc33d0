"""Tokens of any kind, from an issuer of the tests' own whose keys the edges fetch as they fetch the auth service's."""

from __future__ import annotations

import base64
import json
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.clock import now_s
from shared.contracts.claims import ACCESS_TYP, ALGORITHM, TICKET_TYP, USER_SCOPES
from shared.contracts.ids import new_id

ISSUER = AUDIENCE = "fanfare"


class Mint:
    """Signs what a test asks for, sensible or not; given the `secret` of another one, what that one signs."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(secret) if secret else Ed25519PrivateKey.generate()
        self._kid = f"k{self._key.public_key().public_bytes_raw().hex()[:16]}"

    @property
    def secret(self) -> bytes:
        """The private key, for another process."""
        return self._key.private_bytes_raw()

    @property
    def jwks(self) -> bytes:
        """The public key as a JWK set."""
        public = base64.urlsafe_b64encode(self._key.public_key().public_bytes_raw()).rstrip(b"=").decode()
        key = {"kty": "OKP", "crv": "Ed25519", "alg": ALGORITHM, "use": "sig", "kid": self._kid, "x": public}
        return json.dumps({"keys": [key]}).encode()

    def token(
        self,
        user: str,
        *,
        name: str = "",
        scope: str = USER_SCOPES,
        session: str | None = None,
        ttl_s: int = 600,
        **claims: Any,
    ) -> str:
        """Return an access token of `user`; `claims` replace what would stand there."""
        return self._sign(ACCESS_TYP, self._claims(user, name, scope, session, ttl_s, "access") | claims)

    def ticket(self, user: str, *, scope: str = USER_SCOPES, ttl_s: int = 30, session_ttl_s: int = 600) -> str:
        """Return a one-time ticket of `user`."""
        claims = self._claims(user, "", scope, None, ttl_s, "ticket")
        return self._sign(TICKET_TYP, claims | {"session_exp": now_s() + session_ttl_s})

    def _claims(self, user: str, name: str, scope: str, session: str | None, ttl_s: int, typ: str) -> dict[str, Any]:
        issued = now_s()
        return {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": user,
            "sid": session or new_id("s"),
            "jti": new_id(),
            "iat": issued,
            "exp": issued + ttl_s,
            "typ": typ,
            "scope": scope,
            "name": name or user,
        }

    def _sign(self, typ: str, claims: dict[str, Any]) -> str:
        return jwt.encode(claims, self._key, algorithm=ALGORITHM, headers={"typ": typ, "kid": self._kid})
