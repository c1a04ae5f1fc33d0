"""What must hold when a connection leaves uvicorn for the pool; most hold as well where it stays (EDGE_ENGINE=asgi)."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
from websockets.frames import Frame, Opcode

from shared.contracts.ids import new_id
from tests.support.clients import chat_client, stream_client
from tests.support.edges import Edges, LocalEdge

ENGINES = ["epoll", "asgi"]


def handshake(edge: LocalEdge, room: str, headers: dict[str, str] | None = None) -> bytes:
    lines = [
        f"GET /ws/chat?room={room} HTTP/1.1",
        f"Host: {edge.url.removeprefix('http://')}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Version: 13",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


def stream_request(edge: LocalEdge, user: str) -> bytes:
    return f"GET /api/stream HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {edge.mint.token(user)}\r\n\r\n".encode()


def frame(type_: str, **fields: object) -> bytes:
    return Frame(Opcode.TEXT, json.dumps({"type": type_, **fields}).encode()).serialize(mask=True)


async def dial(edge: LocalEdge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = edge.url.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


async def read_until(reader: asyncio.StreamReader, text: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(10):
        while text not in got:
            data = await reader.read(65536)
            assert data, got
            got += data
    return got


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("cut", [0, -1, 1], ids=["in one segment", "head torn", "frame torn"])
async def test_a_frame_that_comes_with_the_handshake_is_not_lost(edges: Edges, engine: str, cut: int) -> None:
    edge, user = await edges.chat(edge_engine=engine), new_id("u")
    head, first = handshake(edge, "r"), frame("auth", token=edge.mint.token(user))
    at = len(head) + cut if cut else len(head + first)
    reader, writer = await dial(edge)
    writer.write((head + first)[:at])
    await asyncio.sleep(0.05 if cut else 0)  # a segment of its own: there is nothing to await on our side
    writer.write((head + first)[at:])
    got = await read_until(reader, b'"connected"')

    assert user.encode() in got
    writer.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_frames_sent_right_behind_the_handshake_are_handled_in_order(edges: Edges, engine: str) -> None:
    edge, room = await edges.chat(edge_engine=engine), new_id("room-")
    reader, writer = await dial(edge)
    writer.write(handshake(edge, room, edge.headers(new_id("u"))))
    for number in range(20):
        writer.write(frame("send_message", data={"content": f"early {number}"}))
    got = await read_until(reader, b"early 19")

    places = [got.index(b'"early %d"' % number) for number in range(20)]
    assert places == sorted(places)
    writer.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_ping_that_comes_with_the_handshake_is_answered(edges: Edges, engine: str) -> None:
    edge = await edges.chat(edge_engine=engine)
    reader, writer = await dial(edge)
    ping = Frame(Opcode.PING, b"early").serialize(mask=True)
    writer.write(handshake(edge, new_id("room-"), edge.headers(new_id("u"))) + ping)

    pong = Frame(Opcode.PONG, b"early").serialize(mask=False)
    assert (await read_until(reader, pong)).count(pong) == 1
    writer.close()


async def test_the_answer_to_the_handshake_and_the_first_frames_are_one_segment(edges: Edges) -> None:
    edge, room = await edges.chat(), new_id("room-")
    async with chat_client(edge, new_id("u"), rooms=[room]):  # the room is open here: nobody has to wait for it
        reader, writer = await dial(edge)
        writer.write(handshake(edge, room, edge.headers(new_id("u"))))
        await read_until(reader, b'"connected"')
        info = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 160)
        (data_segments_in,) = struct.unpack_from("I", info, 152)  # tcpi_data_segs_in of linux/tcp.h

        assert data_segments_in == 1
        writer.close()


async def test_nothing_of_a_connection_stays_with_the_server(edges: Edges) -> None:
    chat, notifications = await edges.chat(), await edges.notifications()
    async with chat_client(chat, new_id("u")), stream_client(notifications, new_id("u")):
        await until(lambda: not chat.server.server_state.connections - _http_keep_alive(chat))

        assert not chat.server.server_state.tasks
        assert not notifications.server.server_state.tasks
        assert chat.gauge("pool_connections") == notifications.gauge("pool_connections") == 1


async def test_what_a_connect_needed_is_freed_at_once_and_not_by_a_collection(edges: Edges) -> None:
    chat, notifications = await edges.chat(), await edges.notifications()
    writers = []

    async def enter() -> None:
        for edge, request in (
            (chat, handshake(chat, new_id("room-"), chat.headers(new_id("u")))),
            (notifications, stream_request(notifications, new_id("u"))),
        ):
            reader, writer = await dial(edge)
            writers.append(writer)
            writer.write(request)
            await read_until(reader, b'"connected"')

    def of_the_server() -> int:
        kinds = {"HandOverHttpProtocol", "RequestResponseCycle", "FlowControl", "Upgrade", "Arrival", "Head"}
        return sum(type(one).__name__ in kinds for one in gc.get_objects())

    await enter()
    gc.collect()
    before = of_the_server()
    gc.disable()
    try:
        for _ in range(10):
            await enter()
        await until(lambda: of_the_server() <= before)
        assert chat.gauge("pool_connections") == notifications.gauge("pool_connections") == 11
    finally:
        gc.enable()
        for writer in writers:
            writer.close()


async def test_descriptors_are_given_back(edges: Edges) -> None:
    chat, notifications = await edges.chat(), await edges.notifications()

    async def come_and_go() -> None:
        async with chat_client(chat, new_id("u")), stream_client(notifications, new_id("u")):
            pass

    await come_and_go()
    await until(lambda: chat.gauge("pool_connections") == notifications.gauge("pool_connections") == 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        await come_and_go()
    await until(lambda: chat.gauge("pool_connections") == notifications.gauge("pool_connections") == 0)
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before + 2)
    assert chat.gauge("sessions", transport="websocket") == notifications.gauge("sessions", transport="sse") == 0


@pytest.mark.parametrize("leave", ["close", "shutdown", "reset"])
async def test_a_client_that_goes_without_a_word_is_noticed(edges: Edges, leave: str) -> None:
    edge, room = await edges.chat(), new_id("room-")
    reader, writer = await dial(edge)
    writer.write(handshake(edge, room, edge.headers(new_id("u"))))
    await read_until(reader, b'"connected"')
    raw: socket.socket = writer.get_extra_info("socket")
    if leave == "shutdown":
        writer.write_eof()
    elif leave == "reset":
        # SO_LINGER with no time: the kernel sends RST.
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        writer.close()
    else:
        writer.close()
    await until(lambda: edge.gauge("sessions", transport="websocket") == 0)

    assert edge.gauge("pool_connections") == 0
    writer.close()


async def test_an_http_1_0_client_gets_its_stream_without_chunks(edges: Edges) -> None:
    edge = await edges.notifications()
    reader, writer = await dial(edge)
    token = edge.mint.token(new_id("u"))
    writer.write(f"GET /api/stream HTTP/1.0\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
    await read_until(reader, b'"connected"')

    assert edge.gauge("pool_connections") == 0
    writer.close()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_client_that_does_not_read_is_closed_and_delays_nobody(edges: Edges, engine: str) -> None:
    edge, room = await edges.chat(edge_engine=engine, backlog_bytes=128 * 1024, message_limit=10_000), new_id("room-")
    reader, writer = await dial(edge)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    writer.write(handshake(edge, room, edge.headers(new_id("u"))))
    await read_until(reader, b'"connected"')
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    async with chat_client(edge, new_id("u"), rooms=[room]) as other:
        for _ in range(20):  # 4 MB: far more than the kernel and the backlog take between them
            for _ in range(50):
                await other.send("send_message", {"content": "x" * 4000})
            await _promptly(other.say("and one to wait for"))

        await until(lambda: edge.gauge("sessions", transport="websocket") == 1)
        await _promptly(other.say("still here"))

        assert edge.count("clients_too_slow", transport="websocket") == 1
    writer.close()


async def test_a_talker_does_not_starve_the_others(edges: Edges) -> None:
    edge, room = await edges.chat(), new_id("room-")
    reader, writer = await dial(edge)
    writer.write(handshake(edge, new_id("room-"), edge.headers(new_id("u"))))
    await read_until(reader, b'"connected"')
    flood = frame("ping") * 500

    async def talk() -> None:
        while True:
            writer.write(flood)
            await writer.drain()
            await reader.read(1 << 16)

    async with chat_client(edge, new_id("u"), rooms=[room]) as other:
        talking = asyncio.ensure_future(talk())
        for number in range(20):
            await _promptly(other.say(f"heard {number}"))
        assert not talking.done()
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
    writer.close()


def _http_keep_alive(edge: LocalEdge) -> set[object]:
    """The connections of the tests' own HTTP client, which stay open between requests."""
    return {one for one in edge.server.server_state.connections if type(one).__name__ == "HandOverHttpProtocol"}


async def _promptly(work: Awaitable[object]) -> None:
    async with asyncio.timeout(5):
        await work
