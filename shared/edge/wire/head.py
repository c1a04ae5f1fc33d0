"""The head of a request that begins a connection which stays: bytes in, what ASGI has of them out.

Pure, and no general parser: it reads what clients of such connections send, whole and at once. Whatever is different in
any way is None, and somebody with more patience looks at it (`gate.py`).
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

OWS = b" \t"
END = b"\r\n\r\n"
_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_HOST = re.compile(rb"[\w.~!$&'()*+,;=:%\[\]-]*", re.ASCII)  # RFC 3986 section 3.2, without user information


class Head(NamedTuple):
    """A GET request of HTTP/1.1 without a body, and without a header that is given twice.

    Attributes:
        headers: names in lower case and values, as ASGI has them.
        upgrades: it asks for a WebSocket.
        rest: what came behind it: the first frames of a WebSocket.
    """

    path: bytes
    query: bytes
    headers: list[tuple[bytes, bytes]]
    upgrades: bool
    rest: bytes


def path_of(data: bytes) -> bytes:
    """Return the path that a GET request begins with; empty if it is none. Little work: most are not for us."""
    if not data.startswith(b"GET "):
        return b""
    target, space, _ = data[4:].partition(b" ")
    return target.partition(b"?")[0] if space else b""


def read_head(data: bytes, max_bytes: int) -> Head | None:
    """Return the head that `data` begins with; None if it is not whole, not plain, or over `max_bytes`."""
    end = data.find(END) + len(END)
    if end < len(END) or end > max_bytes:
        return None
    found = _Found()
    parser = httptools.HttpRequestParser(found)
    try:
        parser.feed_data(data[:end])
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError:
        return None
    headers = {name.lower(): value.strip(OWS) for name, value in found.given.items()}
    in_lines = data.count(b"\r\n", 0, end) - len(("the request line", "the empty line"))
    if not found.complete or parser.get_http_version() != "1.1" or len(headers) != in_lines:
        return None
    upgrades = parser.should_upgrade()
    if (upgrades and headers.get(b"upgrade", b"").lower() != b"websocket") or not _BODY.isdisjoint(headers):
        return None
    if b"#" in found.target or not is_host(headers.get(b"host")):
        return None
    path, _, query = found.target.partition(b"?")
    return Head(path, query, list(headers.items()), upgrades, data[end:])


def is_host(text: bytes | None) -> bool:
    """Whether this is what a Host header says, which a request has once (RFC 9112 section 3.2)."""
    return text is not None and _HOST.fullmatch(text) is not None


class _Found:
    """What the parser has found; its methods are the parser's names.

    Attributes:
        given: headers by name; of one that is given twice only the last, which the number of lines shows.
        on_header: takes a header without a call into Python, which for six was a third of reading a head.
    """

    __slots__ = ("complete", "given", "on_header", "target")

    def __init__(self) -> None:
        self.target = b""
        self.given: dict[bytes, bytes] = {}
        self.on_header = self.given.__setitem__
        self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_message_complete(self) -> None:
        self.complete = True
