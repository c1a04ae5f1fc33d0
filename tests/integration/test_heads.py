"""A head means the same by each way to the app: to the gate, to uvicorn behind it, and to uvicorn alone.

Where two readers of one connection understand a head differently, requests are smuggled (RFC 9112 section 11.2).
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from shared.runtime.lifecycle import Lifecycle
from shared.runtime.settings import ServiceSettings
from tests.support.edges import serving
from tests.support.raw import KEY

DEADLINE_S = 10
TOLD = ("type", "method", "http_version", "path", "raw_path", "query_string", "headers", "subprotocols")


class Mirror:
    """Answers each request with what it was told of it, and keeps no connection."""

    def __init__(self, *staying: str) -> None:
        self.staying = frozenset(staying)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        kind = "websocket.http.response" if scope["type"] == "websocket" else "http.response"
        body = json.dumps({name: repr(scope.get(name)) for name in TOLD}).encode()
        head = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        await send({"type": f"{kind}.start", "status": 418, "headers": head})
        await send({"type": f"{kind}.body", "body": body})


class Doors:
    """The same app behind a gate, and behind uvicorn with each of our protocols."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self._runner = runner
        self._ports: dict[str, int] = {}

    async def open(self, stack: AsyncExitStack) -> None:
        for name, engine, staying in (("gate", "epoll", ["/at"]), ("behind", "epoll", []), ("alone", "asgi", [])):
            given: dict[str, Any] = {"port": 0, "edge_engine": engine, "header_timeout_s": 0.1}
            server = await stack.enter_async_context(serving(Mirror(*staying), ServiceSettings(**given), Lifecycle()))
            self._ports[name] = server.port

    def ask(self, head: bytes, *doors: str) -> list[tuple[list[bytes], dict[str, str]]]:
        """Return, for each door, the statuses that a client sees who sends this, and what the app was told."""
        return self._runner.run(self._ask(head, doors))

    async def _ask(self, head: bytes, doors: tuple[str, ...]) -> list[tuple[list[bytes], dict[str, str]]]:
        answers = await asyncio.gather(*(_answer(self._ports[door], head) for door in doors))
        return [(re.findall(rb"^HTTP/1.1 (\d+)", answer, re.MULTILINE), _told(answer)) for answer in answers]


