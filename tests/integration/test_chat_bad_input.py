"""Whatever a client sends: a clear refusal, no 5xx, nothing broken or secret in the log, and its neighbours chat on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from websockets.exceptions import ConnectionClosed

from shared.contracts.frames import MAX_FRAME_BYTES
from shared.contracts.ids import new_id
from tests.support.clients import ChatClient, chat_client
from tests.support.edges import EdgeProcess, open_edges
from tests.support.hostile import BAD_IDS
from tests.support.logs import assert_clean
from tests.support.raw import CONTINUATION, PING, TEXT, RawSocket, declared, frame, handshake
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = "0.5"
MAX_GROWTH_BYTES = 32 << 20


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["epoll", "asgi"])
async def edge(
    request: pytest.FixtureRequest, nats_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[EdgeProcess]:
    """An edge in a process of its own, whose log and memory can be looked at when all is over."""
    async with open_edges(nats_url, tmp_path_factory.mktemp("bad-input")) as edges:
        process = await edges.process(
            "chat",
            EDGE_ENGINE=request.param,
            HEADER_TIMEOUT_S=DEADLINE_S,
            BODY_TIMEOUT_S=DEADLINE_S,
            BACKLOG_BYTES=str(64 * 1024),
            FANFARE_LIMITS="off",
        )
        yield process
        assert process.process.returncode is None
        assert_clean(process.log)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def neighbours(edge: EdgeProcess) -> AsyncIterator[tuple[ChatClient, ChatClient]]:
    """Two others on the same edge."""
    room = new_id("room-")
    async with (
        chat_client(edge, new_id("user-"), rooms=[room]) as one,
        chat_client(edge, new_id("user-"), rooms=[room]) as two,
    ):
        yield one, two


@pytest_asyncio.fixture(loop_scope="module", autouse=True)
async def neighbours_chat_on(neighbours: tuple[ChatClient, ChatClient]) -> AsyncIterator[None]:
    """They notice nothing of what a test does."""
    yield
    one, two = neighbours
    text = new_id()
    await one.say(text)
    await two.hears(text)


@pytest_asyncio.fixture(loop_scope="module")
async def client(edge: EdgeProcess) -> AsyncIterator[ChatClient]:
    async with chat_client(edge, new_id("user-"), rooms=[new_id("room-")]) as client:
        yield client


def memory_bytes(edge: EdgeProcess) -> int:
    """Return the resident memory of an edge's process."""
    pages = int(Path(f"/proc/{edge.process.pid}/statm").read_text().split()[1])
    return pages * 4096


async def sessions(edge: EdgeProcess) -> int:
    """Return how many clients an edge says that it has."""
    text = (await edge.http.get("/metrics")).text
    values = [line.split()[-1] for line in text.splitlines() if line.startswith("fanfare_sessions{")]
    return int(float(values[0])) if values else 0


# -- frames that are wrong: an error each, and the connection stays ---------------------------------------------------

MALFORMED: list[str | bytes] = [
    "",
    "nonsense",
    "null",
    "[]",
    "1",
    "{}",
    '{"type":null}',
    '{"type":"no such type"}',
    '{"type":"__class__"}',
    '{"type":"send_message"',
    '{"type":"send_message"}',
    '{"type":"send_message","data":null}',
    '{"type":"send_message","data":{"content":NaN}}',
    '{"type":"send_message","data":{"content":1e400}}',
    '{"type":"send_message","data":{"content":"\\ud800"}}',
    '{"type":"send_message","data":{"content":""}}',
    '{"type":"send_message","data":{"content":" \\u202e \\n"}}',
    '{"type":"send_message","data":{"content":"' + "x" * 4_097 + '"}}',
    '{"type":"typing_status","data":{"isTyping":"perhaps"}}',
    '{"type":"join","data":{"room":"r","cursor":"nonsense"}}',
    '{"type":"join","data":{"room":"r","cursor":"' + "x" * 65 + '"}}',
    '{"type":"ping","x":' + "9" * 30_000 + "e}",
    "[" * 60_000,
    '{"a":' * 10_000,
    b"\xff\xfe\xfd",
    b"\x00",
]


