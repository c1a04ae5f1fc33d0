"""Credentials and origins as they stand in an ASGI scope, whatever the framework above."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

from shared.contracts.claims import COOKIE
from shared.errors import BadInput, OriginRefused

Scope = Mapping[str, Any]
"""An ASGI connection scope of type `http` or `websocket`."""

MAX_QUERY_FIELDS = 100
_DEFAULT_PORT = {"http": 80, "https": 443}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class CredentialKind(StrEnum):
    """Where a credential was found."""

    BEARER = "bearer"
    COOKIE = "cookie"
    TICKET = "ticket"
    QUERY = "query"


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential that nobody has verified yet; its value is never shown."""

    kind: CredentialKind
    value: str

    def __repr__(self) -> str:
        return f"Credential({self.kind.value})"


def find_credential(scope: Scope) -> Credential | None:
    """Return the first of: `Authorization: Bearer`, the cookie, `?ticket=`, `?token=`; None if there is none.

    Raises:
        BadInput: the query has too many fields to look at.
    """
    if bearer := _bearer(scope):
        return Credential(CredentialKind.BEARER, bearer)
    if value := cookie(scope, COOKIE):
        return Credential(CredentialKind.COOKIE, value)
    query = {name: value for name, value in query_fields(scope["query_string"]) if value}
    if ticket := query.get("ticket"):
        return Credential(CredentialKind.TICKET, ticket)
    if token := query.get("token"):
        return Credential(CredentialKind.QUERY, token)
    return None


def query_fields(query_string: bytes) -> list[tuple[str, str]]:
    """Return the fields of a query in order, empty ones among them.

    Raises:
        BadInput: there are too many of them to look at.
    """
    text = query_string.decode("latin-1")
    if text.count("&") >= MAX_QUERY_FIELDS:
        raise BadInput(f"more than {MAX_QUERY_FIELDS} query fields")
    if "%" in text or "+" in text:
        return parse_qsl(text, keep_blank_values=True)
    # Nothing is escaped, as in nearly all: the same in a quarter of the time.
    return [(name, value) for name, _, value in [field.partition("=") for field in text.split("&") if field]]


def check_origin(scope: Scope, allowed: Collection[str], *, cookie_used: bool) -> None:
    """Refuse a page of another origin: what keeps a foreign page from acting with this browser's cookie.

    An Origin header must name this very host (whatever proxy stands before it keeps `Host`) or one of `allowed`,
    and then exactly: scheme, host, port. Clients that are no browsers send none; that is fine, unless a cookie is the
    credential and Sec-Fetch-Site says that a page of another site made the request (`none`: a person did).

    Raises:
        OriginRefused: the page may not.

    Source: OWASP WebSocket Security and CSRF Prevention Cheat Sheets; W3C Fetch Metadata.
    """
    origins = _headers(scope, b"origin")
    if origins:
        if len(origins) > 1 or not _origin_allowed(origins[0], scope, allowed):
            raise OriginRefused
        return
    if cookie_used and _header(scope, b"sec-fetch-site") not in {"", "same-origin", "none"}:
        raise OriginRefused


def changes_state(scope: Scope) -> bool:
    """Say whether the request may change something, by its method; a WebSocket always may."""
    return scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS


def cookie(scope: Scope, name: str) -> str | None:
    """Return the value of a cookie; the first, if a browser sends several of one name (RFC 6265 section 5.4)."""
    for header in _headers(scope, b"cookie"):
        for pair in header.split(";"):
            key, separator, value = pair.strip().partition("=")
            if separator and key == name:
                return value.strip('"')
    return None


def normal_origin(text: str) -> str | None:
    """Return `scheme://host:port` in its one normal form; None if the text is anything but an origin."""
    try:
        parts = urlsplit(text)
        port = parts.port or _DEFAULT_PORT.get(parts.scheme)
    except ValueError:
        return None
    if port is None or not parts.hostname or _more_than_origin(parts):
        return None
    return f"{parts.scheme}://{parts.hostname}:{port}"


# -- private ----------------------------------------------------------------------------------------------------------


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _header(scope: Scope, name: bytes) -> str:
    """Return a header's first value, empty if it has none."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value, "latin-1")
    return ""


def _bearer(scope: Scope) -> str | None:
    scheme, _, value = _header(scope, b"authorization").partition(" ")
    return value.strip() if scheme.lower() == "bearer" else None


def _origin_allowed(origin: str, scope: Scope, allowed: Collection[str]) -> bool:
    normal = normal_origin(origin)
    if normal is None:
        return False
    own = normal_origin(f"{normal.partition(':')[0]}://{_header(scope, b'host')}")
    return normal == own or any(normal == normal_origin(entry) for entry in allowed)


def _more_than_origin(parts: SplitResult) -> bool:
    return bool(parts.path or parts.query or parts.fragment or parts.username is not None or parts.password is not None)
