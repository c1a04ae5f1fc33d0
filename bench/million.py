"""`python -m bench.million --connections N --edges K --seconds S`: how many idle connections this machine holds.

Each edge process gets as many clients as the others, at most MOST_EACH, and a holder process of its own for them, whose
clients come from a loopback address of their own (127.1.0.1, 127.1.0.2, …). Every client has a user and a token of its
own and follows one room, or one topic. When all are in, messages go out to all of them, and they rest for a while.

It climbs edge by edge, and stops before memory runs out. It counts as good if everybody who got in stayed, and got each
message once.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import uvloop

from bench import fanfare
from bench.fanfare import Fanfare
from bench.holder import Plan
from bench.load import BenchFailed, content
from bench.machine import (
    available_bytes,
    cpu_s,
    raise_descriptor_limit,
    rss_bytes,
    settled_rss_bytes,
    slab_bytes,
    socket_buffer_bytes,
)
from bench.report import Figures, Report, Row
from bench.servers import Server

NAME = "million"
MOST_EACH = 19_000
KEPT_FREE_BYTES = 3 << 30
MARGIN = 1.1
MESSAGES, CONTENT_BYTES = 5, 200
SLOWEST_CONNECTS_PER_S = 50
HEARD_TIMEOUT_S = 120.0
RARELY_PINGED = {"HEARTBEAT_S": "600"}
"""At the default of 25 s a million clients would be pinged 40,000 times a second: that is traffic, not rest."""
PATHS = {"websocket": f"/ws/chat?room={fanfare.ROOM}", "sse": f"/api/stream?topics={fanfare.TOPIC}"}
CHECKOUT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"


@dataclass
class Wing:
    """One edge with its clients, who are another process.

    Attributes:
        bare_rss_bytes: the edge's memory before its first client.
        heard_at_s: when all its clients had each message, on the monotonic clock.
        held, lost: how many are in, and were cut off.
    """

    edge: Server
    process: asyncio.subprocess.Process
    clients: int
    bare_rss_bytes: int
    held: int = 0
    lost: int = 0
    heard_at_s: list[float] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    listening: asyncio.Future[None] | None = None

    async def listen(self) -> None:
        """Take down what the holder says, until it ends."""
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            match line.split():
                case [b"held", held]:
                    self.held = int(held)
                case [b"lost", lost]:
                    self.lost = int(lost)
                case [b"heard", _, at_s]:
                    self.heard_at_s.append(float(at_s))
            self.changed.set()
        self.lost = self.lost or self.clients
        self.changed.set()

    async def until_held(self) -> None:
        """Return once all clients are in; raises BenchFailed if one is lost, or it takes too long."""
        await self._until(lambda: self.held == self.clients, self.clients / SLOWEST_CONNECTS_PER_S)

    async def until_heard(self, messages: int) -> None:
        """Return once all clients have so many messages; raises BenchFailed likewise."""
        await self._until(lambda: len(self.heard_at_s) >= messages, HEARD_TIMEOUT_S)

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                while not holds() and not self.lost:
                    self.changed.clear()
                    await self.changed.wait()
        except TimeoutError:
            raise BenchFailed(f"{self.held} of {self.clients} in, {len(self.heard_at_s)} messages heard") from None
        if self.lost:
            raise BenchFailed(f"{self.lost} of {self.clients} clients were cut off")


@dataclass
class Climb:
    """The machine as it fills.

    Attributes:
        stopped_by: what ended the climb.
        connecting_s: how long clients were on their way in, without the starts of edges.
    """

    suite: Fanfare
    stack: AsyncExitStack
    transport: str
    wings: list[Wing] = field(default_factory=list)
    stopped_by: str = ""
    connecting_s: float = 0.0

    @property
    def held(self) -> int:
        """How many are in."""
        return sum(wing.held for wing in self.wings)

    async def climb(self, connections: int, edges: int) -> None:
        """Add edges with their clients until there are enough, or memory would not do for another."""
        each = min(MOST_EACH, -(-connections // edges))
        while self.held < connections:
            before_bytes = available_bytes()
            await self._add(min(each, connections - self.held))
            left_bytes, rate_hz = available_bytes(), self.held / self.connecting_s
            state = f"{self.held:,} connections at {len(self.wings)} edges, {left_bytes / 2**30:.1f} GiB left"
            print(f"{state}, {rate_hz:,.0f} a second", flush=True)
            if left_bytes - MARGIN * (before_bytes - left_bytes) < KEPT_FREE_BYTES and self.held < connections:
                self.stopped_by = f"memory: another edge would leave less than {KEPT_FREE_BYTES >> 30} GiB"
                return
        self.stopped_by = "nothing: as many as were asked for"

    async def reach_all(self) -> list[float]:
        """Publish messages one by one; return how long each took until every client had it."""
        taken_s = []
        for number in range(1, MESSAGES + 1):
            began_s = time.perf_counter()
            await self.wings[0].edge.publish(content(CONTENT_BYTES))
            for wing in self.wings:
                await wing.until_heard(number)
            taken_s.append(max(wing.heard_at_s[-1] for wing in self.wings) - began_s)
        return taken_s

    async def rest(self, seconds: float) -> float:
        """Let all be idle; return how much of a core the edges used. Raises BenchFailed if one was cut off."""
        pids = [wing.edge.pid for wing in self.wings]
        before_s = sum(map(cpu_s, pids))
        await asyncio.sleep(seconds)
        for wing in self.wings:
            await wing.until_held()
        return (sum(map(cpu_s, pids)) - before_s) / seconds

    async def _add(self, clients: int) -> None:
        edge = await (self.suite.notifications() if self.transport == "sse" else self.suite.chat())
        number, secret = len(self.wings) + 1, self.suite.edges.mint.secret.hex()
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        plan = Plan(edge.door.port, address, self.held, clients, PATHS[self.transport], secret)
        bare_bytes, began_s = await settled_rss_bytes(edge.pid), time.perf_counter()
        wing = Wing(edge, await start_holder(plan), clients, bare_bytes)
        self.stack.push_async_callback(_end, wing.process)
        self.wings.append(wing)
        wing.listening = asyncio.ensure_future(wing.listen())
        await wing.until_held()
        self.connecting_s += time.perf_counter() - began_s


async def main() -> int:
    """Climb as far as asked, measure, and take everything down again; return the process's status."""
    arguments = _arguments()
    raise_descriptor_limit()
    this_task = asyncio.current_task()
    assert this_task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, this_task.cancel)
    report = Report(" ".join(["python -m bench.million", *sys.argv[1:]]))
    try:
        with tempfile.TemporaryDirectory(prefix="fanfare-bench-million-") as directory:
            async with AsyncExitStack() as stack:
                suite = await stack.enter_async_context(fanfare.fanfare(Path(directory), **RARELY_PINGED))
                report.rows.append(await _measure(Climb(suite, stack, arguments.transport), arguments))
    except (BenchFailed, TimeoutError, httpx.HTTPError) as error:
        report.void.append(f"{NAME}: {error or 'timed out'}")
    except asyncio.CancelledError:
        report.void.append(f"{NAME}: told to stop")  # by SIGTERM; all that was started has ended by now
    report.show()
    report.save(arguments.json)
    return 0 if report.good else 1


