"""Groups: servers that are measured beside each other, each with as many clients, all in one room.

Each gets its messages in turn, of the same size on the wire, and the next server's begin only when all of its clients
have got theirs; so whatever else the machine does slows all of a group alike, and a ratio within a group holds where a
time would not. Fanfare is in every group.
"""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
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
    AnyPeer,
    make_peers,
)
from bench.report import Check, Report, Row
from bench.stand import Spent, Stand

GROUPS: tuple[tuple[AnyPeer, ...], ...] = (
    (FLOOR,),
    (fanfare.WithoutRing(), FLOOR),
    (UWEBSOCKETS, NODE_WS),
    (CENTRIFUGO, CENTRIFUGE),
    (CENTRIFUGO_NATS, CENTRIFUGO_HISTORY),
    (STOCK_WEBSOCKET, SOCKETIO),
    (PYTHON_SOCKETIO,),
    (CHANNELS,),
    (STOCK_SSE,),
)
"""Like with like, and at most three servers of 5,000 clients: the generator has 20,000 descriptors."""
FANFARE = (fanfare.WEBSOCKET, fanfare.SSE)
WARM_UPS = 3

Bounds = Mapping[tuple[str, str], tuple[float, float]]
"""The most that Fanfare's cost may be of another's: the goal in full; in the quick run, where a message has too few
receivers to share what publishing it costs, what has been reached and must not be lost again."""


@dataclass(frozen=True)
class Size:
    """How much is delivered: clients of each server, and how often each of them is sent `at_once` messages."""

    clients: int
    turns: int
    at_once: int = 1


@dataclass(frozen=True)
class Comparison:
    """A scenario in which groups are measured.

    Attributes:
        cost: what the ratios of `bounds` are called.
        size_of: of the groups whose first peer is named, since it cannot have as many.
    """

    name: str
    cost: str
    bounds: Bounds
    groups: Sequence[Sequence[AnyPeer]]
    size: Size
    quick_groups: Sequence[Sequence[AnyPeer]]
    quick_size: Size
    size_of: Mapping[str, Size] = field(default_factory=dict)

    def beside(self, peer: str) -> Comparison:
        """Return this scenario with those groups only that the peer of that name is in."""
        return replace(self, groups=_with(peer, self.groups), quick_groups=_with(peer, self.quick_groups))

    def peers(self, *, quick: bool) -> list[str]:
        """Return the names of all that Fanfare is measured beside."""
        return [peer.name for group in (self.quick_groups if quick else self.groups) for peer in group]

    async def run(self, report: Report, directory: Path, *, quick: bool) -> None:
        """Measure every server beside Fanfare; a group that cannot be counted is void, and the others go on."""
        groups = self.quick_groups if quick else self.groups
        made = await make_peers(tuple(peer for group in groups for peer in group))
        for index, wanted in enumerate(groups):
            if group := [peer for peer in wanted if peer in made]:
                try:
                    await self._run_group(report, directory / str(index), group, quick=quick)
                except BenchFailed as error:
                    report.void.append(f"{self.name}: {error}")

    async def _run_group(self, report: Report, directory: Path, peers: Sequence[AnyPeer], *, quick: bool) -> None:
        size = self.quick_size if quick else self.size_of.get(peers[0].name, self.size)
        async with _stands(directory, peers, size) as stands:
            spent = await _measure(stands, size)
            rows = [_row(self.name, stand, costs, size) for stand, costs in zip(stands, spent, strict=True)]
        beside = f"beside {', '.join(peer.name for peer in peers)}"
        report.rows += [replace(row, note=beside) if row.server in FANFARE else row for row in rows]
        report.checks += self._checks({row.server: row.figures["cpu_us_per_delivery"] for row in rows}, quick=quick)

    def _checks(self, costs: dict[str, float], *, quick: bool) -> list[Check]:
        return [
            Check(f"{self.cost}, {ours} / {theirs}", costs[ours] / costs[theirs], bounds[quick])
            for (ours, theirs), bounds in self.bounds.items()
            if ours in costs and theirs in costs
        ]


def _with(name: str, groups: Sequence[Sequence[AnyPeer]]) -> list[Sequence[AnyPeer]]:
    return [group for group in groups if any(peer.name == name for peer in group)]


@asynccontextmanager
async def _stands(directory: Path, peers: Sequence[AnyPeer], size: Size) -> AsyncIterator[list[Stand]]:
    """Run the servers of a group, each with its clients, all with messages of one size on the wire."""
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        with_sse = peers[0] in (FLOOR, STOCK_SSE)
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


async def _measure(stands: Sequence[Stand], size: Size) -> list[Spent]:
    """Send every server its messages in turn; what one uses while it is another's turn is not counted."""
    for stand in stands:
        for _ in range(WARM_UPS):
            await stand.say(size.at_once)
    spent = [Spent(user_and_sys_s(stand.server.pid)) for stand in stands]
    for _ in range(size.turns):
        for stand, costs in zip(stands, spent, strict=True):
            await costs.note(stand, size.at_once)
    for stand in stands:
        stand.crowd.check_each_got(stand.sent)
    return spent


def _row(scenario: str, stand: Stand, spent: Spent, size: Size) -> Row:
    deliveries = size.clients * size.turns * size.at_once
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
    return Row(scenario, stand.server.name, stand.server.version, figures)
