"""A client that nobody here wrote: npm `eventsource`, which reconnects and resumes by itself as a browser does."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared.contracts.ids import new_id
from tests.support.edges import ROOT, Edges, both_engines
from tests.support.producer import Producer
from tests.support.proxy import Proxy

CLIENT = ROOT / "tests" / "clients" / "stream.mjs"
NASTY = [
    "\r\n\r\ndata: {}",
    "\n",
    "\r",
    "\0",
    "\u2028\u2029\x85",
    "\ufeffbom",
    "id: 5",
    ": comment",
    "\U0001f600",
    " ",
    '"\\',
]


class NodeClient:
    """The client's process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.titles: list[str] = []
        self.types: list[str] = []

    async def next(self) -> dict[str, Any]:
        """Return what it says next: `open`, `error`, or an event with its data parsed."""
        assert self._process.stdout is not None
        async with asyncio.timeout(15):
            line = await self._process.stdout.readline()
        said: dict[str, Any] = json.loads(line)
        if "data" in said:
            said["data"] = json.loads(said["data"])
            self.types.append(said["data"]["type"])
            if said["data"]["type"] == "notification":
                self.titles.append(said["data"]["title"])
        return said

    async def until(self, key: str, value: object) -> dict[str, Any]:
        """Return the first line that has this, at its top or in its data."""
        while True:
            said = await self.next()
            if value in (said.get(key), said.get("data", {}).get(key)):
                return said


@asynccontextmanager
async def node_client(url: str, token: str, *named: str) -> AsyncIterator[NodeClient]:
    """Run the client against the stream at `url`."""
    node = shutil.which("node")
    assert node is not None, "Node.js 20 runs this client: see CONTRIBUTING.md"
    process = await asyncio.create_subprocess_exec(
        node, str(CLIENT), url, token, *named, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield NodeClient(process)
    finally:
        process.kill()
        await process.communicate()


@both_engines
async def test_s7_it_resumes_by_itself_at_another_edge_when_its_own_is_drained(
    edges: Edges, producer: Producer
) -> None:
    a, b = await edges.process("notifications", RETRY_MS="100"), await edges.notifications(retry_ms=100)
    user, topic = new_id("u"), new_id("t")
    async with (
        Proxy(a.url) as balancer,
        node_client(f"{balancer.url}/api/stream?topics={topic}", edges.mint.token(user)) as client,
    ):
        assert (await client.until("type", "connected"))["data"]["stream"].startswith(a.name)
        await producer.notify(f"notify.user.{user}", "1")
        await producer.notify(f"notify.topic.{topic}", "2")
        await client.until("title", "2")
        balancer.target = b.url
        a.signal(signal.SIGTERM)
        await client.until("type", "reconnect")
        await producer.notify(f"notify.user.{user}", "3", "4")
        await producer.notify(f"notify.topic.{topic}", "5")
        assert (await client.until("type", "connected"))["data"]["stream"].startswith(b.name)
        await producer.notify(f"notify.user.{user}", "end")
        while len(client.titles) < 6:  # the order holds within a subject
            await client.next()

        assert sorted(client.titles) == ["1", "2", "3", "4", "5", "end"]
        assert "gap" not in client.types
        assert "resync" not in client.types
        assert await a.process.wait() == 0


async def test_s3_it_reads_every_title_as_it_was_sent(edges: Edges, producer: Producer) -> None:
    edge, user = await edges.notifications(), new_id("u")
    url = f"{edge.url}/api/stream?events=named"
    async with node_client(url, edges.mint.token(user), "connected", "notification") as client:
        assert (await client.until("type", "connected"))["event"] == "connected"
        await producer.notify(f"notify.user.{user}", *NASTY, "end")
        await client.until("title", "end")

        assert client.titles == [*NASTY, "end"]


async def test_s5_it_is_told_401_and_does_not_hammer(edges: Edges) -> None:
    edge = await edges.notifications()
    async with node_client(f"{edge.url}/api/stream", "nonsense") as client:
        assert (await client.next()) == {"error": 401}
    assert edge.count("http_requests", service="notifications", method="GET", status="401") == 1
