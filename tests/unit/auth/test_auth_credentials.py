"""Where credentials are found, and which pages may use them."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.auth.credentials import (
    Credential,
    CredentialKind,
    changes_state,
    check_origin,
    find_credential,
    normal_origin,
    query_fields,
)
from shared.errors import BadInput, OriginRefused

ALLOWED = ["https://app.example.com"]


def scope(query: str = "", kind: str = "http", method: str = "POST", **headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": kind, "method": method, "query_string": query.encode("latin-1"), "headers": pairs}


@pytest.mark.parametrize(
    ("found", "where"),
    [
        (Credential(CredentialKind.BEARER, "a"), scope("ticket=c", authorization="Bearer a", cookie="auth_token=b")),
        (Credential(CredentialKind.BEARER, "a"), scope(authorization="bearer  a ")),
        (Credential(CredentialKind.COOKIE, "b"), scope("ticket=c", cookie="x=1; auth_token=b; y=2")),
        (Credential(CredentialKind.COOKIE, "b"), scope(cookie='auth_token="b"')),
        (Credential(CredentialKind.COOKIE, "b"), scope("token=d", authorization="Basic a", cookie="auth_token=b")),
        (Credential(CredentialKind.TICKET, "c"), scope("token=d&ticket=c")),
        (Credential(CredentialKind.QUERY, "d"), scope("room=r&token=d")),
        (None, scope("token=", authorization="Bearer ", cookie="xauth_token=b; auth_token=")),
        (None, scope()),
    ],
)
def test_the_first_credential_in_order_counts(found: Credential | None, where: dict[str, Any]) -> None:
    assert find_credential(where) == found


def test_a_credential_does_not_show_its_value() -> None:
    assert "secret" not in repr(Credential(CredentialKind.BEARER, "secret"))


def test_a_query_of_too_many_fields_is_refused() -> None:
    with pytest.raises(BadInput):
        find_credential(scope("&".join("a=1" for _ in range(101))))


@given(st.binary(max_size=40) | st.text("ab=&;%+ 26F", max_size=40).map(str.encode))
def test_a_query_is_read_as_by_the_standard_library(query: bytes) -> None:
    assert query_fields(query) == parse_qsl(query.decode("latin-1"), keep_blank_values=True)


@given(st.binary(max_size=200), st.binary(max_size=200), st.binary(max_size=200))
def test_any_bytes_are_a_credential_or_none(authorization: bytes, cookie: bytes, query: bytes) -> None:
    hostile = {
        "type": "websocket",
        "query_string": query,
        "headers": [(b"authorization", authorization), (b"cookie", cookie)],
    }
    found = find_credential(hostile)

    assert found is None or found.value


@pytest.mark.parametrize(
    "origin",
    [
        "http://edge.example.com",
        "https://edge.example.com",
        "https://edge.example.com:443",
        "https://EDGE.example.com",
        "https://app.example.com",
        "https://app.example.com:443",
    ],
)
def test_own_pages_and_listed_ones_pass(origin: str) -> None:
    check_origin(scope(host="edge.example.com", origin=origin), ALLOWED, cookie_used=True)


@pytest.mark.parametrize(
    "origin",
    [
        "null",
        "",
        "https://evil.example",
        "https://app.example.com.evil.example",
        "https://app.example.com@evil.example",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://edge.example.com:8443",
        "https://sub.app.example.com",
        "https://app.example.com/",
        "https://app.example.com?x",
        "//app.example.com",
        "file://",
        "https://[::1",
        "https://app.example.com:99999",
    ],
)
def test_every_other_page_is_refused(origin: str) -> None:
    with pytest.raises(OriginRefused):
        check_origin(scope(host="edge.example.com", origin=origin), ALLOWED, cookie_used=False)


@pytest.mark.parametrize("host", ["", "a/b?c", "x@edge.example.com", "edge.example.com/"])
def test_a_host_that_is_no_host_makes_no_page_its_own(host: str) -> None:
    with pytest.raises(OriginRefused):
        check_origin(scope(host=host, origin="https://edge.example.com"), [], cookie_used=True)


def test_two_origins_are_refused() -> None:
    twice = scope(host="edge.example.com", origin="https://edge.example.com")
    twice["headers"].append((b"origin", b"https://edge.example.com"))
    with pytest.raises(OriginRefused):
        check_origin(twice, [], cookie_used=False)


def test_without_an_origin_a_cookie_needs_the_browsers_word() -> None:
    check_origin(scope(host="h"), [], cookie_used=True)
    check_origin(scope(host="h", sec_fetch_site="same-origin"), [], cookie_used=True)
    check_origin(scope(host="h", sec_fetch_site="cross-site"), [], cookie_used=False)
    for site in ("cross-site", "same-site", "x"):
        with pytest.raises(OriginRefused):
            check_origin(scope(host="h", sec_fetch_site=site), [], cookie_used=True)


@given(st.text(max_size=50))
def test_any_text_is_an_origin_or_none(text: str) -> None:
    normal = normal_origin(text)

    assert normal is None or normal_origin(normal) == normal


def test_safe_methods_change_nothing_and_a_websocket_may() -> None:
    assert [changes_state(scope(method=method)) for method in ("GET", "HEAD", "POST", "DELETE")] == [
        False,
        False,
        True,
        True,
    ]
    assert changes_state({"type": "websocket", "headers": []})
