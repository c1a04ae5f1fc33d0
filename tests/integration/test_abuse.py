"""Who floods, stalls or never reads: closed in bounded time, with bounded memory, while others are served as ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest
import pytest_asyncio

from shared.contracts.ids import new_id
from tests.support.clients import chat_client, stream_client
from tests.support.edges import EdgeProcess, Edges, open_edges
from tests.support.neighbours import cpu_s, served_meanwhile
from tests.support.raw import BINARY, CONTINUATION, PING, PONG, TEXT, RawSocket, declared, frame
from tests.support.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

DEADLINE_S = "0.5"
HEARTBEAT_S = "1"
ENGINES = ["epoll", "asgi"]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def edges(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Edges]:
    """Starts edges in processes of their own, whose memory can be measured."""
    async with open_edges(nats_url, tmp_path_factory.mktemp("abuse")) as edges:
        yield edges


async def hasty(edges: Edges, service: str, engine: str) -> EdgeProcess:
    """Start an edge that loses patience soon."""
    return await edges.process(
        service,
        EDGE_ENGINE=engine,
        HEADER_TIMEOUT_S=DEADLINE_S,
        BODY_TIMEOUT_S=DEADLINE_S,
        HEARTBEAT_S=HEARTBEAT_S,
        BACKLOG_BYTES=str(256 * 1024),
        SEND_TIMEOUT_S="1",
        FANFARE_LIMITS="off",
    )


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def chat(request: pytest.FixtureRequest, edges: Edges) -> EdgeProcess:
    return await hasty(edges, "chat", request.param)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pooled_chat(edges: Edges) -> EdgeProcess:
    return await hasty(edges, "chat", "epoll")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=ENGINES)
async def notifications(request: pytest.FixtureRequest, edges: Edges) -> EdgeProcess:
    return await hasty(edges, "notifications", request.param)


async def upgraded(edge: EdgeProcess, path: str = "/ws/chat", *, receive_buffer: int = 0) -> RawSocket:
    """Return a WebSocket whose client is known to the edge."""
    return await RawSocket.upgraded(edge, path, edge.headers(new_id("user-")), receive_buffer=receive_buffer)


async def clients(edge: EdgeProcess) -> int:
    """Return how many clients an edge says that it has."""
    lines = (await edge.http.get("/metrics")).text.splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("fanfare_sessions{"))


# -- frames -----------------------------------------------------------------------------------------------------------


async def test_a_flood_of_pings_from_one_who_reads_is_ended(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await upgraded(chat)
        flooding = asyncio.ensure_future(_flood(raw, frame(PING, b"x" * 125) * 100))
        await raw.until_closed()
        await _cancel(flooding)
        await eventually(lambda: _has_clients(chat, 1))
        left = await clients(chat)
        raw.close()

    assert left == 1  # the neighbour alone


async def test_a_flood_of_pongs_that_nobody_asked_for_is_ended(pooled_chat: EdgeProcess) -> None:
    async with served_meanwhile(pooled_chat):
        raw = await upgraded(pooled_chat)
        flooding = asyncio.ensure_future(_flood(raw, frame(PONG, b"") * 500))
        await raw.until_closed()
        await _cancel(flooding)
        raw.close()


async def test_one_who_is_refused_again_and_again_holds_up_nobody(pooled_chat: EdgeProcess) -> None:
    """Limits are off here: thousands of frames in one read, each refused at once, wait for nothing by themselves."""
    async with served_meanwhile(pooled_chat):
        raw = await upgraded(pooled_chat)
        flooding = asyncio.ensure_future(_flood(raw, frame(BINARY, b"\x01\x01x") * 5_000))
        for _ in range(2_000):  # the neighbour is served all the while
            await raw.until(b'"code":"forbidden"')
        await _cancel(flooding)
        raw.close()


async def test_a_flood_of_pings_from_one_who_never_reads_is_ended(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await upgraded(chat, receive_buffer=4096)
        for _ in range(30):
            await raw.send(frame(PING, b"x" * 125) * 8_000)
        await raw.until_closed()
        await eventually(lambda: _has_clients(chat, 1))
        left = await clients(chat)
        raw.close()

    assert left == 1


async def test_a_flood_of_frames_from_one_who_never_reads_the_answers_is_ended(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await upgraded(chat, receive_buffer=4096)
        flooding = asyncio.ensure_future(_flood(raw, frame(TEXT, b'{"type":"ping","id":"' + b"x" * 60 + b'"}') * 500))
        await eventually(lambda: _has_clients(chat, 1))
        left = await clients(chat)  # while it still floods
        await _cancel(flooding)
        raw.close()

    assert left == 1


async def test_300_000_empty_fragments_are_ended(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await upgraded(chat)
        await raw.send(frame(TEXT, b"", fin=False))
        await raw.send(frame(CONTINUATION, b"", fin=False) * 300_000)
        code = await raw.close_code()
        raw.close()

    assert code in {1009, 4013, None}


async def test_a_frame_of_a_terabyte_is_refused_at_its_head(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await upgraded(chat)
        await raw.send(frame(BINARY, b"", fin=False) + bytes([0x80]) + declared(1 << 40) + b"mask")
        code = await raw.close_code()
        raw.close()

    assert code in {1009, 4013}


async def test_a_frame_that_never_ends_is_given_up_though_it_trickles(pooled_chat: EdgeProcess) -> None:
    """Where the server keeps the connection its own ping, which nobody answers inside a frame, ends it after 40 s."""
    async with served_meanwhile(pooled_chat):
        raw = await upgraded(pooled_chat)
        await raw.send(bytes([0x80 | TEXT]) + declared(60_000) + b"mask")
        trickling = asyncio.ensure_future(_flood(raw, b"x", pause_s=0.05))
        await raw.until_closed()
        await _cancel(trickling)
        await eventually(lambda: _has_clients(pooled_chat, 1))
        left = await clients(pooled_chat)
        raw.close()

    assert left == 1


async def test_a_message_that_never_ends_is_given_up_though_its_client_answers_pings(pooled_chat: EdgeProcess) -> None:
    async with served_meanwhile(pooled_chat):
        raw = await upgraded(pooled_chat)
        await raw.send(frame(TEXT, b"x" * 60_000, fin=False))
        answering = asyncio.ensure_future(_flood(raw, frame(PONG), pause_s=0.05))
        code = await raw.close_code()
        await _cancel(answering)
        raw.close()

    assert code == 1008


# -- clients that do not read, or are not there -----------------------------------------------------------------------


async def test_a_client_that_never_reads_is_closed_and_the_others_hear_all(chat: EdgeProcess) -> None:
    room, count = new_id("room-"), 500
    async with served_meanwhile(chat):
        deaf = await upgraded(chat, f"/ws/chat?room={room}", receive_buffer=4096)
        async with chat_client(chat, new_id("user-"), rooms=[room]) as listener:
            async with chat_client(chat, new_id("user-"), rooms=[room]) as talker:
                for number in range(count):
                    await talker.send("send_message", {"content": f"{number} " + "€" * 4_000})
                await talker.inbox.until(lambda inbox: len(inbox.of_type("ack")) == count)
            await listener.inbox.until(lambda inbox: len(inbox.of_type("chat_message")) == count)
            await eventually(lambda: _has_clients(chat, 2))  # the listener and the neighbour
        code = await deaf.close_code()
        deaf.close()

    assert code in {4080, None}


async def test_a_silent_peer_whose_socket_is_open_still_is_found(pooled_chat: EdgeProcess) -> None:
    async with served_meanwhile(pooled_chat):
        raw = await upgraded(pooled_chat)
        assert await clients(pooled_chat) == 2
        await eventually(lambda: _has_clients(pooled_chat, 1))  # no pong came: it answers nothing
        raw.close()


async def test_streams_whose_clients_never_read_are_ended(notifications: EdgeProcess) -> None:
    async with served_meanwhile(notifications):
        reader = new_id("user-")
        raws = [await _unread_stream(notifications, reader) for _ in range(5)]
        await eventually(lambda: _has_clients(notifications, 5))
        body = {"to": {"user": reader}, "title": "t", "body": "x" * 1_000, "data": {"x": "x" * 30_000}}
        producer = notifications.headers("producer", scope="notify:write")
        async with asyncio.timeout(30):
            while await clients(notifications):
                await notifications.http.post("/api/notifications", json=body, headers=producer)
        left = await clients(notifications)
        for raw in raws:
            raw.close()

    assert left == 0


async def test_what_a_stream_is_sent_by_its_client_is_forgotten(notifications: EdgeProcess) -> None:
    async with served_meanwhile(notifications):
        raw = await _unread_stream(notifications, new_id("user-"))
        for _ in range(100):
            await raw.send(b"x" * 65_536)
        raw.close()
        await eventually(lambda: _has_clients(notifications, 0))
    async with stream_client(notifications, new_id("user-")) as newcomer:
        assert newcomer.inbox.of_type("connected")


async def test_streams_whose_clients_crash_at_once_leave_nothing_behind(notifications: EdgeProcess) -> None:
    async with served_meanwhile(notifications):
        for _ in range(50):
            raw = await RawSocket.connect(notifications)
            await raw.send(_get("/api/stream", notifications.headers(new_id("user-"))))
            raw.abort()
        await eventually(lambda: _has_clients(notifications, 0))
    async with stream_client(notifications, new_id("user-")) as newcomer:
        assert newcomer.inbox.of_type("connected")
        assert await clients(notifications) == 1


# -- HTTP -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [b"X-Long: " + b"x" * 70_000 + b"\r\n", b"X-Many: x\r\n" * 10_000, b"X-Huge: " + b"x" * 20_000_000],
    ids=["one long", "many", "20 MB"],
)
async def test_headers_over_64_kib_are_refused_with_431(chat: EdgeProcess, head: bytes) -> None:
    async with served_meanwhile(chat):
        raw = await RawSocket.connect(chat)
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n")
        answer = await raw.until_closed()
        raw.close()

    assert answer.startswith(b"HTTP/1.1 431 ") or not answer


@pytest.mark.parametrize("head", [b"", b"GET /healthz HTTP/1.1\r\nHost: x\r\n", b"G"])
async def test_a_head_that_never_ends_is_closed_at_its_deadline(chat: EdgeProcess, head: bytes) -> None:
    async with served_meanwhile(chat):
        raw = await RawSocket.connect(chat)
        await raw.send(head)
        answer = await raw.until_closed()
        raw.close()

    assert answer.startswith(b"HTTP/1.1 408 ") if head else not answer


async def test_a_head_that_trickles_is_closed_at_its_deadline_too(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await RawSocket.connect(chat)
        await raw.send(b"GET /healthz HTTP/1.1\r\n")
        trickling = asyncio.ensure_future(_flood(raw, b"X-A: b\r\n", pause_s=0.05))
        answer = await raw.until_closed()
        await _cancel(trickling)
        raw.close()

    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("pause_s", [0.05, None], ids=["trickles", "stops"])
async def test_a_body_that_never_ends_is_refused_at_its_deadline(chat: EdgeProcess, pause_s: float | None) -> None:
    async with served_meanwhile(chat):
        raw = await RawSocket.connect(chat)
        await raw.send(b'POST /api/chat/messages HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{"content":"')
        trickling = asyncio.ensure_future(_flood(raw, b"x", pause_s=pause_s) if pause_s else asyncio.sleep(0))
        answer = await raw.until_closed()
        await _cancel(trickling)
        raw.close()

    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"bad_input" in answer


async def test_requests_that_do_not_wait_for_their_answers_are_ended(chat: EdgeProcess) -> None:
    async with served_meanwhile(chat):
        raw = await RawSocket.connect(chat, receive_buffer=4096)
        await raw.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n" * 20_000)
        answer = await raw.until_closed()
        raw.close()

    assert answer.count(b"HTTP/1.1 ") < 100


# -- descriptors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ENGINES)
async def test_an_edge_without_descriptors_refuses_newcomers_cleanly_and_serves_who_is_there(
    edges: Edges, engine: str
) -> None:
    edges.max_descriptors = 256
    edge = await edges.process("chat", EDGE_ENGINE=engine, FANFARE_LIMITS="off")
    edges.max_descriptors = 0
    async with served_meanwhile(edge):
        crowd = [await RawSocket.upgraded(edge, headers=edge.headers(f"user-{number % 50}")) for number in range(150)]
        silent = [await RawSocket.connect(edge) for _ in range(200)]
        refused = await silent[-1].until_closed()
        before_s = cpu_s(edge)
        await asyncio.sleep(1)  # what is measured is that nothing happens: no loop that accepts in vain
        idle_s = cpu_s(edge) - before_s
        async with asyncio.timeout(10):
            while (await _status(edge)) != 200:  # whoever says nothing has to go for those who do
                await asyncio.sleep(0.1)
        for raw in [*crowd, *silent]:
            raw.close()

    assert refused.startswith(b"HTTP/1.1 503 ")
    assert idle_s < 0.6


@pytest.mark.parametrize("engine", ENGINES)
async def test_of_a_herd_beyond_the_descriptors_each_stream_is_served_or_refused_before_its_head(
    edges: Edges, engine: str
) -> None:
    edges.max_descriptors = 256
    edge = await edges.process("notifications", EDGE_ENGINE=engine, FANFARE_LIMITS="off")
    edges.max_descriptors = 0
    herd = [await RawSocket.connect(edge) for _ in range(400)]
    answers = await asyncio.gather(*(_stream_or_refusal(edge, raw, f"user-{n}") for n, raw in enumerate(herd)))
    for raw in herd:
        raw.close()

    served = sum(b"connected" in answer for answer in answers)
    refused = sum(answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: " in answer for answer in answers)
    assert served + refused == len(herd)
    assert min(served, refused) > 100


# -- helpers ----------------------------------------------------------------------------------------------------------


async def _flood(raw: RawSocket, data: bytes, pause_s: float = 0.0) -> None:
    with suppress(TimeoutError):
        while True:
            await raw.send(data)
            await asyncio.sleep(pause_s)


async def _cancel(task: asyncio.Future[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def _has_clients(edge: EdgeProcess, count: int) -> bool:
    return await clients(edge) == count


async def _unread_stream(edge: EdgeProcess, user: str) -> RawSocket:
    raw = await RawSocket.connect(edge, receive_buffer=4096)
    await raw.send(_get("/api/stream", edge.headers(user)))
    await raw.until(b"\r\n\r\n")
    return raw


async def _status(edge: EdgeProcess) -> int:
    raw = await RawSocket.connect(edge)
    await raw.send(_get("/healthz", {"Connection": "close"}))
    answer = await raw.until_closed()
    raw.close()
    return int(answer.split()[1]) if answer else 0


def _get(path: str, headers: dict[str, str]) -> bytes:
    lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode()


async def _stream_or_refusal(edge: EdgeProcess, raw: RawSocket, user: str) -> bytes:
    """Ask for a stream; return its beginning, or what came until the edge closed."""
    headers = "".join(f"{name}: {value}\r\n" for name, value in edge.headers(user).items())
    await raw.send(f"GET /api/stream HTTP/1.1\r\nHost: edge\r\n{headers}\r\n".encode())
    try:
        return await raw.until(b"connected")
    except AssertionError:
        return bytes(raw.received)
