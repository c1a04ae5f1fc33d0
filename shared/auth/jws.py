"""A signed token's text taken apart and verified: compact JWS with the one algorithm EdDSA (RFC 7515, RFC 8037).

Ours instead of PyJWT's, since it runs once for each connection (ADR 13). It is strict where PyJWT is, and where that
leaves a choice: base64url in its one canonical form, no `crit` and no `b64` (RFC 7797) at all, and nothing of the
header but `alg`, `typ` and `kid` means anything (RFC 8725).
"""

from __future__ import annotations

import json
from binascii import a2b_base64, b2a_base64
from functools import lru_cache
from typing import NamedTuple

from nacl.exceptions import CryptoError
from nacl.signing import VerifyKey

from shared.contracts.claims import ALGORITHM
from shared.contracts.ids import is_id

FORBIDDEN = frozenset({"crit", "b64"})
"""Header fields that change what a token means; ours have none."""


_TO_BASE64 = bytes.maketrans(b"-_+/", b"+/--")  # and what base64url has not becomes what base64 has not


class BadToken(Exception):
    """The text is no token of ours, or its signature is not the key's."""


class Header(NamedTuple):
    """What a token says of itself before anything of it has been verified."""

    typ: str
    kid: str


class Signed(NamedTuple):
    """A token taken apart; `signed` is what `signature` is of."""

    header: Header
    payload: bytes
    signed: bytes
    signature: bytes


def parse(token: bytes) -> Signed:
    """Take a token apart; nothing of it has been verified then.

    Raises:
        BadToken: it has not three parts, or not the header of a token of ours.
    """
    signed, _, signature = token.rpartition(b".")
    header, dot, payload = signed.partition(b".")
    if not dot or b"." in payload:
        raise BadToken("a token has three parts")
    return Signed(_header(header), payload, signed, _decoded(signature))


def payload_of(token: Signed, key: VerifyKey) -> bytes:
    """Return the payload if `key` has signed the token.

    Raises:
        BadToken: it has not.
    """
    try:
        key.verify(token.signed, token.signature)
    except CryptoError as error:
        raise BadToken("the signature is not the key's") from error
    return _decoded(token.payload)


# -- private ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _header(segment: bytes) -> Header:
    """Return a header; all tokens of one key and kind have the same, letter for letter.

    Raises:
        BadToken: it is no header of a token of ours.
    """
    try:
        header = json.loads(_decoded(segment))
    except (ValueError, RecursionError) as error:
        raise BadToken("the header is not JSON") from error
    if not isinstance(header, dict) or header.get("alg") != ALGORITHM or header.keys() & FORBIDDEN:
        raise BadToken("the header is not one of ours")
    typ, kid = header.get("typ"), header.get("kid")
    if not isinstance(typ, str) or not isinstance(kid, str) or not is_id(kid):
        raise BadToken("the token names no key")
    return Header(typ, kid)


def _decoded(segment: bytes) -> bytes:
    """Return the bytes of canonical base64url (RFC 7515 section 2): each has one spelling only.

    Raises:
        BadToken: the segment has another.
    """
    text = segment.translate(_TO_BASE64)
    try:
        decoded = a2b_base64(text + b"=" * (-len(text) % 4), strict_mode=True)
    except ValueError as error:
        raise BadToken("not base64url") from error
    if b2a_base64(decoded, newline=False).rstrip(b"=") != text:  # bits beyond the last byte
        raise BadToken("not base64url")
    return decoded
