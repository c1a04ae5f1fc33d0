"""Which tokens hold, and which of the many that look like one do not."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st
from nacl.signing import VerifyKey

from shared.auth.keys import StaticKeys
from shared.auth.tokens import LEEWAY_S, MAX_CACHED, TokenVerifier
from shared.errors import TokenExpired, Unauthorized

PRIVATE = Ed25519PrivateKey.generate()
PUBLIC = VerifyKey(PRIVATE.public_key().public_bytes_raw())
NOW = int(time.time())  # noqa: TID251  # PyJWT, our second opinion, reads the wall clock


class CountingKeys(StaticKeys):
    """Keys that count how often they are asked."""

    asked = 0

    async def key(self, kid: str) -> VerifyKey | None:
        self.asked += 1
        return await super().key(kid)


class Clock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys() -> CountingKeys:
    return CountingKeys({"k1": PUBLIC})


@pytest.fixture
def verifier(keys: CountingKeys, clock: Clock) -> TokenVerifier:
    return TokenVerifier(keys, "fanfare", "fanfare", clock)


def claims(**changes: Any) -> dict[str, Any]:
    """Return good claims, changed; None takes one away."""
    good = {
        "iss": "fanfare",
        "aud": "fanfare",
        "sub": "u1",
        "sid": "s1",
        "jti": "j1",
        "iat": NOW,
        "exp": NOW + 600,
        "typ": "access",
        "scope": "chat topic:*",
        "name": "Ann",
    }
    return {key: value for key, value in (good | changes).items() if value is not None}


def signed(payload: dict[str, Any] | None = None, key: Any = PRIVATE, algorithm: str = "EdDSA", **header: Any) -> str:
    headers = {"typ": "at+jwt", "kid": "k1"} | header
    return jwt.encode(payload or claims(), key, algorithm=algorithm, headers=headers)


def handmade(header: dict[str, Any], payload: bytes, secret: bytes = b"") -> str:
    parts = [base64.urlsafe_b64encode(part).rstrip(b"=") for part in (json.dumps(header).encode(), payload)]
    mac = base64.urlsafe_b64encode(hmac.digest(secret, b".".join(parts), hashlib.sha256)).rstrip(b"=")
    return b".".join([*parts, mac if secret else b""]).decode()


def signed_by_hand(header: Any = None, payload: bytes | None = None) -> str:
    """Return a token with a good signature of whatever stands in it."""
    parts = [json.dumps(header or GOOD_HEADER).encode(), payload or GOOD]
    text = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in parts)
    return (text + b"." + base64.urlsafe_b64encode(PRIVATE.sign(text)).rstrip(b"=")).decode()


def respelled(token: str) -> str:
    """Return a token whose last character has one of the bits set that base64url does not use (64 bytes leave four)."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


