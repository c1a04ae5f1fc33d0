"""Which connections the gate lets in itself, which it leaves to uvicorn, and that nobody can tell the difference."""

from __future__ import annotations

import asyncio

import pytest

from shared.contracts.ids import new_id
from tests.support.edges import Edges, LocalEdge
from tests.support.raw import TEXT, RawSocket, frame, handshake
from tests.support.waiting import eventually

HEAD_END = b"\r\n\r\n"


def begun(edge: LocalEdge, way: str) -> float:
    return edge.count("connections_begun", way=way)


def stream_request(edge: LocalEdge, query: str = "") -> bytes:
    token = edge.mint.token(new_id("u"))
    return f"GET /api/stream{query} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode()


async def says_all_at_once(raw: RawSocket, request: bytes) -> None:
    await raw.send(request)


async def says_nothing_at_first(raw: RawSocket, request: bytes) -> None:
    await asyncio.sleep(0.1)  # it is what the client does: connected, and silent
    await raw.send(request)


async def says_it_in_pieces(raw: RawSocket, request: bytes) -> None:
    await raw.send(request[:20])
    await asyncio.sleep(0.1)
    await raw.send(request[20:])


async def asks_something_else_before(raw: RawSocket, request: bytes) -> None:
    await raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await raw.until(b'"up"}')
    raw.received.clear()
    await raw.send(request)


async def is_silent_for_longer_than_the_gate_waits(raw: RawSocket, request: bytes) -> None:
    await asyncio.sleep(1.3)
    await raw.send(request)


WAYS = [
    (says_all_at_once, "direct"),
    (says_nothing_at_first, "direct"),
    (says_it_in_pieces, "uvicorn"),
    (asks_something_else_before, "uvicorn"),
    (is_silent_for_longer_than_the_gate_waits, "uvicorn"),
]
ways = pytest.mark.parametrize(("speak", "way"), WAYS, ids=[speak.__name__ for speak, _ in WAYS])


@ways
async def test_a_websocket_is_served_however_its_client_begins(edges: Edges, speak, way: str) -> None:
    edge, user = await edges.chat(), new_id("u")
    before = begun(edge, way)
    raw = await RawSocket.connect(edge)
    await speak(raw, handshake(f"/ws/chat?room={new_id('r')}", edge.headers(user)))
    await raw.until(b'"connected"')
    raw.received.clear()
    await raw.send(frame(TEXT, b'{"type":"send_message","id":"1","data":{"content":"hi"}}'))
    await raw.until(b'"ack"')

    assert begun(edge, way) == before + 1
    assert edge.gauge("pool_connections") == 1
    raw.close()


@ways
async def test_a_stream_is_served_however_its_client_begins(edges: Edges, speak, way: str) -> None:
    edge = await edges.notifications()
    before = begun(edge, way)
    raw = await RawSocket.connect(edge)
    await speak(raw, stream_request(edge))
    head = await raw.until(HEAD_END)
    await raw.until(b'"connected"')

    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert {line.partition(b":")[0] for line in head.splitlines()[1:-1]} == {
        b"date",
        b"cache-control",
        b"connection",
        b"x-accel-buffering",
        b"content-type",
        b"transfer-encoding",
    }
    assert begun(edge, way) == before + 1
    assert edge.gauge("pool_connections") == 1
    raw.close()


async def test_the_head_of_a_stream_and_its_first_event_are_one_write(edges: Edges) -> None:
    edge = await edges.notifications()
    raw = await RawSocket.connect(edge)
    await raw.send(stream_request(edge))
    first = await asyncio.get_running_loop().sock_recv(raw.sock, 65_536)

    assert first.startswith(b"HTTP/1.1 200 ")
    assert b'"connected"' in first
    raw.close()


@pytest.mark.parametrize(("query", "scheme"), [("", "Other"), ("?max_rate=none", "Bearer")])
async def test_a_refusal_is_the_same_by_either_way(edges: Edges, query: str, scheme: str) -> None:
    edge = await edges.notifications()
    request = stream_request(edge, query).replace(b"Bearer", scheme.encode())
    request = request.replace(b"Host: x", b"Host: x\r\nConnection: close")
    answers = []
    for speak in (says_all_at_once, says_it_in_pieces):
        raw = await RawSocket.connect(edge)
        await speak(raw, request)
        head, _, body = (await raw.until_closed()).partition(HEAD_END)
        answers.append((head.split()[1], body))
        raw.close()

    assert answers[0] == answers[1]
    assert answers[0][0] in (b"401", b"400")
    assert b'"code"' in answers[0][1]