async def _measure(climb: Climb, arguments: argparse.Namespace) -> Row:
    available, slab, buffers = available_bytes(), slab_bytes(), socket_buffer_bytes()
    await climb.climb(arguments.connections, arguments.edges)
    reach_s = await climb.reach_all()
    idle_busy = await climb.rest(arguments.seconds)
    wings, held = climb.wings, climb.held
    edges_bytes = [rss_bytes(wing.edge.pid) for wing in wings]
    growth = sum(edges_bytes) - sum(wing.bare_rss_bytes for wing in wings)
    figures: Figures = {
        "connections": held,
        "edges": len(wings),
        "edge_rss_kib_per_connection": growth / held / 1024,
        "edges_rss_gib": sum(edges_bytes) / 2**30,
        "clients_rss_gib": sum(rss_bytes(wing.process.pid) for wing in wings) / 2**30,
        "slab_kib_per_connection": (slab_bytes() - slab) / held / 1024,
        "buffers_gib": (socket_buffer_bytes() - buffers) / 2**30,
        "machine_kib_per_connection": (available - available_bytes()) / held / 1024,
        "left_gib": available_bytes() / 2**30,
        "connects_per_s": held / climb.connecting_s,
        "reach_all_s": statistics.median(reach_s),
        "edges_busy_at_rest": idle_busy,
    }
    return Row(NAME, wings[0].edge.name, wings[0].edge.version, figures, note=f"stopped by {climb.stopped_by}")


async def start_holder(plan: Plan) -> asyncio.subprocess.Process:
    """Start a holder process; it ends by itself with this one."""
    command = [sys.executable, "-m", "bench.holder"]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=CHECKOUT, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    process.stdin.write(plan.to_line())
    return process


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
    await process.wait()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.million", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--connections", type=int, default=1_000_000)
    parser.add_argument("--edges", type=int, default=53, help=f"at most {MOST_EACH:,} connections each")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long they rest")
    parser.add_argument("--transport", choices=PATHS, default="websocket")
    parser.add_argument("--json", type=Path, default=RESULTS / "million.json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(uvloop.run(main()))
