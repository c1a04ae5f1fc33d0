"""Which requests open a WebSocket, and the bytes that answer them (RFC 6455 section 4)."""

from __future__ import annotations

import base64
from http.client import HTTPResponse
from io import BytesIO
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.exceptions import InvalidHandshake
from websockets.http11 import Request
from websockets.server import ServerProtocol

from shared.edge.wire.handshake import BadHandshake, Handshake, accept_of, read_handshake, refusal, switching

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="  # both from RFC 6455 section 1.3
GOOD = [
    (b"host", b"server.example.com"),
    (b"upgrade", b"websocket"),
    (b"connection", b"Upgrade"),
    (b"sec-websocket-key", KEY),
    (b"sec-websocket-version", b"13"),
]


def replaced(name: bytes, *values: bytes) -> list[tuple[bytes, bytes]]:
    return [header for header in GOOD if header[0] != name] + [(name, value) for value in values]


def test_the_key_of_the_rfc_has_the_answer_of_the_rfc() -> None:
    assert read_handshake(b"GET", "1.1", GOOD) == Handshake(ACCEPT, ())
    assert accept_of(KEY) == ACCEPT


REFUSED = {
    "no key": (400, b"GET", "1.1", replaced(b"sec-websocket-key")),
    "an empty key": (400, b"GET", "1.1", replaced(b"sec-websocket-key", b"")),
    "two keys": (400, b"GET", "1.1", replaced(b"sec-websocket-key", KEY, KEY)),
    "a key of 15 bytes": (400, b"GET", "1.1", replaced(b"sec-websocket-key", base64.b64encode(b"x" * 15))),
    "a key of 17 bytes": (400, b"GET", "1.1", replaced(b"sec-websocket-key", base64.b64encode(b"x" * 17))),
    "a key in base64url": (400, b"GET", "1.1", replaced(b"sec-websocket-key", b"____________________fw==")),
    "a key with a space in it": (400, b"GET", "1.1", replaced(b"sec-websocket-key", KEY[:8] + b" " + KEY[8:])),
    "no version": (426, b"GET", "1.1", replaced(b"sec-websocket-version")),
    "version 8": (426, b"GET", "1.1", replaced(b"sec-websocket-version", b"8")),
    "two versions": (426, b"GET", "1.1", replaced(b"sec-websocket-version", b"13", b"13")),
    "a list of versions": (426, b"GET", "1.1", replaced(b"sec-websocket-version", b"13, 8")),
    "POST": (405, b"POST", "1.1", GOOD),
    "HTTP/1.0": (505, b"GET", "1.0", GOOD),
    "no subprotocol in the list": (400, b"GET", "1.1", replaced(b"sec-websocket-protocol", b"", b" ,")),
    "a subprotocol that is no token": (400, b"GET", "1.1", replaced(b"sec-websocket-protocol", b"a b")),
    "a subprotocol of other bytes": (400, b"GET", "1.1", replaced(b"sec-websocket-protocol", b"\xff")),
    "a subprotocol with a line break": (400, b"GET", "1.1", replaced(b"sec-websocket-protocol", b"a\r\nx: y")),
}


@pytest.mark.parametrize(("status", "method", "version", "headers"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_handshake_is_refused_with_a_status_that_says_why(
    status: int, method: bytes, version: str, headers: list[tuple[bytes, bytes]]
) -> None:
    with pytest.raises(BadHandshake) as refused:
        read_handshake(method, version, headers)

    assert refused.value.status == status


def test_a_client_of_another_version_is_told_which_is_spoken() -> None:
    with pytest.raises(BadHandshake) as refused:
        read_handshake(b"GET", "1.1", replaced(b"sec-websocket-version", b"8"))

    assert list(refused.value.headers) == [(b"sec-websocket-version", b"13")]


def test_subprotocols_of_several_headers_are_one_list() -> None:
    headers = replaced(b"sec-websocket-protocol", b"chat.v2 ,\tchat", b"", b",superchat")

    assert read_handshake(b"GET", "1.1", headers).subprotocols == ("chat.v2", "chat", "superchat")


@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol"]),
            st.sampled_from([KEY, b"13", b"8", b"a, b", b"", b"a b", b"=", base64.b64encode(b"x" * 17), b"\x80"]),
        ).filter(lambda field: field != (b"sec-websocket-protocol", b"")),  # they refuse it, which RFC 9110 does not
        max_size=4,
    )
)
def test_what_opens_here_opens_a_server_of_the_websockets_library(changes: list[tuple[bytes, bytes]]) -> None:
    changed = {name for name, _ in changes}
    headers = [header for header in GOOD if header[0] not in changed] + changes
    theirs = Headers([(name.decode(), value.decode("latin-1")) for name, value in headers])
    server = ServerProtocol(subprotocols=None)
    try:
        expected = server.process_request(Request("/", theirs))[0]
    except InvalidHandshake:
        expected = None
    try:
        accept = read_handshake(b"GET", "1.1", headers).accept.decode()
    except BadHandshake:
        accept = None

    assert accept == expected


def test_the_head_that_accepts_says_so_and_what_else_the_server_says() -> None:
    head = switching(Handshake(ACCEPT, ("chat", "other")), "other", [(b"x-edge", b"e1")])
    response = parsed(head)

    assert response.status == 101
    assert response.headers["Sec-WebSocket-Accept"] == ACCEPT.decode()
    assert response.headers["Sec-WebSocket-Protocol"] == "other"
    assert response.headers["X-Edge"] == "e1"


def test_a_refusal_has_its_length_and_closes_whatever_the_app_said() -> None:
    response = parsed(refusal(503, [(b"Content-Length", b"999"), (b"retry-after", b"5")], b"full"))

    assert (response.status, response.reason, response.read()) == (503, "Service Unavailable", b"full")
    assert response.headers["Content-Length"] == "4"
    assert response.headers["Connection"] == "close"
    assert response.headers["Retry-After"] == "5"


def test_a_subprotocol_that_was_not_offered_cannot_be_chosen() -> None:
    with pytest.raises(ValueError, match="did not offer"):
        switching(Handshake(ACCEPT, ("chat",)), "other")


@pytest.mark.parametrize("header", [(b"x", b"a\r\nset-cookie: b"), (b"x\r\ny", b"a"), (b"x", b"a\n"), (b"x", b"\r")])
def test_a_header_cannot_break_the_head(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="line break"):
        switching(Handshake(ACCEPT, ()), None, [header])
    with pytest.raises(ValueError, match="line break"):
        refusal(403, [header])


def parsed(head: bytes) -> HTTPResponse:
    """Return a response as Python's own client reads it."""
    response = HTTPResponse(SimpleNamespace(makefile=lambda *_: BytesIO(head)))  # type: ignore[arg-type]
    response.begin()
    return response
