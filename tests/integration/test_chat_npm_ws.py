"""The chat as a client of another maker meets it: npm `ws`, in a process of its own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from shared.contracts.ids import new_id
from tests.integration.conftest import Pair
from tests.support.clients import chat_client

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCRIPT = Path(__file__).parents[1] / "clients" / "chat.mjs"
DEADLINE_S = 10.0


class NodeClient:
    """`tests/clients/chat.mjs`, running."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def do(self, **command: Any) -> None:
        """Have it do something."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        await self._process.stdin.drain()

    async def next(self, what: str, type_: str = "") -> Any:
        """Return the next thing of a kind that it tells; a frame of a type, if one is named."""
        assert self._process.stdout is not None
        async with asyncio.timeout(DEADLINE_S):
            while line := await self._process.stdout.readline():
                told = json.loads(line)
                if what in told and (not type_ or told[what]["type"] == type_):
                    return told[what]
        raise AssertionError(f"it ended before it told of {what} {type_}")


@asynccontextmanager
async def node_client(url: str, *headers: str) -> AsyncIterator[NodeClient]:
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), url, *headers, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield NodeClient(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_npm_ws_authenticates_by_frame_and_chats_in_text_and_binary(pair: Pair) -> None:
    room, user = new_id("room-"), new_id("user-")
    async with (
        chat_client(pair.b, new_id("user-"), rooms=[room]) as other,
        node_client(f"{pair.a.ws_url}/ws/chat?room={room}") as client,
    ):
        assert await client.next("open") == ""
        await client.do(send={"type": "auth", "token": pair.mint.token(user)})
        assert (await client.next("frame", "connected"))["data"]["userId"] == user
        data = {"userId": user, "content": "from node ✓", "timestamp": 1_700_000_000_000}
        await client.do(send={"type": "send_message", "data": data})
        ack = await client.next("frame", "ack")
        assert (await other.hears("from node ✓"))["id"] == ack["data"]["id"]
        await client.do(binary={"type": "send_message", "data": data | {"content": "binary"}})
        await other.hears("binary")
        await other.say("to node")
        while (await client.next("frame", "chat_message"))["data"]["content"] != "to node":
            pass
        await client.do(ping="are you there?")
        assert await client.next("pong") == "are you there?"
        await client.do(close=[1000, "done"])
        assert (await client.next("closed"))[0] == 1000


async def test_npm_ws_sees_why_it_is_refused(pair: Pair) -> None:
    async with node_client(f"{pair.a.ws_url}/ws/chat", "Authorization", "Bearer nonsense") as client:
        error = await client.next("frame", "error")
        code, reason = await client.next("closed")

        assert (error["data"]["code"], code) == ("unauthorized", 4008)
        assert reason


async def test_npm_ws_sees_the_code_of_a_frame_that_is_too_large(pair: Pair) -> None:
    token = pair.mint.token(new_id("user-"))
    async with node_client(f"{pair.a.ws_url}/ws/chat", "Authorization", f"Bearer {token}") as client:
        await client.next("frame", "connected")
        await client.do(send={"type": "ping", "x": "x" * 100_000})

        assert (await client.next("frame", "error"))["data"]["code"] == "too_large"
        assert (await client.next("closed"))[0] == 4013