async def test_a_request_that_is_not_for_a_connection_that_stays_is_uvicorns(edges: Edges) -> None:
    edge = await edges.chat()
    before = begun(edge, "uvicorn")
    for request, status in ((b"GET /ws/chat", b"404"), (b"GET /healthz", b"200"), (b"GET /nowhere", b"404")):
        raw = await RawSocket.connect(edge)
        await raw.send(request + b" HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await raw.until(HEAD_END)).split()[1] == status
        raw.close()

    assert begun(edge, "uvicorn") == before + 2


async def test_two_streams_asked_for_at_once_on_one_connection_are_not_mixed_up(edges: Edges) -> None:
    edge = await edges.notifications()
    before = begun(edge, "uvicorn")
    raw = await RawSocket.connect(edge)
    await raw.send(stream_request(edge) + stream_request(edge))
    await raw.until(b'"connected"')

    assert begun(edge, "uvicorn") == before + 1
    raw.close()


@pytest.mark.parametrize("edges", ["epoll", "asgi"], indirect=True)
async def test_an_empty_line_before_a_later_request_is_passed_over(edges: Edges) -> None:
    """RFC 9112 section 2.2. It once made the head of a handshake be read a second time, as its first frames."""
    edge = await edges.chat()
    raw = await RawSocket.connect(edge)
    await raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    await raw.until(b'"up"}')
    await raw.send(b"\r\n" + handshake("/ws/chat", edge.headers(new_id("u"))))
    await raw.until(b'"connected"')

    assert edge.gauge("sessions", transport="websocket") == 1
    raw.close()


@pytest.mark.parametrize("edges", ["epoll", "asgi"], indirect=True)
async def test_frames_that_are_none_behind_a_handshake_end_that_connection_without_an_error_here(
    edges: Edges, caplog: pytest.LogCaptureFixture
) -> None:
    edge = await edges.chat()
    raw = await RawSocket.connect(edge)
    await raw.send(handshake("/ws/chat", edge.headers(new_id("u"))) + b"GET / HTTP/1.1\r\n\r\n")
    await raw.until_closed()

    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    raw.close()


async def test_clients_that_come_and_say_nothing_leave_nothing_behind(edges: Edges) -> None:
    edge = await edges.chat(header_timeout_s=0.2)
    silent = [await RawSocket.connect(edge) for _ in range(20)]
    for raw in silent[:10]:
        raw.abort()
    for raw in silent[10:]:
        assert await raw.until_closed() == b""
        raw.close()

    await eventually(lambda: not edge.server.server_state.tasks)
    assert edge.gauge("pool_connections") == 0


async def test_a_handshake_that_is_none_is_refused_and_counted(edges: Edges) -> None:
    edge = await edges.chat()
    raw = await RawSocket.connect(edge)
    await raw.send(handshake("/ws/chat", {"Sec-WebSocket-Version": "8"}))

    assert (await raw.until_closed()).startswith(b"HTTP/1.1 426 ")
    assert edge.count("connections_refused", reason="handshake") == 1
    raw.close()


async def test_what_is_no_request_is_refused_and_counted_and_not_logged(edges: Edges) -> None:
    """Each was a warning in the log, which anybody could fill the disk with."""
    edge = await edges.process("chat")
    for noise in (
        b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
    ):
        raw = await RawSocket.connect(edge)
        await raw.send(noise)
        await raw.until(HEAD_END)
        raw.close()
    metrics = (await edge.http.get("/metrics")).text

    assert 'fanfare_connections_refused_total{reason="bad_request"} 1.0' in metrics
    assert '"level": "warning"' not in edge.log.read_text()


async def test_a_failure_of_the_app_is_answered_and_closed(edges: Edges, monkeypatch: pytest.MonkeyPatch) -> None:
    edge = await edges.notifications()

    async def fails(*_args: object) -> None:
        raise LookupError("a bug")

    monkeypatch.setattr("shared.runtime.app.ServiceApp.__call__", fails)
    raw = await RawSocket.connect(edge)
    await raw.send(stream_request(edge))

    assert (await raw.until_closed()).startswith(b"HTTP/1.1 500 ")
    raw.close()