@pytest.mark.parametrize("number", range(len(MALFORMED)))
async def test_a_malformed_frame_gets_an_error_and_the_connection_stays(client: ChatClient, number: int) -> None:
    await client.socket.send(MALFORMED[number])
    error = (await client.inbox.next("error"))["data"]
    await client.say("and on it goes")

    assert error["code"] == "bad_input"
    assert error["retryable"] is False
    assert len(error["message"]) < 300


@pytest.mark.parametrize("type_", ["send_message", "typing_status", "join", "leave"])
async def test_an_id_that_is_none_gets_an_error_and_the_connection_stays(client: ChatClient, type_: str) -> None:
    for number, bad in enumerate(BAD_IDS):
        await client.send(type_, {"room": bad, "content": "hi", "isTyping": True}, id=str(number))
        frame = await client.inbox.next("error")

        assert (frame["id"], frame["data"]["code"]) == (str(number), "bad_id")
    await client.say("and on it goes")


# -- frames that are too large or no frames: the connection is closed -------------------------------------------------


@pytest.mark.parametrize("size", [MAX_FRAME_BYTES + 1, 100_000, 300_000, 2_000_000])
@pytest.mark.parametrize("kind", ["text", "binary"])
async def test_a_frame_over_64_kib_is_refused_and_closes_with_4013(client: ChatClient, size: int, kind: str) -> None:
    payload = "[" * size
    with suppress(ConnectionClosed):
        await client.socket.send(payload if kind == "text" else payload.encode())
    code = await client.closed()
    errors = [frame["data"]["code"] for frame in client.inbox.of_type("error")]

    assert (code, errors) == (4013, ["too_large"]) or (size > 256 * 1024 and code in {1006, 1009})


BROKEN_FRAMES: dict[str, tuple[bytes, set[int | None]]] = {
    "unmasked": (frame(TEXT, b"{}", masked=False), {1002}),
    "a reserved opcode": (frame(0x3), {1002}),
    "a reserved control opcode": (frame(0xB), {1002}),
    "a reserved bit": (frame(TEXT, b"{}", rsv=4), {1002}),
    "a control frame in fragments": (frame(PING, fin=False), {1002}),
    "a control frame of 126 bytes": (frame(PING, b"x" * 126), {1002}),
    "a continuation of nothing": (frame(CONTINUATION, b"x"), {1002}),
    "a message inside another": (frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), {1002}),
    "a length of 2 to the 63": (bytes([0x82]) + declared(1 << 63) + b"mask", {1002, 1009, 4013}),
    "a length of a terabyte": (bytes([0x82]) + declared(1 << 40) + b"mask", {1009, 4013}),
    "text that is not UTF-8": (frame(TEXT, b"\xc3\x28"), {1007}),
    "text that ends inside a character": (frame(TEXT, b"\xf0\x9f\x92"), {1007}),
    "text that is not UTF-8 over fragments": (frame(TEXT, b"\xc3", fin=False) + frame(CONTINUATION, b"\x28"), {1007}),
    "a close of one byte": (frame(0x8, b"\x03"), {1002}),
    "a close with a code that nobody may send": (frame(0x8, (1005).to_bytes(2, "big")), {1002}),
    "a close with a reason that is not UTF-8": (frame(0x8, (1000).to_bytes(2, "big") + b"\xff"), {1007}),
    "noise": (bytes(range(1, 255)) * 20, {1002, 1007, 1009, 4013}),
}


