"""The promises with numbers: a rolling restart and a storm of thousands, ten minutes away, a soak by seed."""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import nats
import pytest

from shared.contracts import subjects
from shared.contracts.ids import new_id
from tests.faults.checker import check
from tests.faults.client import ChatMember
from tests.faults.crowd import Size
from tests.faults.faults import FAULTS, restart_every_edge
from tests.faults.record import Op, Record, Recorder
from tests.faults.trial import Fault, Row, attempt, conclude
from tests.faults.world import World, open_world
from tests.support.edges import Edges, LocalEdge
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

MANY = int(os.environ.get("FAULTS_CLIENTS", "3000"))  # noqa: TID251  # how large a test is, is no setting of a service
SOAK_S = float(os.environ.get("FAULTS_SOAK_S", "1200"))  # noqa: TID251
SEED = int(os.environ.get("FAULTS_SEED", "1"))  # noqa: TID251

AS_IN_PRODUCTION = {"HEARTBEAT_S": "25", "DRAIN_S": "15", "MAX_SOCKETS_PER_ADDRESS": "0"}
LONGEST_AWAY_S = 5.0
STEEPEST = 3.0
MISSED = 500
KEPT = 100
RECOVERED_WITHIN_S = 60.0
_NS = 1_000_000_000


@pytest.mark.timeout(600)
async def test_a_rolling_restart_under_thousands_is_smooth_and_loses_nothing(tmp_path: Path) -> None:
    async with open_world(tmp_path, nodes=1, chat=3, notifications=0, **AS_IN_PRODUCTION) as world:
        size = Size(members=MANY, room_size=10, followers=0, messages_hz=50, notices_hz=0)
        rolling = Fault(f"rolling restart of three edges, {MANY:,} clients", restart_every_edge, within_s=30)
        row = await attempt(world, rolling, size)

    records = world.recorder.records
    by_second = returns_by_second(records)
    steepest = max(by_second) * len(by_second) / sum(by_second)
    away_s = longest_away_s(records)
    remark(row, world, f"longest without service {away_s:.1f} s, busiest second {steepest:.1f} x the mean")
    assert away_s <= LONGEST_AWAY_S
    assert steepest <= STEEPEST, by_second


@pytest.mark.timeout(600)
async def test_thousands_that_are_cut_at_once_are_all_back_and_miss_nothing(tmp_path: Path) -> None:
    async def cut_all(world: World) -> None:
        for client in world.crowd.clients:
            client.cut()

    async with open_world(tmp_path, nodes=1, chat=3, notifications=0, **AS_IN_PRODUCTION) as world:
        size = Size(members=MANY, room_size=10, followers=0, messages_hz=50, notices_hz=0)
        row = await attempt(world, Fault(f"reconnect storm of {MANY:,}", cut_all, within_s=60), size)

    assert row.replayed
    assert (row.announced, row.lost, row.doubled) == (0, 0, 0)


@pytest.mark.quick
async def test_who_was_away_for_500_messages_gets_exactly_these_on_another_edge(own_edges: Edges) -> None:
    here, there = await own_edges.chat(message_limit=10_000), await own_edges.chat(message_limit=10_000)
    async with two_friends(own_edges, here) as (away, present, balancer, recorder):
        await leave_and_miss(away, present, balancer)
        balancer.edge = there
        await eventually(lambda: away.cursors == present.cursors, deadline_s=20)

    missed = [record for record in recorder.records if record.client == away.user and record.op is Op.GOT]
    verdict = check(recorder.records)
    assert len(missed) == verdict.replayed == MISSED
    assert [record.id for record in missed] == acked_in_order(recorder)
    assert verdict.clean
    assert not verdict.announced


@pytest.mark.quick
async def test_who_was_away_for_longer_than_what_is_kept_is_told_and_gets_what_there_is(
    own_edges: Edges, nats_server: NatsServer
) -> None:
    here, there = await own_edges.chat(message_limit=10_000), await own_edges.chat(message_limit=10_000)
    async with two_friends(own_edges, here) as (away, present, balancer, recorder):
        (room,) = away.rooms
        cursor = away.cursors[room]
        await leave_and_miss(away, present, balancer)
        operator = await nats.connect(nats_server.url)
        await operator.jetstream().purge_stream(subjects.CHAT, keep=KEPT)
        await operator.close()
        balancer.edge = there
        await eventually(lambda: any(r.op is Op.GAP and r.client == away.user for r in recorder.records))
        query = {"after": cursor, "limit": 200}
        answer = await there.http.get(
            f"/api/chat/rooms/{room}/messages", params=query, headers=there.headers(away.user)
        )
        present.say(room)
        await eventually(lambda: away.cursors == present.cursors and not present.pending)

    ids = [message["id"] for message in answer.json()["messages"]]
    assert ids == acked_in_order(recorder)[MISSED - KEPT : MISSED]
    verdict = check(recorder.records)
    assert (verdict.clean, verdict.announced) == (True, MISSED)


