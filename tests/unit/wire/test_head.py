"""Which requests the gate can read, and what it makes of them."""

from __future__ import annotations

from contextlib import suppress

import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.edge.wire.head import path_of, read_head
from tests.support.raw import handshake

MAX = 64 * 1024
PLAIN = b"GET /api/stream?topics=a HTTP/1.1\r\nHost: x\r\n\r\n"
UPGRADE = handshake("/ws/chat?room=a", {"Authorization": "Bearer t"})

names = st.text("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-", min_size=1, max_size=20).map(
    lambda n: f"X-{n}"
)
values = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=40)


def test_a_handshake_is_read_with_the_frames_behind_it():
    head = read_head(UPGRADE + b"\x81\x80rest", MAX)

    assert head is not None
    assert (head.path, head.query, head.upgrades, head.rest) == (b"/ws/chat", b"room=a", True, b"\x81\x80rest")
    assert (b"authorization", b"Bearer t") in head.headers


def test_a_plain_request_upgrades_nothing():
    head = read_head(PLAIN, MAX)

    assert head is not None
    assert (head.path, head.query, head.upgrades, head.rest) == (b"/api/stream", b"topics=a", False, b"")


@pytest.mark.parametrize(
    "data",
    [
        PLAIN[:-1],
        PLAIN.replace(b"1.1", b"1.0"),
        PLAIN.replace(b"GET", b"POST"),
        PLAIN.replace(b"Host: x", b"Content-Length: 3"),
        PLAIN.replace(b"Host: x", b"Transfer-Encoding: chunked"),
        PLAIN.replace(b"Host: x", b"Expect: 100-continue"),
        PLAIN.replace(b"Host: x", b"Host x"),
        PLAIN.replace(b"Host: x", b"Host: x\r\nHost: y"),
        PLAIN.replace(b"Host: x", b"Host: x\r\nhost: y"),
        PLAIN.replace(b"Host: x", b"Host: x\r\n  folded"),
        PLAIN.replace(b"Host: x", b"Host: x\nAccept: y"),
        PLAIN.replace(b"Host: x", b"Connection: Upgrade\r\nUpgrade: h2c"),
        PLAIN.replace(b"=a", b"=a#there"),
        b"\r\n\r\n",
        b"",
        bytes(range(256)),
    ],
)
def test_what_is_different_in_any_way_is_for_somebody_else(data: bytes):
    assert read_head(data, MAX) is None or path_of(data) == b""


def test_a_head_over_its_limit_is_for_somebody_else():
    assert read_head(PLAIN, len(PLAIN)) is not None
    assert read_head(PLAIN, len(PLAIN) - 1) is None


@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda junk: b"GET " + junk + b"\r\n\r\n"))
def test_nothing_that_comes_makes_it_fail(data: bytes):
    path_of(data)
    read_head(data, MAX)


@given(st.lists(st.tuples(names, values), max_size=10, unique_by=lambda header: header[0].lower()), st.integers(0, 60))
def test_headers_are_what_the_parser_of_the_server_finds(headers: list[tuple[str, str]], keep: int):
    data = handshake("/ws/chat?a=b", dict(headers))
    head = read_head(data, MAX)
    found = _Headers()
    with suppress(httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(found).feed_data(data)

    assert head is not None
    assert head.headers == found.headers
    assert read_head(data[: len(data) - 1 - keep], MAX) is None


class _Headers:
    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))
