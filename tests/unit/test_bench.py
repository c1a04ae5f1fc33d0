"""The benchmarks count right: what they say arrived did, once, however the bytes were cut up."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict
from functools import partial
from typing import Any

import pytest

from bench.__main__ import arguments_of
from bench.holder import Plan
from bench.load import MARK, BenchFailed, Client, Crowd, Door, StampedClient, content, text_frame
from bench.million import start_holder
from bench.report import Check, Report, Row
from bench.resuming import ResumingClient, check_nothing_astray, come_back
from bench.scenarios import broadcast
from bench.scenarios.prices import PriceClient
from bench.tables import fill, merge
from tests.support.tokens import Mint
from tests.support.waiting import eventually

DOOR = Door(0, lambda _number: b"GET", b"\r\n\r\n")


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data


async def welcomed(kind: type[Client] = Client) -> tuple[Crowd, Any, Wire]:
    """Return a crowd of one, who is in."""
    crowd, wire = Crowd("test", DOOR, kind), Wire()
    crowd.clients = crowd.prepare([0])
    client = crowd.clients[0]
    client.connection_made(wire)  # type: ignore[arg-type]
    client.data_received(b"HTTP/1.1 101\r\n\r\n")
    await client.welcomed
    return crowd, client, wire


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
async def test_each_mark_counts_once_however_it_is_cut(step: int) -> None:
    crowd, client, _ = await welcomed()
    data = b"".join(b"\x81\x7e\x00\xd2" + content(210).encode() for _ in range(5))
    for start in range(0, len(data), step):
        client.data_received(data[start : start + step])
    assert crowd.arrived == client.count == 5
    crowd.check_each_got(5)


@pytest.mark.parametrize("step", [1, 5, 1000])
async def test_each_stamp_is_a_delay(step: int) -> None:
    crowd, client, _ = await welcomed(StampedClient)
    data = (content(60, 1.5) + content(60, 2.5)).encode()
    for start in range(0, len(data), step):
        client.data_received(data[start : start + step])
    assert crowd.arrived == 2
    assert crowd.delays_s[0] - crowd.delays_s[1] == pytest.approx(1.0, abs=0.5)


@pytest.mark.parametrize("step", [1, 5, 1000])
async def test_a_price_is_read_whole(step: int) -> None:
    _, client, _ = await welcomed(PriceClient)
    data = b'{"symbol":"S1","price":1000.25,"x":1}{"symbol":"S1","price":1001.25,"x":1}{"symbol":"S2","price":9.5}'
    for start in range(0, len(data), step):
        client.data_received(data[start : start + step])
    assert client.last == {b"S1": b"1001.25", b"S2": b"9.5"}
    assert client.updates == {b"S1": 2, b"S2": 1}


WEBSOCKET_MESSAGE = '{"type":"chat_message","data":{"id":"m","content":"%s","seq":1,"cursor":"e:%d"}}'
SSE_MESSAGE = 'id: e:%d\r\ndata: {"type":"notification","title":"t","body":"%s"}\r\n\r\n'


@pytest.mark.parametrize("step", [1, 7, 1000])
@pytest.mark.parametrize("transport", ["websocket", "sse"])
async def test_a_client_that_comes_back_has_the_cursor_of_its_last_whole_message(transport: str, step: int) -> None:
    crowd, client, _ = await welcomed(ResumingClient)
    texts = [content(40, number) for number in (1, 2, 3)]
    if transport == "websocket":
        data = "\x81~".join(WEBSOCKET_MESSAGE % (text, number) for number, text in enumerate(texts)).encode()
    else:
        data = "".join(SSE_MESSAGE % (number, text) for number, text in enumerate(texts)).encode()
    for start in range(0, len(data) - 10, step):
        client.data_received(data[start : min(start + step, len(data) - 10)])
    assert (client.count, client.cursor) == (2, "e:1")
    client.data_received(data[-10:])
    assert (client.count, client.cursor) == (3, "e:2")
    check_nothing_astray(crowd, 3)


@pytest.mark.parametrize("order", [(1, 1), (2, 1)], ids=["twice", "out of order"])
async def test_a_message_that_is_not_new_makes_a_run_void(order: tuple[int, ...]) -> None:
    crowd, client, _ = await welcomed(ResumingClient)
    for number in order:
        client.data_received((WEBSOCKET_MESSAGE % (content(40, number), number)).encode())
    with pytest.raises(BenchFailed, match="twice or out of order"):
        check_nothing_astray(crowd, 2)


async def test_each_client_comes_back_with_its_cursor_as_soon_as_it_is_cut_off_and_again_if_it_is_refused() -> None:
    cursors, asked, inside = [""] * 3, list[str](), list[asyncio.StreamWriter]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append((await reader.readuntil(b"\r\n\r\n")).decode().strip())
        if len(asked) == 5:  # the second who comes back
            writer.close()
            await writer.wait_closed()
            return
        message = WEBSOCKET_MESSAGE % (content(40, len(asked)), len(asked))
        writer.write(b"HTTP/1.1 101\r\n\r\n" + message.encode())
        inside.append(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.TaskGroup() as group:
        port = server.sockets[0].getsockname()[1]
        door = Door(port, lambda number: f"{number} {cursors[number]}\r\n\r\n".encode(), b"\r\n\r\n")
        crowd = Crowd("test", door, ResumingClient)
        await crowd.connect(range(3))
        await crowd.reach(3)
        coming = group.create_task(come_back(crowd, door, cursors, at_once=2))
        for writer, then in zip(inside[:3], (4, 6, 7), strict=True):
            writer.close()
            await eventually(partial(lambda count: len(asked) == count, then))  # nobody waits until all are cut off
        back = await coming
        await back.crowd.reach(3)

        cursor_of = {number: f"e:{place}" for place, number in enumerate(asked[:3], 1)}
        assert [asked[3], asked[4], asked[6]] == [f"{number} {cursor_of[number]}" for number in asked[:3]]
        assert (asked[5], back.refusals, len(back.crowd.clients)) == (asked[4], 1, 3)
        check_nothing_astray(back.crowd, 2)
        back.crowd.close()
        for writer in inside:
            writer.close()
            await writer.wait_closed()


async def test_what_comes_with_the_welcome_counts() -> None:
    crowd = Crowd("test", DOOR)
    crowd.clients = crowd.prepare([0])
    crowd.clients[0].data_received(b"HTTP/1.1 101\r\n\r\n" + MARK)
    crowd.check_each_got(1)


async def test_pings_are_answered_wherever_they_stand() -> None:
    _, client, wire = await welcomed()
    wire.written = b""
    client.data_received(text_frame(MARK) + b"\x89\x00")
    client.data_received(b"\x89\x02hi" + text_frame(MARK))
    assert wire.written == b"\x8a\x80" + bytes(4) + b"\x8a\x82" + bytes(4) + b"hi"


async def test_a_doubled_delivery_does_not_make_up_for_a_lost_one() -> None:
    crowd, client, _ = await welcomed()
    crowd.clients += crowd.prepare([1])
    client.data_received(MARK * 2)
    await crowd.reach(2)
    with pytest.raises(BenchFailed, match="2 clients got other than 1"):
        crowd.check_each_got(1)


async def test_a_client_that_was_cut_off_makes_a_run_void() -> None:
    crowd, client, _ = await welcomed()
    client.connection_lost(None)
    with pytest.raises(BenchFailed, match="1 were cut off"):
        crowd.check_each_got(0)


async def test_a_server_that_hangs_up_is_a_failure_not_a_wait() -> None:
    async with asyncio.timeout(5):
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(BenchFailed, match="hung up"):
                await Crowd("test", Door(port, DOOR.request, DOOR.welcome)).connect([0])


def test_a_broken_bound_or_a_void_scenario_makes_the_run_bad() -> None:
    assert Report("bench").good
    assert Report("bench", checks=[Check("ratio", 1.0, 1.0)]).good
    assert not Report("bench", checks=[Check("ratio", 1.01, 1.0)]).good
    assert not Report("bench", void=["broadcast: 9 of 10 deliveries"]).good


def test_a_run_that_is_repeated_is_judged_by_the_median_of_each_ratio() -> None:
    report = Report("bench", checks=[Check("a / b", value, 0.5) for value in (0.9, 0.4, 0.5)])
    report.checks.append(Check("a / c", 0.7, 0.6))
    report.judge_by_medians()

    assert [(check.value, check.bound, check.holds) for check in report.checks] == [(0.5, 0.5, True), (0.7, 0.6, False)]
    assert str(report.checks[0]) == "holds   a / b, median of 0.40, 0.50, 0.90: 0.50 (at most 0.5)"
    assert not report.good


def test_beside_one_peer_only_its_groups_are_measured() -> None:
    beside = broadcast.COMPARISON.beside("Socket.IO")
    assert beside.peers(quick=False) == ["FastAPI on uvicorn", "Socket.IO"]
    assert beside.peers(quick=True) == []
    assert "Django Channels" in broadcast.COMPARISON.peers(quick=False)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["--times", "0"], "1 or more"),
        (["--beside", "nobody"], "nobody is not in broadcast; it has send"),
        (["idle", "--beside", "Centrifugo"], "not for idle"),
        (["burst", "--beside", "Django Channels"], "Django Channels is not in burst"),
        (["--quick", "--beside", "Centrifugo"], "Centrifugo is not in broadcast"),
    ],
)
def test_a_comparison_that_cannot_be_made_is_refused_before_anything_is_measured(
    words: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        arguments_of(words)
    assert refused.value.code == 2
    assert reason in capsys.readouterr().err


def test_a_document_is_filled_from_the_last_run_that_has_a_scenario() -> None:
    def run(connections: float, value: float) -> dict[str, Any]:
        figures = {"connections": connections, "rss_kib_per_connection": value}
        report = Report("bench", machine={"cores": 2}, rows=[Row("idle", "Fanfare", "v1", figures)])
        report.checks = [Check("KiB", value, 1.0)]
        return json.loads(json.dumps(asdict(report)))  # type: ignore[no-any-return]

    document = "a\n<!-- figures: {} -->\nold\n<!-- end -->\nz"
    results = merge([run(10, 3.14159), run(10, 0.5)])
    filled = fill(document.format("idle"), results)
    assert filled.startswith("a\n<!-- figures: idle -->\n| server | connections |")
    assert "| Fanfare | 10 | 0.50 |" in filled
    assert "old" not in filled
    assert "| KiB | 0.50 | 1 |  |" in fill(document.format("goals"), results)
    assert fill(document.format("rooms"), results) == document.format("rooms")


async def test_a_holder_says_when_all_are_in_when_all_have_heard_and_when_one_is_lost() -> None:
    writers: list[asyncio.StreamWriter] = []

    async def welcome(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Authorization: Bearer ey" in head
        writer.write(b'HTTP/1.1 101\r\n\r\n{"type":"connected"}')
        writers.append(writer)

    async with asyncio.timeout(20), await asyncio.start_server(welcome, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        holder = await start_holder(Plan(port, "127.1.0.1", 0, 3, "/ws/chat?room=bench", Mint().secret.hex()))
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert await holder.stdout.readline() == b"held 3\n"
        assert {writer.get_extra_info("peername")[0] for writer in writers} == {"127.1.0.1"}
        writers[0].write(MARK)
        writers[1].write(MARK)
        writers[2].write(MARK)
        assert (await holder.stdout.readline()).startswith(b"heard 1 ")
        # One gets a message twice and another not at all: as many deliveries, but not everybody has it.
        writers[0].write(MARK * 2)
        writers[1].write(MARK)
        await asyncio.gather(*(writer.drain() for writer in writers))
        writers[2].transport.abort()
        assert await holder.stdout.readline() == b"lost 1\n"
        holder.stdin.close()
        assert await holder.wait() == 0
        for writer in writers:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