async def _answer(port: int, head: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    async with asyncio.timeout(DEADLINE_S):
        answer = await reader.read()
    writer.close()
    return answer


def _told(answer: bytes) -> dict[str, str]:
    body = answer.rpartition(b"\r\n\r\n")[2]
    told: dict[str, str] = json.loads(body) if body.startswith(b"{") else {}
    return told


@pytest.fixture(scope="module")
def doors() -> Iterator[Doors]:
    with asyncio.Runner() as runner:
        opened, stack = Doors(runner), AsyncExitStack()
        runner.run(opened.open(stack))
        yield opened
        runner.run(stack.aclose())


UPGRADE = [
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY.encode(),
]


def head(*lines: bytes, first: bytes = b"GET /at HTTP/1.1", host: bytes | None = b"Host: x") -> bytes:
    return b"\r\n".join([first, *([host] if host is not None else []), *lines, b"", b""])


def upgrade(*lines: bytes, without: bytes = b"-", **kwargs: Any) -> bytes:
    return head(*(line for line in UPGRADE if not line.startswith(without)), *lines, **kwargs)


KNOWN = {
    # RFC 9112 section 3.2: one Host, and only one
    "no host": (400, head(host=None)),
    "no host for a socket": (400, upgrade(host=None)),
    "two hosts": (400, head(b"Host: y")),
    "two hosts for a socket": (400, upgrade(b"host: x")),
    "a host with a space": (400, head(host=b"Host: a b")),
    "a host with a path": (400, upgrade(host=b"Host: a/b")),
    "an empty host": (418, head(host=b"Host:")),
    "a host of IPv6": (418, head(host=b"Host: [::1]:80")),
    "HTTP/1.0 without a host": (418, head(first=b"GET /at HTTP/1.0", host=None)),
    # sections 2.3 and 2.5: versions
    "HTTP/2.0 in words": (400, head(first=b"GET /at HTTP/2.0")),
    "HTTP/0.9 in words": (400, head(first=b"GET /at HTTP/0.9")),
    "a socket by HTTP/1.0": (505, upgrade(first=b"GET /at HTTP/1.0")),
    # sections 5 and 6: what smuggles
    "a folded line": (400, head(b"X-A: b", b" Content-Length: 5")),
    "a bare LF": (400, head(b"X-A: b\nX-B: c")),
    "a bare CR": (400, head(b"X-A: b\rX-B: c")),
    "a NUL": (400, head(b"X-A: \0")),
    "a space before the colon": (400, head(b"Content-Length : 5")),
    "a length and chunks": (400, head(b"Content-Length: 5", b"Transfer-Encoding: chunked")),
    "two lengths": (400, head(b"Content-Length: 5", b"Content-Length: 6")),
    "a length with a sign": (400, head(b"Content-Length: +5")),
    "chunks that are not the last": (400, head(b"Transfer-Encoding: chunked, identity")),
    "a length without a body": (418, head(b"Content-Length: 5")),
    "a socket with a body": (400, upgrade(b"Content-Length: 5") + b"hello"),
    "a socket whose body does not come": (400, upgrade(b"Content-Length: 5")),
    "a socket with chunks": (400, upgrade(b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    "a socket with a body of nothing": (418, upgrade(b"Content-Length: 0")),
    # RFC 9110 sections 5.3, 5.5 and 7.8: lists, and spaces around values
    "Connection twice": (418, upgrade(b"Connection: keep-alive")),
    "Connection: close behind": (418, upgrade(b"Connection: close")),
    "two upgrades": (418, upgrade(b"Upgrade: h2c")),
    "one upgrade, twice": (418, upgrade(b"Upgrade: websocket")),
    "spaces around the version": (418, upgrade(b"Sec-WebSocket-Version: \t13 \t", without=b"Sec-WebSocket-Version")),
    "spaces around the upgrade": (418, upgrade(b"Upgrade:  websocket ", without=b"Upgrade")),
    # RFC 6455 section 4.2.1
    "no version": (426, upgrade(without=b"Sec-WebSocket-Version")),
    "no key": (400, upgrade(without=b"Sec-WebSocket-Key")),
    "two keys": (400, upgrade(b"Sec-WebSocket-Key: " + KEY.encode())),
    "a socket by POST": (405, upgrade(first=b"POST /at HTTP/1.1")),
    # and what is no HTTP at all
    "HTTP/2": (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    "TLS": (400, bytes.fromhex("1603010200010001fc0303") + bytes(200)),
    "a proxy's line": (400, b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n" + head()),
    "half a head": (408, head()[:-2]),
}


@pytest.mark.parametrize(("status", "data"), KNOWN.values(), ids=KNOWN)
def test_each_way_answers_alike_and_tells_the_app_the_same(doors: Doors, status: int, data: bytes) -> None:
    gate, behind, alone = doors.ask(data, "gate", "behind", "alone")

    assert gate == behind
    assert gate[0] == alone[0] == [b"%d" % status]
    assert gate[1].get("type") == alone[1].get("type")


LINES = [line for data in KNOWN.values() for line in data[1].split(b"\r\n")[1:] if len(line) < 80]
FIRST = [
    b"GET /at?a HTTP/1.1",
    b"GET /at#a HTTP/1.1",
    b"GET http://h/at HTTP/1.1",
    b"GET  /at HTTP/1.1",
    b"get /at HTTP/1.1",
]


def spoil(data: bytes, at: int, byte: int | None) -> bytes:
    """Return the head with a byte more, or with one less."""
    at %= len(data)
    return data[:at] + data[at + 1 :] if byte is None else data[:at] + bytes([byte]) + data[at:]


made = st.builds(
    lambda make, lines, first: make(*lines, first=first),
    st.sampled_from([head, upgrade]),
    st.lists(st.sampled_from(LINES), max_size=4),
    st.just(b"GET /at HTTP/1.1") | st.sampled_from(FIRST),
)
spoilt = st.builds(spoil, made, st.integers(0, 400), st.none() | st.integers(0, 255))


@settings(max_examples=200)
@given(data=made | spoilt)
@example(data=head() + head())
@example(data=b"\r\n" + upgrade())
def test_no_head_means_one_thing_to_the_gate_and_another_behind_it(doors: Doors, data: bytes) -> None:
    gate, behind = doors.ask(data, "gate", "behind")

    assert gate == behind
