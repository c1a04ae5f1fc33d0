"""The NATS server that a process starts for itself."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.broker.provision import provision
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.errors import Unavailable
from shared.runtime.embedded import EmbeddedNats

CHILD = """
import asyncio, pathlib, sys
from shared.runtime.embedded import EmbeddedNats
async def main():
    async with EmbeddedNats(pathlib.Path(sys.argv[1])) as server:
        print(server.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_it_runs_on_a_free_port_and_ends_with_its_context(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        broker = await JetStreamBroker.connect(server.url, name="test")
        await broker.check()
        await broker.close()
        pid = server.pid

    assert not _runs(pid)


async def test_its_data_is_there_again_at_the_next_start(tmp_path: Path) -> None:
    room = subjects.chat_message(new_id())
    async with EmbeddedNats(tmp_path) as server:
        await provision(server.url)
        broker = await JetStreamBroker.connect(server.url, name="test")
        appended = await broker.append(room, b"x", msg_id=new_id())
        await broker.close()

    async with EmbeddedNats(tmp_path) as server:
        broker = await JetStreamBroker.connect(server.url, name="test")
        assert await broker.last_seq(subjects.CHAT, room) == appended.seq
        await broker.close()


async def test_a_port_that_is_taken_is_said_clearly(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(Unavailable, match=f"{port}.*address already in use"):
            await EmbeddedNats(tmp_path, port=port).start()


async def test_a_configuration_that_is_refused_is_said_clearly(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no_such_setting"):
        await EmbeddedNats(tmp_path, extra_config="no_such_setting: 1").start()


async def test_it_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", CHILD, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    await parent.wait()

    async with asyncio.timeout(10):
        while _runs(pid):
            await asyncio.sleep(0.01)


async def test_whoever_waits_for_its_end_hears_of_it(tmp_path: Path) -> None:
    async with EmbeddedNats(tmp_path) as server:
        os.kill(server.pid, signal.SIGKILL)

        async with asyncio.timeout(10):
            assert await server.ended() == -signal.SIGKILL


def _runs(pid: int) -> bool:
    """Say whether a process runs; one that ended and waits for its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
