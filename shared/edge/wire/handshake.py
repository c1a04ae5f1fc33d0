"""The opening handshake of a WebSocket, as a server reads and answers it: headers in, bytes out (RFC 6455 section 4.2).

Pure, and of the handshake only: what frames say is `frames.py`, who may connect is the endpoint's to decide.
"""

from __future__ import annotations

import hashlib
from base64 import b64decode, b64encode
from collections.abc import Sequence
from http import HTTPStatus
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case and values, as ASGI has them."""

VERSION = b"13"
KEY_BYTES = 16
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # section 1.3
_TOKEN_CHARS = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")


class Handshake(NamedTuple):
    """A client's half that can be accepted.

    Attributes:
        accept: what proves to the client that its key was read.
        subprotocols: what the client offers, most wanted first.
    """

    accept: bytes
    subprotocols: Sequence[str]


class BadHandshake(Exception):
    """The request cannot open a WebSocket: answer with `status` and `headers`."""

    def __init__(self, status: HTTPStatus, reason: str, headers: Headers = ()) -> None:
        super().__init__(reason)
        self.status, self.headers = status, headers


def read_handshake(method: bytes, http_version: str, headers: Headers) -> Handshake:
    """Return the handshake in a request that asks for an upgrade to `websocket`.

    Raises:
        BadHandshake: it is not one of RFC 6455 (section 4.2.1).
    """
    given: dict[bytes, list[bytes]] = {
        b"sec-websocket-version": [],
        b"sec-websocket-key": [],
        b"sec-websocket-protocol": [],
    }
    for name, value in headers:
        if name in given:
            given[name].append(value)
    version, key, subprotocols = given.values()
    if method != b"GET":
        raise BadHandshake(HTTPStatus.METHOD_NOT_ALLOWED, "a WebSocket begins with GET", [(b"allow", b"GET")])
    if http_version != "1.1":
        raise BadHandshake(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "a WebSocket begins with HTTP/1.1")
    if any(name == b"transfer-encoding" or (name == b"content-length" and value != b"0") for name, value in headers):
        raise BadHandshake(HTTPStatus.BAD_REQUEST, "a WebSocket begins without a body")
    if version != [VERSION]:
        raise BadHandshake(HTTPStatus.UPGRADE_REQUIRED, "version 13 is spoken", [(b"sec-websocket-version", VERSION)])
    if len(key) != 1 or not _is_key(key[0]):
        raise BadHandshake(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Key is not 16 bytes in base64")
    return Handshake(accept_of(key[0]), _tokens(subprotocols) if subprotocols else ())


def accept_of(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept for a client's key (section 4.2.2, step 5.4)."""
    return b64encode(hashlib.sha1(key + _GUID, usedforsecurity=False).digest())


def switching(handshake: Handshake, subprotocol: str | None = None, headers: Headers = ()) -> bytes:
    """Return the head that accepts, with further headers of the server's.

    Raises:
        ValueError: the client did not offer the subprotocol, or a header would break the head.
    """
    if subprotocol is not None:
        if subprotocol not in handshake.subprotocols:
            raise ValueError(f"the client did not offer the subprotocol {subprotocol!r}")
        headers = [(b"sec-websocket-protocol", subprotocol.encode()), *headers]
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
        b"sec-websocket-accept: %b\r\n%b\r\n" % (handshake.accept, _lines(headers))
    )


def streaming(headers: Headers) -> bytes:
    """Return the head of a response without an end, in chunks (RFC 9112 section 7.1).

    Raises:
        ValueError: a header would break the head.
    """
    return b"HTTP/1.1 200 OK\r\n%btransfer-encoding: chunked\r\n\r\n" % _lines(headers)


def refusal(status: int, headers: Headers = (), body: bytes = b"") -> bytes:
    """Return a whole response that refuses, after which the connection is to be closed.

    Raises:
        ValueError: a header would break the head.
    """
    own = (b"content-length", b"connection")
    given = [(name, value) for name, value in headers if name.lower() not in own]
    head = _lines([*given, (b"content-length", b"%d" % len(body)), (b"connection", b"close")])
    return b"HTTP/1.1 %d %b\r\n%b\r\n%b" % (status, _phrase(status), head, body)


# -- private ----------------------------------------------------------------------------------------------------------


def _is_key(key: bytes) -> bool:
    try:
        return len(b64decode(key, validate=True)) == KEY_BYTES
    except ValueError:
        return False


def _tokens(values: list[bytes]) -> tuple[str, ...]:
    """Return the elements of a list in several headers, empty ones passed over (RFC 9110 section 5.6.1).

    Raises:
        BadHandshake: one of them is no token, or there is none.
    """
    elements = [element.strip(b" \t") for element in b",".join(values).split(b",")]
    if not any(elements) or not _TOKEN_CHARS.issuperset(b"".join(elements)):
        raise BadHandshake(HTTPStatus.BAD_REQUEST, "Sec-WebSocket-Protocol is not a list of tokens")
    return tuple(element.decode() for element in elements if element)


def _lines(headers: Headers) -> bytes:
    lines = b"".join([b"%b: %b\r\n" % header for header in headers])
    if lines.count(b"\r") + lines.count(b"\n") != 2 * len(headers):
        raise ValueError("a header has a line break in it")
    return lines


def _phrase(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
