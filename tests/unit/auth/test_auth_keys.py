"""How a verifier comes by its keys, and keeps them while the issuer is away."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.auth.keys import MAX_JWKS_BYTES, RemoteKeys, parse_jwks
from shared.errors import BadInput, Unavailable


def jwk(kid: str) -> dict[str, str]:
    x = base64.urlsafe_b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).rstrip(b"=").decode()
    return {"kty": "OKP", "crv": "Ed25519", "use": "sig", "kid": kid, "x": x}


class Issuer:
    """A key server whose answers and count a test controls."""

    def __init__(self) -> None:
        self.asked = 0
        self.keys = [jwk("k1")]
        self.body: bytes | None = None
        self.up = True

    async def __call__(self, _request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(0)
        if not self.up:
            raise httpx.ConnectError("down")
        return httpx.Response(200, content=self.body or json.dumps({"keys": self.keys}).encode())


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(issuer: Issuer, clock: Clock) -> AsyncIterator[RemoteKeys]:
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer)) as client:
        yield RemoteKeys("http://auth.test/jwks", client, clock=clock)


async def test_keys_are_fetched_when_first_needed(keys: RemoteKeys, issuer: Issuer) -> None:
    with pytest.raises(Unavailable):
        await keys.check()
    assert await keys.key("k1") is not None
    await keys.check()
    assert issuer.asked == 1


async def test_many_who_miss_one_key_ask_once(keys: RemoteKeys, issuer: Issuer, clock: Clock) -> None:
    await keys.key("k1")
    issuer.keys.append(jwk("k2"))
    clock.now += 10

    found = await asyncio.gather(*(keys.key("k2") for _ in range(50)))

    assert all(found)
    assert issuer.asked == 2
    assert keys.generation == 2


async def test_invented_key_ids_do_not_make_it_hammer_the_issuer(
    keys: RemoteKeys, issuer: Issuer, clock: Clock
) -> None:
    await keys.key("k1")
    for number in range(100):
        clock.now += 0.04
        assert await keys.key(f"invented{number}") is None

    assert issuer.asked == 1


async def test_the_last_keys_stay_in_use_while_the_issuer_is_away(
    keys: RemoteKeys, issuer: Issuer, clock: Clock
) -> None:
    await keys.key("k1")
    issuer.up = False
    clock.now += 10

    assert await keys.key("k1") is not None
    assert await keys.key("k2") is None
    await keys.check()


async def test_before_any_key_is_known_nothing_is_said_about_a_token(keys: RemoteKeys, issuer: Issuer) -> None:
    issuer.up = False
    with pytest.raises(Unavailable):
        await keys.key("k1")


@pytest.mark.parametrize("body", [b"", b"{}", b'{"keys":[]}', b"[" * 100_000, b"x" * (MAX_JWKS_BYTES + 1)])
async def test_an_answer_that_is_no_key_set_changes_nothing(
    keys: RemoteKeys, issuer: Issuer, clock: Clock, body: bytes
) -> None:
    await keys.key("k1")
    issuer.body = body
    clock.now += 10

    assert await keys.key("k2") is None
    assert await keys.key("k1") is not None


async def test_run_fetches_and_fetches_again(issuer: Issuer) -> None:
    async with httpx.AsyncClient(transport=httpx.MockTransport(issuer)) as client:
        keys = RemoteKeys("http://auth.test/jwks", client, refresh_s=0.01)
        running = asyncio.ensure_future(keys.run())
        async with asyncio.timeout(5):
            while issuer.asked < 3:
                await asyncio.sleep(0.005)
        running.cancel()

    await keys.check()
    assert await keys.key("k1") is not None


def test_a_removed_key_is_no_longer_known() -> None:
    first = parse_jwks(json.dumps({"keys": [jwk("k1"), jwk("k2")]}).encode())
    assert list(first) == ["k1", "k2"]


@pytest.mark.parametrize(
    "entry",
    [
        {"kty": "RSA", "kid": "r", "n": "AQAB", "e": "AQAB"},
        {"kty": "oct", "kid": "o", "k": "c2VjcmV0"},
        jwk("k1") | {"crv": "X25519"},
        jwk("k1") | {"use": "enc"},
        jwk("k1") | {"x": "!!"},
        jwk("k1") | {"x": "AAAA"},
        jwk("../x"),
        {key: value for key, value in jwk("k1").items() if key != "kid"},
    ],
)
def test_keys_of_other_kinds_are_not_taken(entry: dict[str, str]) -> None:
    with pytest.raises(BadInput):
        parse_jwks(json.dumps({"keys": [entry]}).encode())
