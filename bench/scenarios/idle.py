"""idle: what a connection costs that nothing is sent to: memory at rest, and the processor time to get in.

Servers run one after another, alone. The first WARM_UP clients of each are not counted: with them come the code paths,
the pools and the arenas that all later ones share.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench import fanfare
from bench.load import Crowd
from bench.machine import cpu_s, settled_rss_bytes, slab_bytes
from bench.peers import (
    CENTRIFUGE,
    CENTRIFUGO,
    CHANNELS,
    NODE_WS,
    PYTHON_SOCKETIO,
    SOCKETIO,
    STOCK_SSE,
    STOCK_WEBSOCKET,
    UWEBSOCKETS,
    make_peers,
)
from bench.report import Check, Report, Row
from bench.servers import Server

NAME = "idle"
WARM_UP = 300
QUICK_CLIENTS = (2_000,)
FULL_CLIENTS = (1_000, 5_000, 10_000, 15_000)
PEER_CLIENTS = 5_000
QUICK_PEERS = (STOCK_WEBSOCKET, STOCK_SSE)
PEERS = (UWEBSOCKETS, NODE_WS, SOCKETIO, CENTRIFUGO, CENTRIFUGE, *QUICK_PEERS, PYTHON_SOCKETIO, CHANNELS)
SMALL_ROOM = 10
IN_ROOMS = "Fanfare WebSocket, rooms of 10"
QUICK_NAMES, NAMES = (fanfare.WEBSOCKET, fanfare.SSE), (fanfare.WEBSOCKET, IN_ROOMS, fanfare.SSE)
BOUNDS = {  # KiB of RSS a connection, us of CPU a connect, at BOUNDED_CLIENTS
    fanfare.WEBSOCKET: (1.2, 300.0),
    fanfare.SSE: (1.0, 300.0),
}
BOUNDED_CLIENTS = 10_000
QUICK_BOUNDS = {  # KiB of RSS a connection, and CPU a connect as a multiple of a stock server's, which checks no token
    fanfare.WEBSOCKET: (1.5, STOCK_WEBSOCKET.name, 0.9),
    fanfare.SSE: (1.6, STOCK_SSE.name, 0.7),
}
"""What must not get worse; the quick run is too small and too noisy to hold the goals against."""


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Measure Fanfare at each number of clients, and the peers at one."""
    rows: list[Row] = []
    for index, clients in enumerate(QUICK_CLIENTS if quick else FULL_CLIENTS):
        rows += await _measure_fanfare(directory / str(index), clients, QUICK_NAMES if quick else NAMES)
    for peer in await make_peers(QUICK_PEERS if quick else PEERS):
        async with peer.run(directory) as server:
            rows.append(await _measure(server, QUICK_CLIENTS[0] if quick else PEER_CLIENTS))
    report.rows += rows
    report.checks += _quick_checks(rows) if quick else _checks(rows)


async def _measure_fanfare(directory: Path, clients: int, names: Sequence[str]) -> list[Row]:
    """Measure Fanfare in the ways that are named, each in its own suite: what one leaves must not slow the next."""
    rows = []
    for name in names:
        async with AsyncExitStack() as stack:
            suite = await stack.enter_async_context(fanfare.fanfare(directory / name.replace(" ", "-")))
            if name == fanfare.SSE:
                server = await suite.notifications()
            elif name == IN_ROOMS:
                server = await suite.chat(lambda number: f"room-{number // SMALL_ROOM}")
            else:
                server = await suite.chat()
            rows.append(await _measure(server, clients, name))
    return rows


async def _measure(server: Server, clients: int, name: str = "") -> Row:
    crowd = Crowd(server.name, server.door)
    try:
        await crowd.connect(range(WARM_UP))
        rss_before, slab_before = await settled_rss_bytes(server.pid), slab_bytes()
        requests = crowd.prepare(range(WARM_UP, WARM_UP + clients))
        cpu_before, generator_before, began_s = cpu_s(server.pid), time.process_time(), time.perf_counter()
        await crowd.enter(requests)
        taken_s, generator_s = time.perf_counter() - began_s, time.process_time() - generator_before
        connect_s = cpu_s(server.pid) - cpu_before
        rss = await settled_rss_bytes(server.pid) - rss_before
        slab = slab_bytes() - slab_before
        crowd.check_each_got(0)
    finally:
        crowd.close()
    figures = {
        "rss_kib_per_connection": rss / clients / 1024,
        "cpu_us_per_connect": connect_s / clients * 1e6,
        "connects_per_s": clients / taken_s,
        "generator_busy": generator_s / taken_s,
        "slab_kib_both_ends": slab / clients / 1024,
        "rss_mib_before": rss_before / 1024**2,
        "connections": clients,
    }
    return Row(NAME, name or server.name, server.version, figures)


def _checks(rows: list[Row]) -> list[Check]:
    checks = []
    for row in rows:
        if row.server in BOUNDS and row.figures["connections"] == BOUNDED_CLIENTS:
            kib, connect_us = BOUNDS[row.server]
            checks += [
                Check(f"{row.server}: KiB of RSS a connection", row.figures["rss_kib_per_connection"], kib),
                Check(f"{row.server}: us of CPU a connect", row.figures["cpu_us_per_connect"], connect_us),
            ]
    return checks


def _quick_checks(rows: list[Row]) -> list[Check]:
    figures = {row.server: row.figures for row in rows}
    checks = []
    for ours, (kib, theirs, ratio) in QUICK_BOUNDS.items():
        connect = figures[ours]["cpu_us_per_connect"] / figures[theirs]["cpu_us_per_connect"]
        checks += [
            Check(f"{ours}: KiB of RSS a connection", figures[ours]["rss_kib_per_connection"], kib),
            Check(f"CPU a connect, {ours} / {theirs}", connect, ratio),
        ]
    return checks
