"""A token's text becomes a Principal, or is refused. One pinned algorithm, one issuer, one audience (RFC 8725)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

from pydantic import ValidationError

from shared.auth import jws
from shared.auth.keys import KeySource
from shared.auth.principal import Principal
from shared.clock import now_s
from shared.contracts.claims import ACCESS_TYP, MAX_TOKEN_CHARS, TICKET_TYP, Claims
from shared.errors import TokenExpired, Unauthorized

LEEWAY_S = 5
MAX_CACHED = 20_000
TokenKind = Literal["access", "ticket"]
_HEADER_TYP: dict[TokenKind, str] = {"access": ACCESS_TYP, "ticket": TICKET_TYP}


class TokenVerifier:
    """Verifies access tokens and tickets.

    The holder of an access token that held is remembered, by its digest, until it expires or the keys change: after a
    reconnect storm the same tokens come again, and an Ed25519 check each would be most of the cost. The oldest go when
    it is full.
    """

    def __init__(self, keys: KeySource, issuer: str, audience: str, clock: Callable[[], int] = now_s) -> None:
        self._keys, self._issuer, self._audience, self._clock = keys, issuer, audience, clock
        self._cache: dict[bytes, Principal] = {}
        self._cached_generation = keys.generation

    async def verify(self, token: str, *, typ: TokenKind = "access") -> Principal:
        """Return the token's holder.

        Raises:
            TokenExpired: it was good; its time is over.
            Unauthorized: it does not hold.
            Unavailable: no key of the issuer is known yet, so that nothing can be said about any token.
        """
        if typ != "access":
            return Principal.from_claims(await self.claims(token, typ=typ))
        text = _text(token)
        digest = hashlib.sha256(text).digest()
        holder = self._cached(digest)
        if holder is None:
            holder = self._remember(digest, Principal.from_claims(await self._verified(text, typ)))
        self._check_times(holder.issued_at_s, holder.expires_at_s)
        return holder

    async def claims(self, token: str, *, typ: TokenKind = "access") -> Claims:
        """Return all of the token's claims, never from memory; errors as `verify`."""
        claims = await self._verified(_text(token), typ)
        self._check_times(claims.iat, claims.exp)
        return claims

    # -- private ------------------------------------------------------------------------------------------------------

    async def _verified(self, token: bytes, typ: TokenKind) -> Claims:
        try:
            signed = jws.parse(token)
            if signed.header.typ != _HEADER_TYP[typ]:
                raise Unauthorized(f"this is not a token of the kind {typ}")
            key = await self._keys.key(signed.header.kid)
            if key is None:
                raise Unauthorized("the token's key is not known")
            claims = Claims.model_validate_json(jws.payload_of(signed, key))
        except (jws.BadToken, ValidationError) as error:
            raise Unauthorized("the token does not hold") from error
        if claims.typ != typ or claims.iss != self._issuer or claims.aud != self._audience:
            raise Unauthorized(f"this is not a token of the kind {typ}, from and for us")
        if claims.nbf is not None and claims.nbf - LEEWAY_S > self._clock():
            raise Unauthorized("the token does not hold yet")
        return claims

    def _check_times(self, issued_at_s: int, expires_at_s: int) -> None:
        now = self._clock()
        if expires_at_s + LEEWAY_S <= now:
            raise TokenExpired
        if issued_at_s - LEEWAY_S > now:
            raise Unauthorized("the token is from the future")

    def _cached(self, digest: bytes) -> Principal | None:
        if self._cached_generation != self._keys.generation:
            self._cache.clear()
            self._cached_generation = self._keys.generation
        return self._cache.get(digest)

    def _remember(self, digest: bytes, holder: Principal) -> Principal:
        if len(self._cache) >= MAX_CACHED:
            del self._cache[next(iter(self._cache))]
        self._cache[digest] = holder
        return holder


def _text(token: str) -> bytes:
    if len(token) > MAX_TOKEN_CHARS or not token.isascii():
        raise Unauthorized("this is not a token")
    return token.encode()
