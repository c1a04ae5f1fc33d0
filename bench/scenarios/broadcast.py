"""broadcast: one room, many clients. What one delivery costs a server, beside the cost of `send(2)` itself.

Servers run in groups of a few, with the same number of clients and messages of the same size on the wire. Each gets
one message in turn, and the next one only when all of its clients have got it; so whatever else the machine does
slows all of a group alike, and a ratio within a group holds where a time would not. Fanfare is in every group.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench import fanfare
from bench.load import BenchFailed, Crowd
from bench.machine import user_and_sys_s
from bench.peers import (
    CENTRIFUGE,
    CENTRIFUGO,
    CENTRIFUGO_HISTORY,
    CENTRIFUGO_NATS,
    CHANNELS,
    FLOOR,
    NODE_WS,
    PYTHON_SOCKETIO,
    SOCKETIO,
    STOCK_SSE,
    STOCK_WEBSOCKET,
    UWEBSOCKETS,
    Peer,
    make_peers,
)
from bench.report import Check, Report, Row
from bench.stand import Spent, Stand

NAME = "broadcast"
WARM_UPS = 3

GROUPS = (
    (FLOOR,),
    (UWEBSOCKETS, NODE_WS),
    (CENTRIFUGO, CENTRIFUGE),
    (CENTRIFUGO_NATS, CENTRIFUGO_HISTORY),
    (STOCK_WEBSOCKET, SOCKETIO),
    (PYTHON_SOCKETIO,),
    (CHANNELS,),
    (STOCK_SSE,),
)
"""Like with like, and at most three servers of 5,000 clients: the generator has 20,000 descriptors."""
QUICK_PEERS = (FLOOR, UWEBSOCKETS, NODE_WS, STOCK_WEBSOCKET, STOCK_SSE)


@dataclass(frozen=True)
class Size:
    """How much is delivered: clients of each server, messages to each client."""

    clients: int
    messages: int


FANFARE = (fanfare.WEBSOCKET, fanfare.SSE)
QUICK, FULL = Size(1_000, 60), Size(5_000, 20)
FULL_OF = {CHANNELS.name: Size(1_000, 20)}
"""A peer that cannot have as many. Channels' in-memory layer looks through all members of all groups whenever one of
them receives: with 5,000 a message takes half a minute, and what daphne pings meanwhile is cut off."""

BOUNDS = {
    (fanfare.WEBSOCKET, FLOOR.name): (1.15, 1.9),
    (fanfare.SSE, FLOOR.name): (1.15, 1.9),
    (fanfare.WEBSOCKET, UWEBSOCKETS.name): (1.12, 1.9),
    (fanfare.WEBSOCKET, NODE_WS.name): (0.70, 1.3),
    (fanfare.WEBSOCKET, STOCK_WEBSOCKET.name): (0.50, 0.85),
    (fanfare.SSE, STOCK_SSE.name): (0.50, 0.65),
    (fanfare.WEBSOCKET, CENTRIFUGO.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, CENTRIFUGO_NATS.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, CENTRIFUGO_HISTORY.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, CENTRIFUGE.name): (1.0, 1.3),
    (fanfare.WEBSOCKET, SOCKETIO.name): (0.70, 1.3),
    (fanfare.WEBSOCKET, PYTHON_SOCKETIO.name): (0.50, 0.85),
    (fanfare.WEBSOCKET, CHANNELS.name): (0.25, 0.5),
}
"""The most that Fanfare's cost may be of another's: the goal in full; in the quick run, where a message has too few
receivers to share what publishing it costs, what has been reached and must not be lost again."""


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Measure every server beside Fanfare; a group that cannot be counted is void, and the others go on."""
    made = await make_peers(QUICK_PEERS if quick else tuple(peer for group in GROUPS for peer in group))
    groups = [made] if quick else [[peer for peer in group if peer in made] for group in GROUPS]
    for index, group in enumerate(filter(None, groups)):
        try:
            await _run_group(report, directory / str(index), group, quick=quick)
        except BenchFailed as error:
            report.void.append(f"{NAME}: {error}")


async def _run_group(report: Report, directory: Path, peers: Sequence[Peer], *, quick: bool) -> None:
    size = QUICK if quick else FULL_OF.get(peers[0].name, FULL)
    async with _stands(directory, peers, size, with_sse=FLOOR in peers or STOCK_SSE in peers) as stands:
        rows = await _measure(stands, size)
    beside = f"beside {', '.join(peer.name for peer in peers)}"
    report.rows += [replace(row, note=beside) if row.server in FANFARE else row for row in rows]
    report.checks += _checks({row.server: row.figures["cpu_us_per_delivery"] for row in rows}, quick=quick)


@asynccontextmanager
async def _stands(directory: Path, peers: Sequence[Peer], size: Size, *, with_sse: bool) -> AsyncIterator[list[Stand]]:
    """Run the servers of a group, each with its clients, all with messages of one size on the wire."""
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        servers = [await suite.chat(), *([await suite.notifications()] if with_sse else [])]
        servers += [await stack.enter_async_context(peer.run(directory)) for peer in peers]
        stands = []
        for server in servers:
            stand = Stand(server, Crowd(server.name, server.door))
            stack.callback(stand.crowd.close)
            await stand.crowd.connect(range(size.clients))
            stands.append(stand)
        await stands[0].say()
        for stand in stands[1:]:
            await stand.fit(stands[0].wire_bytes)
        yield stands


async def _measure(stands: Sequence[Stand], size: Size) -> list[Row]:
    """Send every server its messages in turn; what one uses while it is another's turn is not counted."""
    for stand in stands:
        for _ in range(WARM_UPS):
            await stand.say()
    spent = [Spent(user_and_sys_s(stand.server.pid)) for stand in stands]
    for _ in range(size.messages):
        for stand, costs in zip(stands, spent, strict=True):
            await costs.note(stand)
    for stand in stands:
        stand.crowd.check_each_got(stand.sent)
    return [_row(stand, costs, size) for stand, costs in zip(stands, spent, strict=True)]


def _row(stand: Stand, spent: Spent, size: Size) -> Row:
    deliveries = size.clients * size.messages
    user_s, sys_s = spent.user_and_sys_s(stand.server.pid)
    figures = {
        "cpu_us_per_delivery": spent.server_s / deliveries * 1e6,
        "user_share": user_s / (user_s + sys_s),
        "until_all_ms_p50": statistics.median(spent.until_all_s) * 1e3,
        "generator_us": spent.generator_s / deliveries * 1e6,
        "generator_busy": spent.generator_s / sum(spent.until_all_s),
        "clients": size.clients,
        "deliveries": deliveries,
        "wire_bytes": stand.wire_bytes,
    }
    return Row(NAME, stand.server.name, stand.server.version, figures)


def _checks(costs: dict[str, float], *, quick: bool) -> list[Check]:
    return [
        Check(f"CPU per delivery, {ours} / {theirs}", costs[ours] / costs[theirs], bounds[quick])
        for (ours, theirs), bounds in BOUNDS.items()
        if ours in costs and theirs in costs
    ]
