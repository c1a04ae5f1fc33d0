"""The head of a request that begins a connection which stays: bytes in, what ASGI has of them out.

Pure, and no general parser: it reads what clients of such connections send, whole and at once. Whatever is different in
any way is None, and somebody with more patience looks at it (`gate.py`).
"""

from __future__ import annotations

from typing import NamedTuple

import httptools

END = b"\r\n\r\n"
_BODY = frozenset({b"content-length", b"transfer-encoding", b"expect"})


class Head(NamedTuple):
    """A GET request of HTTP/1.1 without a body.

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
    if not found.complete or parser.get_http_version() != "1.1" or not _BODY.isdisjoint(found.names):
        return None
    upgrades = parser.should_upgrade()
    if (upgrades and not found.to_websocket) or b"#" in found.target:
        return None
    path, _, query = found.target.partition(b"?")
    return Head(path, query, found.headers, upgrades, data[end:])


class _Found:
    """What the parser has found; its methods are the parser's names."""

    __slots__ = ("complete", "headers", "names", "target", "to_websocket")

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.names: set[bytes] = set()
        self.complete = self.to_websocket = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        self.headers.append((name, value))
        self.names.add(name)
        if name == b"upgrade":
            self.to_websocket = value.lower() == b"websocket"

    def on_message_complete(self) -> None:
        self.complete = True