@pytest.mark.timeout(SOAK_S * 2 + 300)
@pytest.mark.parametrize("nodes", [1, 3])
async def test_a_soak_of_faults_by_seed_loses_nothing(nodes: int, tmp_path: Path) -> None:
    random.seed(SEED)
    faults = [fault for fault in FAULTS if nodes in fault.nodes and fault.repeatable]
    slowest_s, until_s = 0.0, time.monotonic() + SOAK_S / 2
    async with open_world(tmp_path, nodes=nodes) as world, world.peopled(Size()) as crowd:
        async with crowd.talking():
            while time.monotonic() < until_s:
                fault = random.choice(faults)
                print(f"soak: {fault.name}")
                await fault.act(world)
                slowest_s = max(slowest_s, await crowd.recovered(within_s=RECOVERED_WITHIN_S))
        await crowd.settled(within_s=RECOVERED_WITHIN_S)
    row = conclude(world, f"soak, seed {SEED}, {SOAK_S / 120:g} min", slowest_s)

    assert (row.announced, row.lost, row.doubled, row.disordered, row.leaked) == (0, 0, 0, 0, 0)


# -- what the tests above need ----------------------------------------------------------------------------------------


class Only:
    """A balancer that knows one edge at a time, or none."""

    def __init__(self, edge: LocalEdge) -> None:
        self.edge: LocalEdge | None = edge

    def pick(self) -> str:
        """Return its address."""
        return self.edge.url if self.edge else ""


@asynccontextmanager
async def two_friends(edges: Edges, here: LocalEdge) -> AsyncIterator[tuple[ChatMember, ChatMember, Only, Recorder]]:
    """Yield two members of one room, at one edge."""
    balancer, recorder, room = Only(here), Recorder(), new_id("room-")[:20]
    names = new_id("away-")[:20], new_id("present-")[:20]
    away, present = (ChatMember(name, edges.mint.token(name), balancer, recorder, [room]) for name in names)
    running = [asyncio.ensure_future(friend.run()) for friend in (away, present)]
    await eventually(lambda: away.is_open and present.is_open)
    yield away, present, balancer, recorder
    for friend in (away, present):
        friend.leave()
    await asyncio.gather(*running)


async def leave_and_miss(away: ChatMember, present: ChatMember, balancer: Only) -> None:
    """Be away while the other says MISSED things, until all are stored."""
    (room,) = present.rooms
    balancer.edge = None
    away.cut()
    await eventually(lambda: not away.is_open)
    for _ in range(MISSED):
        present.say(room)
    await eventually(lambda: not present.pending, deadline_s=30)


def acked_in_order(recorder: Recorder) -> list[str]:
    """Return the ids of all that was acked, in the order of the room."""
    acks = sorted((record.seq, record.id) for record in recorder.records if record.op is Op.ACK)
    return [given for _, given in acks]


def returns_by_second(records: list[Record]) -> list[int]:
    """Return how many clients came back in each second from the first that did to the last."""
    seconds = Counter(record.at_ns // _NS for record in records if record.op is Op.OPEN and record.connection > 1)
    return [seconds[second] for second in range(min(seconds), max(seconds) + 1)]


def longest_away_s(records: list[Record]) -> float:
    """Return for how long a client was without service at most."""
    closed_ns: dict[str, int] = {}
    longest_ns = 0
    for record in records:
        if record.op is Op.CLOSE:
            closed_ns[record.client] = record.at_ns
        elif record.op is Op.OPEN and record.client in closed_ns:
            longest_ns = max(longest_ns, record.at_ns - closed_ns.pop(record.client))
    return longest_ns / _NS


def remark(row: Row, world: World, text: str) -> None:
    """Add what only this trial measures to its row."""
    conclude(world, row.fault, row.recovery_s, remarks=text)
