"""Servers to measure: each a process with a door for clients and a way to publish, started and ended by the bench."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from bench.load import BenchFailed, Door
from tests.support.edges import free_port

START_TIMEOUT_S = 30.0
POLL_S = 0.02

Publish = Callable[[str], Awaitable[None]]
"""Have a text reach every client, and return when the server has taken it."""


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        name: what the tables call it.
        version: of it and of what it stands on.
        pid: whose processor time and memory are its cost.
        door: how clients get in, all into one room.
        publish: sends to that room.
        beside: processes that work for it and are counted apart, by name.
    """

    name: str
    version: str
    pid: int
    door: Door
    publish: Publish
    beside: dict[str, int] = field(default_factory=dict)


@asynccontextmanager
async def running(
    command: list[str], environment: Mapping[str, str], *, cwd: Path, log: Path
) -> AsyncIterator[tuple[int, int]]:
    """Run a server whose last argument is its port, until the block ends; yields its process id and its port.

    `environment` is what it is told besides what is in this process's.

    Raises:
        BenchFailed: it does not listen; the message has its last words.
    """
    port = free_port()
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            str(port),
            cwd=cwd,
            env=os.environ | environment,  # noqa: TID251  # the child needs PATH and HOME as well
            stdout=output,
            stderr=output,
        )
    try:
        if not await _listens(process, port):
            raise BenchFailed(f"{command[0]} ended at its start: {_last_words(log)}")
        yield process.pid, port
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def poster(stack: AsyncExitStack, port: int, post: Callable[[str], tuple[str, str]]) -> Publish:
    """Return how to publish on a peer; `post` says at which path and in which body."""
    client = await stack.enter_async_context(httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60))

    async def publish(text: str) -> None:
        path, body = post(text)
        (await client.post(path, content=body)).raise_for_status()

    return publish


async def _listens(process: asyncio.subprocess.Process, port: int) -> bool:
    """Return whether the process came to listen, once it does or has ended."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(POLL_S)
            else:
                writer.close()
                return True
    return False


def _last_words(log: Path) -> str:
    return log.read_text()[-500:]