PUBLIC_PEM = PRIVATE.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
GOOD = json.dumps(claims()).encode()
GOOD_HEADER = {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}
HEADER_VALUES = st.sampled_from(["EdDSA", "none", "ES256", "at+jwt", "JWT", "k1", "k2", ["b64"], [], True, False, None])
CLAIM_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.floats(),
    st.integers(NOW - 10, NOW + 10),
    st.sampled_from(["fanfare", ["fanfare"], "u2", "access", "ticket", "", "*", str(NOW), f"{NOW}.0", {}, 10**30]),
)
FORGED = {
    "empty": "",
    "no token": "hello",
    "two parts": "a.b",
    "1 MB": "a" * 1_000_000,
    "long but well formed": signed(claims(name="x" * 5000)),
    "not ascii": signed() + "é",
    "alg none": handmade({"alg": "none", "typ": "at+jwt", "kid": "k1"}, GOOD),
    "alg NonE": handmade({"alg": "NonE", "typ": "at+jwt", "kid": "k1"}, GOOD),
    "HS256 keyed with the public PEM": handmade({"alg": "HS256", "typ": "at+jwt", "kid": "k1"}, GOOD, PUBLIC_PEM),
    "HS256 keyed with the public bytes": handmade(
        {"alg": "HS256", "typ": "at+jwt", "kid": "k1"}, GOOD, PRIVATE.public_key().public_bytes_raw()
    ),
    "EdDSA named, no signature": handmade({"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}, GOOD),
    "another key": signed(key=Ed25519PrivateKey.generate()),
    "unknown kid": signed(kid="k2"),
    "kid that walks": signed(kid="../../etc/passwd"),
    "kid with a wildcard": signed(kid="*"),
    "no kid": handmade({"alg": "EdDSA", "typ": "at+jwt"}, GOOD),
    "key of the token's own": signed(key=Ed25519PrivateKey.generate(), jku="https://evil.example/jwks.json"),
    "x5u": signed(key=Ed25519PrivateKey.generate(), x5u="https://evil.example/cert.pem"),
    "unknown crit": signed(crit=["exp2"], exp2=1),
    "a payload outside of the token": signed(b64=False),
    "four parts": signed() + ".e30",
    "padded": signed() + "==",
    "spaces inside": signed().replace(".", " . "),
    "a kid of another type": signed_by_hand({"alg": "EdDSA", "typ": "at+jwt", "kid": ["k1"]}),
    "a header that is a list": signed_by_hand(["EdDSA", "at+jwt", "k1"]),
    "a payload that is a list": signed_by_hand(payload=b"[]"),
    "a payload that is no JSON": signed_by_hand(payload=b"{"),
    "a payload that is not UTF-8": signed_by_hand(payload=GOOD.replace(b"Ann", b"\xff")),
    "a deep payload": signed_by_hand(payload=b"[" * 2500),
    "another spelling of the signature": respelled(signed()),
    "typ JWT": signed(typ="JWT"),
    "a ticket": signed(claims(typ="ticket"), typ="ticket+jwt"),
    "a ticket with an access header": signed(claims(typ="ticket")),
    "a refresh typ": signed(claims(typ="refresh")),
    "wrong audience": signed(claims(aud="other")),
    "no audience": signed(claims(aud=None)),
    "wrong issuer": signed(claims(iss="https://evil.example")),
    "no expiry": signed(claims(exp=None)),
    "no subject": signed(claims(sub=None)),
    "no jti": signed(claims(jti=None)),
    "no session": signed(claims(sid=None)),
    "a subject that is no id": signed(claims(sub="*")),
    "a subject with a dot": signed(claims(sub="a.b")),
    "a jti that is no id": signed(claims(jti="a.b")),
    "from the future": signed(claims(iat=NOW + 3600)),
    "not yet": signed(claims(nbf=NOW + 3600)),
    "a time in a string": signed_by_hand(GOOD_HEADER, json.dumps(claims(iat=f"{NOW}.0")).encode()),
    "a time that is true": signed_by_hand(GOOD_HEADER, json.dumps(claims(iat=True)).encode()),
    "infinite expiry": handmade(
        {"alg": "EdDSA", "typ": "at+jwt", "kid": "k1"}, GOOD.replace(str(NOW + 600).encode(), b"1e400")
    ),
    "deep header": base64.urlsafe_b64encode(b"[" * 2900).decode() + ".e30.e30",
}


async def test_a_good_token_names_its_holder(verifier: TokenVerifier) -> None:
    holder = await verifier.verify(signed())

    assert (holder.user_id, holder.username, holder.session) == ("u1", "Ann", "s1")
    assert holder.scopes == {"chat", "topic:*"}
    assert (holder.issued_at_s, holder.expires_at_s) == (NOW, NOW + 600)


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
async def test_what_only_looks_like_a_token_is_refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthorized) as refusal:
        await verifier.verify(token)

    assert refusal.value.code == "unauthorized"


@given(
    header=st.dictionaries(st.sampled_from(["alg", "typ", "kid", "crit", "b64", "jku"]), HEADER_VALUES, max_size=4),
    changes=st.dictionaries(st.sampled_from([*claims(), "nbf", "session_exp"]), CLAIM_VALUES, max_size=4),
)
def test_what_holds_here_holds_for_pyjwt_too(header: dict[str, Any], changes: dict[str, Any]) -> None:
    changes = {name: value for name, value in changes.items() if (name, value) != ("nbf", None)}  # null: not said
    token = signed_by_hand(GOOD_HEADER | header, json.dumps(claims() | changes).encode())
    try:
        holder = asyncio.run(TokenVerifier(StaticKeys({"k1": PUBLIC}), "fanfare", "fanfare").verify(token))
    except Unauthorized:
        return
    second_opinion = jwt.decode(
        token,
        PRIVATE.public_key(),
        algorithms=["EdDSA"],
        audience="fanfare",
        issuer="fanfare",
        leeway=LEEWAY_S,
        options={"require": ["exp", "iat", "sub", "aud", "iss", "jti"]},
    )

    assert jwt.get_unverified_header(token)["typ"] == "at+jwt"
    assert holder.user_id == second_opinion["sub"]
    assert holder.session == second_opinion["sid"]
    assert holder.issued_at_s == int(second_opinion["iat"])


async def test_every_change_of_one_character_is_refused(verifier: TokenVerifier) -> None:
    token = signed()
    for at in range(0, len(token), 7):
        changed = token[:at] + ("A" if token[at] != "A" else "B") + token[at + 1 :]
        with pytest.raises(Unauthorized):
            await verifier.verify(changed)


async def test_a_token_expires_after_the_leeway_even_when_it_is_remembered(
    verifier: TokenVerifier, clock: Clock
) -> None:
    token = signed()
    await verifier.verify(token)

    clock.now = NOW + 600 + LEEWAY_S - 1
    await verifier.verify(token)
    clock.now += 1

    with pytest.raises(TokenExpired):
        await verifier.verify(token)


async def test_a_token_that_comes_again_is_not_checked_again(verifier: TokenVerifier, keys: CountingKeys) -> None:
    token = signed()
    for _ in range(5):
        await verifier.verify(token)

    assert keys.asked == 1


async def test_a_remembered_access_token_is_still_no_ticket(verifier: TokenVerifier) -> None:
    token = signed()
    await verifier.verify(token)

    with pytest.raises(Unauthorized):
        await verifier.verify(token, typ="ticket")


async def test_a_remembered_token_is_checked_again_when_the_keys_change(
    verifier: TokenVerifier, keys: CountingKeys
) -> None:
    token = signed()
    await verifier.verify(token)

    keys._keys.clear()
    keys.generation += 1  # type: ignore[misc]

    with pytest.raises(Unauthorized):
        await verifier.verify(token)


async def test_the_memory_of_tokens_is_bounded(verifier: TokenVerifier) -> None:
    verifier._cache = {number.to_bytes(4, "big"): None for number in range(MAX_CACHED)}  # type: ignore[misc]
    await verifier.verify(signed())

    assert len(verifier._cache) == MAX_CACHED


async def test_a_ticket_lends_its_sessions_time(verifier: TokenVerifier) -> None:
    ticket = signed(claims(typ="ticket", exp=NOW + 30, session_exp=NOW + 500), typ="ticket+jwt")

    assert (await verifier.verify(ticket, typ="ticket")).expires_at_s == NOW + 500
