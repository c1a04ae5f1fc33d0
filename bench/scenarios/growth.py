"""growth: what a connection and a delivery cost as there are more of them, in one process and over several edges.

In one process the same edge gets more and more clients. Over several edges each has as many clients as the others, all
in one room, and what is said at one edge goes through NATS to all. The figures should be flat: then cost grows with
the work and with nothing else. Every size gets about as many deliveries; a message to few clients shares what it costs
to publish among few, so cost a delivery may fall as a room grows, and must not rise.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from bench import fanfare
from bench.load import Crowd, content
from bench.machine import cpu_s, settled_rss_bytes
from bench.report import Check, Figures, Report, Row
from bench.servers import Server

NAME = "growth"
SETTINGS = {"HEARTBEAT_S": "600"}
"""To ping fifteen thousand who are in, while others connect, is no part of what a connect costs."""
WARM_UP = 300
CONTENT_BYTES = 200
FEWEST_MESSAGES = 5
RATIO, QUICK_RATIO = 1.2, 2.0


@dataclass(frozen=True)
class Size:
    """How far it grows.

    Attributes:
        clients: of one process, step by step.
        edges, clients_each: how many edges, and the clients of each.
        deliveries: at each size, about.
    """

    clients: Sequence[int]
    edges: Sequence[int]
    clients_each: int
    deliveries: int


QUICK = Size((500, 2_000), (1, 2), 500, 20_000)
FULL = Size((1_000, 5_000, 10_000, 15_000), (1, 2, 4), 4_000, 150_000)


@dataclass
class Growing:
    """An edge that gets more clients.

    Attributes:
        resting_bytes: its memory after the warm-up.
    """

    server: Server
    crowd: Crowd
    resting_bytes: int = 0

    async def warm_up(self) -> None:
        """Bring in the first clients, with whom come the code paths and pools that all later ones share."""
        await self.crowd.connect(range(WARM_UP))
        self.resting_bytes = await settled_rss_bytes(self.server.pid)

    async def grow_to(self, clients: int, deliveries: int) -> Figures:
        """Bring in as many more as are wanted beyond the warm-up, and deliver to all."""
        known = len(self.crowd.clients)
        fresh = self.crowd.prepare(range(known, WARM_UP + clients))
        before_s = cpu_s(self.server.pid)
        await self.crowd.enter(fresh)
        connect_s = cpu_s(self.server.pid) - before_s
        rss = await settled_rss_bytes(self.server.pid) - self.resting_bytes
        spent = await _speak([self.server], [self.crowd], deliveries)
        each = {"rss_kib_per_connection": rss / clients / 1024, "cpu_us_per_connect": connect_s / len(fresh) * 1e6}
        return spent | each | {"clients": clients}


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Grow one process of each transport, then the number of edges."""
    size = QUICK if quick else FULL
    for name in (fanfare.WEBSOCKET, fanfare.SSE):
        report.rows += await _one_process(name, size, directory / name.replace(" ", "-"))
    for edges in size.edges:
        report.rows.append(await _several_edges(edges, size, directory / f"{edges}-edges"))
    report.checks += _checks(
        {row.server: row.figures for row in report.rows if row.scenario == NAME}, size, quick=quick
    )


async def _one_process(name: str, size: Size, directory: Path) -> list[Row]:
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory, **SETTINGS))
        server = await (suite.notifications() if name == fanfare.SSE else suite.chat())
        growing = Growing(server, Crowd(name, server.door))
        stack.callback(growing.crowd.close)
        await growing.warm_up()
        return [
            Row(NAME, _in_process(name, clients), server.version, await growing.grow_to(clients, size.deliveries))
            for clients in size.clients
        ]


async def _several_edges(edges: int, size: Size, directory: Path) -> Row:
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory, **SETTINGS))
        servers = [await suite.chat() for _ in range(edges)]
        crowds = [Crowd(f"edge {number}", server.door) for number, server in enumerate(servers)]
        for number, crowd in enumerate(crowds):
            stack.callback(crowd.close)
            await crowd.connect(range(number * size.clients_each, (number + 1) * size.clients_each))
        await _speak(servers, crowds, 0)
        figures = await _speak(servers, crowds, size.deliveries)
    return Row(NAME, _over_edges(edges), servers[0].version, figures | {"clients": edges * size.clients_each})


async def _speak(servers: Sequence[Server], crowds: Sequence[Crowd], deliveries: int) -> Figures:
    """Say something at the first server, one message after another, until about so many deliveries have been made."""
    clients = sum(len(crowd.clients) for crowd in crowds)
    messages = max(FEWEST_MESSAGES, deliveries // clients)
    pids, nats, until_all_s = [server.pid for server in servers], servers[0].beside["nats-server"], []
    for crowd in crowds:
        crowd.count_anew()
    edges_s, nats_s = sum(map(cpu_s, pids)), cpu_s(nats)
    for number in range(1, messages + 1):
        began_s = time.perf_counter()
        await servers[0].publish(content(CONTENT_BYTES))
        for crowd in crowds:
            await crowd.reach(number * len(crowd.clients))
        until_all_s.append(max(crowd.last_at_s for crowd in crowds) - began_s)
    for crowd in crowds:
        crowd.check_each_got(messages)
    return {
        "cpu_us_per_delivery": (sum(map(cpu_s, pids)) - edges_s) / (messages * clients) * 1e6,
        "nats_us_per_message": (cpu_s(nats) - nats_s) / messages * 1e6,
        "until_all_ms_p50": statistics.median(until_all_s) * 1e3,
    }


def _checks(figures: dict[str, Figures], size: Size, *, quick: bool) -> list[Check]:
    """Compare the largest with the second: the first is small enough for a few KiB, or a publishing, to show."""
    bound, checks = QUICK_RATIO if quick else RATIO, []
    large, small = size.clients[-1], size.clients[min(1, len(size.clients) - 2)]
    for name in (fanfare.WEBSOCKET, fanfare.SSE):
        for figure in ("cpu_us_per_delivery", "rss_kib_per_connection", "cpu_us_per_connect"):
            ratio = figures[_in_process(name, large)][figure] / figures[_in_process(name, small)][figure]
            checks.append(Check(f"{name}, {figure} at {large:,} clients / at {small:,}", ratio, bound))
    many, one = size.edges[-1], size.edges[0]
    ratio = figures[_over_edges(many)]["cpu_us_per_delivery"] / figures[_over_edges(one)]["cpu_us_per_delivery"]
    return [*checks, Check(f"CPU a delivery, {many} edges / {one}", ratio, bound)]


def _in_process(name: str, clients: int) -> str:
    return f"{name}, {clients:,}"


def _over_edges(edges: int) -> str:
    return f"{fanfare.WEBSOCKET}, {edges} {'edge' if edges == 1 else 'edges'}"
