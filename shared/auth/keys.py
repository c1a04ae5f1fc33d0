"""Public keys by their id: where a verifier finds the key that a token names.

Only the address in the settings is ever asked; nothing in a token (`jku`, `x5u`, `jwk`, `iss`) steers I/O
(RFC 8725 section 3.10).
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, Protocol

import httpx
from nacl.signing import VerifyKey

from shared.clock import Clock, monotonic_s
from shared.contracts.ids import Id, require_id
from shared.errors import BadId, BadInput, Unavailable
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

MAX_JWKS_BYTES = 64 * 1024
MAX_KEYS = 32
FETCH_TIMEOUT_S = 3.0
RETRY_S = 2.0
FIRST_RETRY_S = 0.25

Keys = Mapping[Id, VerifyKey]


class KeySource(Protocol):
    """Public keys of the one issuer that is trusted."""

    @property
    def generation(self) -> int:
        """A number that changes whenever the set of keys does."""

    async def key(self, kid: str) -> VerifyKey | None:
        """Return the key of this id; None if the issuer has none such.

        Raises:
            Unavailable: no key of the issuer is known yet.
        """


class StaticKeys:
    """Keys that are known from the start."""

    generation = 0

    def __init__(self, keys: Keys) -> None:
        self._keys = dict(keys)

    async def key(self, kid: str) -> VerifyKey | None:
        """Return the key of this id, if there is one."""
        return self._keys.get(kid)


class RemoteKeys:
    """Keys of the auth service, fetched from its JWKS address and kept while it is away.

    `run` refreshes them; a key id that is not known asks once more, in one flight for all who wait, and no more
    often than every `min_refetch_s`: tokens with invented key ids cannot make this process hammer the issuer.
    """

    def __init__(
        self,
        url: str,
        client: httpx.AsyncClient,
        *,
        metrics: Metrics | None = None,
        refresh_s: float = 300.0,
        min_refetch_s: float = 5.0,
        clock: Clock = monotonic_s,
    ) -> None:
        self.generation = 0
        self._url, self._client, self._clock = url, client, clock
        self._refresh_s, self._min_refetch_s = refresh_s, min_refetch_s
        self._keys: Keys = {}
        self._asked_at_s: float | None = None
        self._one_flight = asyncio.Lock()
        self._log = get_logger()
        self._fetches = (metrics or Metrics()).counter("jwks_fetches", "Fetches of the issuer's keys", ["result"])

    async def key(self, kid: str) -> VerifyKey | None:
        """Return the key of this id, asking the issuer again if it is not known."""
        if kid not in self._keys:
            await self._ask_again(kid)
        if not self._keys:
            raise Unavailable("the keys that tokens are checked with are not known yet")
        return self._keys.get(kid)

    async def run(self) -> None:
        """Keep the keys fresh; never returns. While the issuer is away the last keys stay in use."""
        while True:
            async with self._one_flight:
                fetched = await self._fetch()
            wait_s = self._refresh_s if fetched else RETRY_S if self._keys else FIRST_RETRY_S
            await asyncio.sleep(min(wait_s, self._refresh_s))

    async def check(self) -> None:
        """Pass once keys are known: a readiness check.

        Raises:
            Unavailable: they are not.
        """
        if not self._keys:
            raise Unavailable("the issuer's keys were not fetched yet")

    # -- private ------------------------------------------------------------------------------------------------------

    async def _ask_again(self, kid: str) -> None:
        async with self._one_flight:
            recently = self._asked_at_s is not None and self._clock() - self._asked_at_s < self._min_refetch_s
            if kid not in self._keys and not recently:
                await self._fetch()

    async def _fetch(self) -> bool:
        self._asked_at_s = self._clock()
        try:
            keys = parse_jwks(await self._download())
        except (httpx.HTTPError, BadInput, TimeoutError) as error:
            self._fetches.labels("failed").inc()
            # Before the first success the issuer may just be starting; readiness says that keys are missing.
            log = self._log.warning if self._keys else self._log.info
            log("jwks_fetch_failed", url=self._url, error=repr(error), keys_in_use=len(self._keys))
            return False
        self._fetches.labels("ok").inc()
        if keys.keys() != self._keys.keys():
            self._keys = keys
            self.generation += 1
        return True

    async def _download(self) -> bytes:
        async with (
            asyncio.timeout(FETCH_TIMEOUT_S),
            self._client.stream("GET", self._url, follow_redirects=False) as response,
        ):
            response.raise_for_status()
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_JWKS_BYTES:
                    raise BadInput("the key set is too large")
            return body


def parse_jwks(document: bytes) -> dict[str, VerifyKey]:
    """Return the Ed25519 keys of a JWK set by their id (RFC 7517, RFC 8037); keys of other kinds are passed over.

    Raises:
        BadInput: it is no JWK set, or has no key for us.
    """
    try:
        entries = json.loads(document)["keys"][:MAX_KEYS]
        keys = {require_id(entry["kid"], "kid"): _public_key(entry) for entry in entries if _ours(entry)}
    except (ValueError, TypeError, KeyError, BadId, RecursionError) as error:
        raise BadInput("not a JWK set") from error
    if not keys:
        raise BadInput("the JWK set has no Ed25519 key")
    return keys


def _ours(entry: dict[str, Any]) -> bool:
    return entry.get("kty") == "OKP" and entry.get("crv") == "Ed25519" and entry.get("use", "sig") == "sig"


def _public_key(entry: dict[str, Any]) -> VerifyKey:
    text = entry["x"]
    try:
        return VerifyKey(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except binascii.Error as error:
        raise ValueError("x is not base64url") from error
