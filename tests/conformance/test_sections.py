"""The sections of the Autobahn suite in short, by our own hand: `make conformance` on a machine that does not have it.

Each case says what a client sends, byte for byte, and what comes back; sections and numbers are Autobahn's. The echo is
the product's own wire, and both ways that a connection can be held must answer alike.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

from tests.conformance.echo import Echo, serving_echo
from tests.support.raw import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RawSocket, declared, frame

pytestmark = pytest.mark.asyncio(loop_scope="module")

MAX_MESSAGE_BYTES = 256 * 1024


class Case(NamedTuple):
    """What goes out, the frames that come back, and the code of the close that ends it (0: the connection stays)."""

    sent: bytes
    back: tuple[tuple[int, bytes], ...] = ()
    closes: frozenset[int] = frozenset({0})


def refused(sent: bytes, *codes: int, back: tuple[tuple[int, bytes], ...] = ()) -> Case:
    """Return a case that ends with one of these close codes."""
    return Case(sent, back, frozenset(codes))


def echoed(opcode: int, payload: bytes) -> Case:
    """Return a case of one message that comes back as it was."""
    return Case(frame(opcode, payload), ((opcode, payload),))


def closing(payload: bytes) -> bytes:
    """Return a close frame with this payload."""
    return frame(CLOSE, payload)


def code(number: int, reason: bytes = b"") -> bytes:
    """Return the payload of a close."""
    return number.to_bytes(2, "big") + reason


def pieces(opcode: int, *parts: bytes) -> bytes:
    """Return one message in as many frames."""
    first, *rest = parts
    middle = b"".join(frame(CONTINUATION, part, fin=False) for part in rest[:-1])
    return frame(opcode, first, fin=False) + middle + frame(CONTINUATION, rest[-1])


SIZES = [0, 1, 125, 126, 127, 128, 65_535, 65_536, MAX_MESSAGE_BYTES]
KOSME = "κόσμε \U0010ffff".encode()
CUT = len("κό".encode()) + 1  # inside a character

CASES: dict[str, Case] = {
    **{f"1.1 text of {size} bytes": echoed(TEXT, b"*" * size) for size in SIZES},
    **{f"1.2 binary of {size} bytes": echoed(BINARY, b"\xfe" * size) for size in SIZES},
    **{f"2 ping of {size} bytes": Case(frame(PING, b"p" * size), ((PONG, b"p" * size),)) for size in (0, 1, 125)},
    "2.5 ping of 126 bytes": refused(frame(PING, b"p" * 126), 1002),
    "2.7 pong that nobody asked for": Case(frame(PONG, b"unasked") + frame(PING, b"x"), ((PONG, b"x"),)),
    "2.10 ten pings, each answered in order": Case(
        b"".join(frame(PING, b"%d" % number) for number in range(10)),
        tuple((PONG, b"%d" % number) for number in range(10)),
    ),
    **{f"3 reserved bits {bits}": refused(frame(TEXT, b"x", rsv=bits), 1002) for bits in range(1, 8)},
    **{f"4.1 reserved opcode {number}": refused(frame(number, b"x"), 1002) for number in range(0x3, 0x8)},
    **{f"4.2 reserved control opcode {number}": refused(frame(number), 1002) for number in range(0xB, 0x10)},
    "5.1 ping in fragments": refused(frame(PING, b"x", fin=False) + frame(CONTINUATION, b"y"), 1002),
    "5.2 pong in fragments": refused(frame(PONG, b"x", fin=False) + frame(CONTINUATION, b"y"), 1002),
    "5.3 text in two fragments": Case(pieces(TEXT, b"frag", b"ment"), ((TEXT, b"fragment"),)),
    "5.4 binary in three, one empty": Case(pieces(BINARY, b"\x00", b"", b"\xff"), ((BINARY, b"\x00\xff"),)),
    "5.6 a ping between fragments is answered at once": Case(
        frame(TEXT, b"frag", fin=False) + frame(PING, b"now") + frame(CONTINUATION, b"ment"),
        ((PONG, b"now"), (TEXT, b"fragment")),
    ),
    "5.9 a continuation of nothing": refused(frame(CONTINUATION, b"x"), 1002),
    "5.12 a continuation that is not the last, of nothing": refused(frame(CONTINUATION, b"x", fin=False), 1002),
    "5.18 a message inside another": refused(frame(TEXT, b"x", fin=False) + frame(TEXT, b"y"), 1002),
    "6.2 UTF-8 cut between fragments": Case(pieces(TEXT, KOSME[:CUT], KOSME[CUT:]), ((TEXT, KOSME),)),
    "6.2 UTF-8 in fragments of one byte": Case(pieces(TEXT, *(bytes([b]) for b in KOSME)), ((TEXT, KOSME),)),
    "6.3 text that is not UTF-8": refused(frame(TEXT, b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), 1007),
    "6.4 not UTF-8 in the second of two fragments": refused(pieces(TEXT, KOSME, b"\xf4\x90\x80\x80"), 1007),
    "6.6 a character that never ends": refused(frame(TEXT, b"\xf0\x90\x80"), 1007),
    "6.12 overlong": refused(frame(TEXT, b"\xc0\xaf"), 1007),
    "6.16 half of a surrogate pair": refused(frame(TEXT, b"\xed\xa0\x80"), 1007),
    "6.22 what is no character is text all the same": echoed(TEXT, "\ufffe\uffff".encode()),
    "7.1.1 a ping, then a close": refused(frame(PING, b"last") + closing(code(1000)), 1000, back=((PONG, b"last"),)),
    "7.1.4 what follows a close is not heard": refused(closing(code(1000)) + frame(TEXT, b"too late"), 1000),
    "7.3.1 a close without a code": refused(closing(b""), 1000, 1005),
    "7.3.2 a close with half a code": refused(closing(b"\x03"), 1002),
    "7.3.5 a close with a reason of 123 bytes": refused(closing(code(1000, b"*" * 123)), 1000),
    "7.3.6 a close that is too long": refused(closing(code(1000, b"*" * 124)), 1002),
    "7.5.1 a close whose reason is not UTF-8": refused(closing(code(1000, b"\xed\xa0\x80")), 1007),
    **{f"7.7 close {number}": refused(closing(code(number)), number) for number in (1000, 1001, 1011, 3000, 4999)},
    **{
        f"7.9 close {number}, which nobody may send": refused(closing(code(number)), 1002)
        for number in (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535)
    },
    "9.1 one byte over the limit": refused(frame(TEXT, b"*" * (MAX_MESSAGE_BYTES + 1)), 1009),
    "9.3 over the limit in fragments": refused(pieces(BINARY, *[b"*" * 65_536] * 5), 1009),
    "9.5 a terabyte that is only declared": refused(bytes([0x82]) + declared(1 << 40) + b"mask", 1009),
    "10.2 the top bit of a length": refused(bytes([0x82]) + declared(1 << 63) + b"mask", 1002, 1009),
    "10.3 a frame without a mask": refused(frame(TEXT, b"x", masked=False), 1002),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["epoll", "asgi"])
async def echo(request: pytest.FixtureRequest) -> AsyncIterator[Echo]:
    """The echo, for each way that a connection can be held."""
    async with serving_echo(request.param, max_message_bytes=MAX_MESSAGE_BYTES) as echo:
        yield echo


@pytest.mark.parametrize("cut", [0, 1], ids=["at once", "byte by byte"])
@pytest.mark.parametrize("name", CASES)
async def test_frames_are_answered_as_the_rfc_has_it(echo: Echo, name: str, cut: int) -> None:
    case = CASES[name]
    if cut and len(case.sent) > 1000:
        return  # the same paths as the small ones, a byte at a time
    raw = await _connected(echo)
    for at in range(0, len(case.sent), cut or len(case.sent)):
        await raw.send(case.sent[at : at + (cut or len(case.sent))])
    back = [await raw.message() for _ in case.back]
    if 0 in case.closes:
        await raw.send(closing(code(1000)))
    closed_with = await raw.close_code()
    raw.close()

    assert tuple(back) == case.back
    assert closed_with in (case.closes - {0} or {1000})


async def test_a_chop_of_any_size_changes_nothing(echo: Echo) -> None:
    message = b"".join(frame(TEXT, b"%d" % number * 50) for number in range(20))
    for size in (1, 2, 3, 7, 64, 1000):
        raw = await _connected(echo)
        for at in range(0, len(message), size):
            await raw.send(message[at : at + size])
        back = [await raw.message() for _ in range(20)]
        raw.close()

        assert back == [(TEXT, b"%d" % number * 50) for number in range(20)]


async def test_compression_is_not_agreed_to(echo: Echo) -> None:
    async with connect(echo.ws_url, compression="deflate") as socket:
        await socket.send("plain")

        assert socket.protocol.extensions == []
        assert await socket.recv() == "plain"


async def test_no_echo_without_a_credential(echo: Echo) -> None:
    async with connect(echo.ws_url.partition("?")[0]) as socket:
        await socket.wait_closed()

    assert socket.close_code == 4008


async def _connected(echo: Echo) -> RawSocket:
    return await RawSocket.upgraded(echo, echo.path)