@pytest.mark.parametrize("kind", BROKEN_FRAMES)
async def test_what_breaks_the_protocol_closes_that_connection(edge: EdgeProcess, kind: str) -> None:
    data, codes = BROKEN_FRAMES[kind]
    raw = await RawSocket.upgraded(edge, headers=edge.headers(new_id("user-")))
    await raw.until(b'"connected"')
    await raw.until(b"}}")
    await raw.send(data)
    code = await raw.close_code()
    raw.close()

    assert code in codes


async def test_clients_that_crash_during_the_handshake_leave_nothing_behind(edge: EdgeProcess) -> None:
    before, user = await sessions(edge), new_id("user-")
    rooms = [new_id("room-") for _ in range(20)]  # a fresh room each: entering it takes a while
    for room in rooms:
        raw = await RawSocket.connect(edge)
        await raw.send(handshake(f"/ws/chat?room={room}", edge.headers(user)))
        await raw.until(b"\r\n")
        raw.abort()

    async def nobody_is_left() -> bool:
        answers = [
            await edge.http.get(f"/api/chat/rooms/{room}/presence", headers=edge.headers(user)) for room in rooms
        ]
        return await sessions(edge) == before and all(answer.json()["online"] == [] for answer in answers)

    await eventually(nobody_is_left)
    async with chat_client(edge, user, rooms=rooms[:1]) as client:
        (connected,) = client.inbox.of_type("connected")
        assert connected["data"]["rooms"][0]["members"] == [user]


# -- handshakes -------------------------------------------------------------------------------------------------------

HANDSHAKES: dict[str, dict[str, str]] = {
    "no key": {"Sec-WebSocket-Key": ""},
    "a short key": {"Sec-WebSocket-Key": "abc"},
    "an old version": {"Sec-WebSocket-Version": "8"},
    "no version": {"Sec-WebSocket-Version": ""},
    "a subprotocol of other bytes": {"Sec-WebSocket-Protocol": "".join(map(chr, range(0x80, 0x100)))},
    "very many subprotocols": {"Sec-WebSocket-Protocol": ",".join(f"p{number}" for number in range(5_000))},
    "an extension that is nonsense": {"Sec-WebSocket-Extensions": "permessage-deflate; \x80=;;"},
    "a bearer of other bytes": {"Authorization": "Bearer \xff\xfe"},
    "a cookie of other bytes": {"Cookie": "auth_token=\xff; \xfe"},
    "an origin of other bytes": {"Origin": "https://\xff"},
    "an origin with brackets": {"Origin": "http://[::1"},
    "a port that is none": {"Origin": "http://a:b"},
    "a host that is none": {"Host": "a/b?c", "Origin": "http://a/b?c"},
    "a trace that is none": {"traceparent": "\xff-zz"},
}


@pytest.mark.parametrize("kind", HANDSHAKES)
async def test_a_strange_handshake_is_refused_or_harmless(edge: EdgeProcess, kind: str) -> None:
    raw = await RawSocket.connect(edge)
    await raw.send(handshake("/ws/chat", HANDSHAKES[kind]))
    status = int((await raw.until(b"\r\n")).split()[1])
    raw.close()

    assert status == 101 or 400 <= status < 500


@pytest.mark.parametrize("query", ["a=1&" * 200, "token=" + "x" * 5_000, "ticket=%00", "room=%ff", "cursor=%", "&&&=&"])
async def test_a_strange_query_is_refused_in_a_frame(edge: EdgeProcess, query: str) -> None:
    raw = await RawSocket.upgraded(edge, f"/ws/chat?{query}", {"Authorization": "Bearer nonsense"})
    code = await raw.close_code()
    raw.close()

    assert code in {4003, 4008}


async def test_another_path_is_no_websocket(edge: EdgeProcess) -> None:
    for path in ("/ws", "/ws/chat/", "//ws/chat", "/ws/chat/..", "/ws/%00"):
        raw = await RawSocket.connect(edge)
        await raw.send(handshake(path, {}))
        status = int((await raw.until(b"\r\n")).split()[1])
        raw.close()

        assert 400 <= status < 500


