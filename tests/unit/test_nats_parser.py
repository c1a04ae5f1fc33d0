"""The burst parser hears what nats-py's own hears, wherever the reads cut the stream."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from shared.broker.jetstream_parser import MAX_LINE_BYTES, BurstParser

KNOWN = (1, 22)


class Interest:
    """A subscription that notes what it gets."""

    def __init__(self, number: int, heard: list[object]) -> None:
        self._number, self._heard = number, heard

    def receive(self, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        self._heard.append((self._number, subject, reply, data, raw))


class Client:
    """What either parser calls."""

    def __init__(self) -> None:
        self.heard: list[object] = []
        self.interests = {number: Interest(number, self.heard) for number in KNOWN}

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, raw: bytes | None) -> None:
        if sid in self.interests:
            self.interests[sid].receive(subject, reply, data, raw)

    async def _process_ping(self) -> None:
        self.heard.append("ping")

    async def _process_pong(self) -> None:
        self.heard.append("pong")

    async def _process_err(self, text: str) -> None:
        self.heard.append(text)

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.heard.append(info)


def message(subject: str, number: int, reply: str, data: bytes, headers: bytes | None) -> bytes:
    line = f"{subject} {number} {reply + ' ' if reply else ''}".encode()
    if headers is None:
        return b"MSG %b%d\r\n%b\r\n" % (line, len(data), data)
    return b"HMSG %b%d %d\r\n%b%b\r\n" % (line, len(headers), len(headers) + len(data), headers, data)


tokens = st.text("abcXYZ019_-.", min_size=1, max_size=20)
payloads = st.binary(max_size=80) | st.sampled_from([b"\r\n", b"MSG a 1 3\r\n", b"\r\nPING\r\n", b"x" * 5_000])
messages = st.builds(
    message,
    tokens,
    st.sampled_from([*KNOWN, 7]),
    st.just("") | tokens,
    payloads,
    st.none() | payloads.map(lambda more: b"NATS/1.0\r\nA: b\r\n\r\n" + more),
)
others = st.sampled_from(
    [b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b"-ERR 'Slow Consumer'\r\n", b'INFO {"max_payload":1}\r\n']
)
streams = st.lists(messages | others, min_size=1, max_size=20).map(b"".join)


@given(streams, st.lists(st.integers(0, 6_000), max_size=8))
def test_it_hears_what_nats_py_hears_wherever_a_read_ends(stream: bytes, cuts: list[int]) -> None:
    theirs, ours = Client(), Client()

    async def parse() -> None:
        await Parser(theirs).parse(stream)
        parser = BurstParser(ours, ours.interests, ours.heard.append)
        for start, end in pairwise([0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]):
            await parser.parse(stream[start:end])

    asyncio.run(parse())
    assert ours.heard == theirs.heard


@pytest.mark.parametrize(
    "nonsense", [b"HELLO\r\n", b"MSG a 1 x\r\n", b"MSG\r\n", b"MSG 0\r\n\r\n", b"MSG a x 1\r\n1\r\n", b"\r\n"]
)
async def test_what_is_not_nats_is_an_error(nonsense: bytes) -> None:
    client = Client()
    with pytest.raises(ProtocolError):
        await BurstParser(client, client.interests, client.heard.append).parse(nonsense)


async def test_a_line_without_an_end_is_not_kept_for_ever() -> None:
    client = Client()
    parser = BurstParser(client, client.interests, client.heard.append)
    await parser.parse(b"I" * MAX_LINE_BYTES)
    with pytest.raises(ProtocolError):
        await parser.parse(b"I")


async def test_after_an_error_that_ended_the_connection_the_rest_of_the_read_is_nobodys() -> None:
    client = Client()
    parser = BurstParser(client, client.interests, client.heard.append)

    async def end(_text: str) -> None:
        parser.reset()

    client._process_err = end  # type: ignore[method-assign]
    await parser.parse(b"-ERR 'Stale Connection'\r\nMSG a 1 1\r\nx\r\nMSG a 1 9\r\nhalf")
    await parser.parse(b"MSG b 1 1\r\ny\r\n")

    assert client.heard == [(1, b"b", b"", b"y", None)]


async def test_a_receiver_that_raises_is_told_of_and_the_others_go_on() -> None:
    client = Client()
    parser = BurstParser(client, client.interests, client.heard.append)

    def fail(*_message: object) -> None:
        raise ValueError("a bug in a receiver")

    client.interests[1].receive = fail  # type: ignore[method-assign]
    await parser.parse(b"MSG a.b 1 1\r\nx\r\nMSG b 22 1\r\ny\r\n")

    assert client.heard == [b"a.b", (22, b"b", b"", b"y", None)]
