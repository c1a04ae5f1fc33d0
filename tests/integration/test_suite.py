"""The suite in one process as `make run` starts it, and each service in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
from httpx_sse import aconnect_sse
from websockets.asyncio.client import connect

from tests.support.edges import ROOT, Edges, until_ready
from tests.support.producer import connected

MAX_STOP_S = 10
WELCOME_END = "Ctrl-C stops everything."


async def start(tmp_path: Path, **environment: str) -> asyncio.subprocess.Process:
    variables = {"PORT": "0", "NATS_PORT": "0", "FANFARE_DATA": str(tmp_path / "data")} | environment
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services",
        cwd=ROOT,
        env=os.environ | variables,  # noqa: TID251  # the child needs PATH and HOME as well
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@dataclass
class Running:
    """A suite, as its welcome describes it."""

    process: asyncio.subprocess.Process
    url: str
    nats_url: str
    user: str
    password: str
    user_id: str
    nats_pid: int


@asynccontextmanager
async def running(tmp_path: Path, **environment: str) -> AsyncIterator[Running]:
    """Start a suite with a broker of its own, and read what it tells a newcomer."""
    process = await start(tmp_path, **environment)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            said = (await process.stdout.readuntil(WELCOME_END.encode())).decode()
        found = re.search(r"up at (\S+)\s+Log in as (\S+) with the password (\S+),", said)
        told = re.search(r"nats pub -s (\S+) notify\.user\.(\S+) ", said)
        assert found is not None, said
        assert told is not None, said
        (nats_pid,) = nats_pids(tmp_path)
        yield Running(process, *(found[1], told[1]), found[2], found[3], told[2], nats_pid)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def nats_pids(tmp_path: Path) -> list[int]:
    """Return the processes whose NATS servers listen, as their ports files are named."""
    return [int(ports.stem.rpartition("_")[2]) for ports in (tmp_path / "data" / "nats").glob("*.ports")]


async def test_the_suite_runs_on_a_cluster_of_its_own_and_lives_through_the_loss_of_any_node(tmp_path: Path) -> None:
    process = await start(tmp_path, NATS_NODES="3")
    assert process.stdout is not None
    try:
        async with asyncio.timeout(45):
            said = (await process.stdout.readuntil(WELCOME_END.encode())).decode()
        url = re.search(r"up at (\S+)", said)
        assert url is not None, said
        nodes = sorted((tmp_path / "data" / "nats-cluster").glob("*/*.ports"))
        assert len(nodes) == 3
        os.kill(int(nodes[0].stem.rpartition("_")[2]), signal.SIGKILL)
        async with httpx.AsyncClient(base_url=url[1]) as http:
            await until_ready(http)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(MAX_STOP_S):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def test_the_suite_starts_alone_does_what_it_says_and_leaves_nothing_behind(tmp_path: Path) -> None:
    async with running(tmp_path) as suite, httpx.AsyncClient(base_url=suite.url) as http:
        assert (await http.get("/readyz")).status_code == 200
        login = await http.post("/api/auth/login", json={"username": suite.user, "password": suite.password})
        assert login.status_code == 200, login.text
        assert login.json()["user"]["id"] == suite.user_id
        headers = {"authorization": f"Bearer {login.json()['access_token']}"}

        await chats(suite, headers)
        await sees_prices_and_notifications(suite, http, headers)

        began = time.monotonic()
        suite.process.send_signal(signal.SIGINT)
        async with asyncio.timeout(MAX_STOP_S):
            _, complaints = await suite.process.communicate()
        assert suite.process.returncode == 0, complaints.decode()
        assert time.monotonic() - began < MAX_STOP_S
        assert complaints == b""
        assert not Path(f"/proc/{suite.nats_pid}").exists()


async def test_the_suite_starts_its_nats_server_again_when_that_has_crashed(tmp_path: Path) -> None:
    async with running(tmp_path) as suite, httpx.AsyncClient(base_url=suite.url) as http:
        login = await http.post("/api/auth/login", json={"username": suite.user, "password": suite.password})
        headers = {"authorization": f"Bearer {login.json()['access_token']}"}
        os.kill(suite.nats_pid, signal.SIGKILL)
        async with asyncio.timeout(30):
            while nats_pids(tmp_path) in ([], [suite.nats_pid]):
                await asyncio.sleep(0.02)
        await until_ready(http)

        await chats(suite, headers)
        await sees_prices_and_notifications(suite, http, headers)
        suite.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(MAX_STOP_S):
            _, complaints = await suite.process.communicate()

    assert suite.process.returncode == 0
    assert b"nats_server_ended" in complaints


async def chats(suite: Running, headers: dict[str, str]) -> None:
    """Say something in the room that everybody is in, and hear it."""
    ws_url = suite.url.replace("http", "ws", 1)
    async with connect(f"{ws_url}/ws/chat", additional_headers=headers) as socket_, asyncio.timeout(10):
        await socket_.send(json.dumps({"type": "send_message", "data": {"content": "hello"}}))
        async for raw in socket_:
            frame = json.loads(raw)
            if frame["type"] == "chat_message" and frame["data"]["content"] == "hello":
                assert frame["data"]["userId"] == suite.user_id
                return
    raise AssertionError("the chat ended without the message")


async def sees_prices_and_notifications(suite: Running, http: httpx.AsyncClient, headers: dict[str, str]) -> None:
    """Watch a price move, be notified by a program outside the suite, and be asked to leave by nobody."""
    listed = (await http.get("/api/stocks", headers=headers)).json()["symbols"]
    watched = ",".join(each["symbol"] for each in listed[:20])
    moved: dict[str, set[float]] = {}
    async with (
        connected(suite.nats_url) as producer,
        aconnect_sse(http, "GET", f"/api/stream?symbols={watched}", headers=headers, timeout=20) as stream,
        asyncio.timeout(20),
    ):
        async for event in stream.aiter_sse():
            data = json.loads(event.data) if event.data else {}
            if data.get("type") == "connected":
                await producer.publish(f"notify.user.{suite.user_id}", {"title": "hi"})
            if data.get("type") == "price_update":
                moved.setdefault(data["symbol"], set()).add(data["price"])
            if data.get("type") == "notification":
                moved.setdefault("notified", {0.0, 1.0})
                assert data["title"] == "hi"
            if "notified" in moved and len([prices for prices in moved.values() if len(prices) > 1]) > 1:
                return
    raise AssertionError(f"the stream ended with {moved}")


async def refused(tmp_path: Path, **environment: str) -> tuple[int, str]:
    """Return the status and the words with which the suite does not start."""
    process = await start(tmp_path, **environment)
    try:
        async with asyncio.timeout(40):
            _, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_a_wrong_setting_is_refused_in_one_line(tmp_path: Path) -> None:
    wrong = [
        ("PORT", {"PORT": "abc"}),
        ("FANFARE_LIMITS=off", {"FANFARE_LIMITS": "off", "FANFARE_ENV": "production"}),
        ("TRUSTED_PROXIES=*", {"TRUSTED_PROXIES": "*"}),
        ("HEARTBEAT_S", {"HEARTBEAT_S": "soon"}),
    ]
    answers = await asyncio.gather(
        *(refused(tmp_path / str(number), **environment) for number, (_, environment) in enumerate(wrong))
    )
    for (named, environment), (status, said) in zip(wrong, answers, strict=True):
        assert status == 2, (environment, said)
        assert re.fullmatch(r"fanfare: .*\n", said), said
        assert named in said


async def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        answers = await asyncio.gather(refused(tmp_path / "a", PORT=port), refused(tmp_path / "b", NATS_PORT=port))
    for status, said in answers:
        assert status == 1
        assert re.fullmatch(r"fanfare: .*\n", said), said
        assert port in said
        assert "address already in use" in said.lower()


async def test_each_service_alone_becomes_ready_and_stops_when_told(edges: Edges, tmp_path: Path) -> None:
    environment = {"auth": {"DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path}/auth.db"}}
    names = ["auth", "chat", "notifications", "price_feed"]
    processes = await asyncio.gather(*(edges.process(name, **environment.get(name, {})) for name in names))
    for process in processes:
        metrics = (await process.http.get("/metrics")).text
        assert "fanfare_http_requests_total" in metrics
        process.signal(signal.SIGTERM)
    async with asyncio.timeout(MAX_STOP_S):
        for process in processes:
            assert await process.process.wait() == 0, process.log.read_text()