# -- HTTP -------------------------------------------------------------------------------------------------------------


async def test_a_body_over_64_kib_is_refused_with_413_whether_or_not_it_says_its_length(edge: EdgeProcess) -> None:
    headers = edge.headers(new_id("user-"))
    body = json.dumps({"content": "x" * 70_000}).encode()

    async def pieces() -> AsyncIterator[bytes]:
        yield body

    for content in (body, pieces()):
        answer = await edge.http.post("/api/chat/messages", content=content, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_a_long_url_is_refused_with_431(edge: EdgeProcess) -> None:
    raw = await RawSocket.connect(edge)
    await raw.send(b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    answer = await raw.until_closed()
    raw.close()

    assert answer.startswith(b"HTTP/1.1 431 ")


BODIES: dict[str, bytes] = {
    "empty": b"",
    "null": b"null",
    "an array": b"[]",
    "half": b'{"content":',
    "NaN": b'{"content":NaN}',
    "not UTF-8": b'{"content":"\xff"}',
    "a lone surrogate": b'{"content":"\\ud800"}',
    "deep": b"[" * 60_000,
    "a huge number": b'{"content":' + b"9" * 60_000 + b"}",
    "another type": b'{"content":{"a":1}}',
}


@pytest.mark.parametrize("kind", BODIES)
async def test_a_body_that_is_no_message_is_refused_with_400(edge: EdgeProcess, kind: str) -> None:
    headers = edge.headers(new_id("user-")) | {"content-type": "application/json"}
    answer = await edge.http.post("/api/chat/messages", content=BODIES[kind], headers=headers)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "bad_input"


@pytest.mark.parametrize(
    "path",
    ["//", "/..;/api/chat/rooms", "/api/chat/rooms/%2e%2e/messages", "/api/chat/rooms/a%00b/messages"]
    + [
        f"/api/chat/rooms/{bad}/messages"
        for bad in ("*", "%3E", "a.b", "$SYS.x", "x" * 5_000, "a%0d%0ab", "%F0%9F%98%80")
    ],
)
async def test_a_path_that_is_none_is_a_4xx(edge: EdgeProcess, path: str) -> None:
    url = httpx.URL(edge.url).copy_with(raw_path=path.encode())
    answer = await edge.http.get(url, headers=edge.headers(new_id("user-")))

    assert 400 <= answer.status_code < 500


@pytest.mark.parametrize(
    "request_",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"SSH-2.0-OpenSSH_9.6\r\n",
    ],
)
async def test_what_is_no_http_is_answered_with_400_or_closed(edge: EdgeProcess, request_: bytes) -> None:
    raw = await RawSocket.connect(edge)
    await raw.send(request_)
    answer = await raw.until_closed()
    raw.close()

    assert not answer or answer.startswith(b"HTTP/1.1 4")


# -- secrets ----------------------------------------------------------------------------------------------------------


async def test_no_credential_of_any_kind_reaches_the_log(edge: EdgeProcess) -> None:
    token, ticket, user = edge.mint.token(new_id("user-")), edge.mint.ticket(new_id("user-")), new_id("user-")
    ways: list[dict[str, Any]] = [
        {"query": [("token", token)]},
        {"query": [("ticket", ticket)]},
        {"headers": {"cookie": f"auth_token={token}"}},
        {"headers": {"authorization": f"Bearer {token}"}},
    ]
    for way in ways:
        async with chat_client(edge, **way) as client:
            await client.inbox.next("connected")
    await edge.http.get("/api/chat/rooms", params={"token": token})
    await edge.http.get(f"/api/chat/rooms/{user}/messages", params={"ticket": ticket})
    log = edge.log.read_text()

    assert user in log
    assert token not in log
    assert ticket not in log
    assert token.rpartition(".")[2] not in log
    assert ticket.rpartition(".")[2] not in log
