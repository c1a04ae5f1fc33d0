"""Two edges and a client that moves between them: everything it has not seen, once each, or the loss is announced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any
from unittest.mock import patch

import pytest

from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message, Page
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.contracts.streams import STREAMS
from shared.edge.continuity.past import MAX_REPLAY, READ_PAGE, RING_STEP
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.fanout import SLICE
from shared.edge.line import hub as line_hub_module
from shared.edge.line.hub import LineHub
from shared.edge.line.line import MAX_RING_MESSAGES, Line
from shared.errors import BadInput
from shared.telemetry.metrics import Metrics
from tests.support.price_board import settle
from tests.support.rounds import Rounds

SUBJECT = "notify.user.u"
OTHER = "notify.user.other"
TOPIC = "notify.topic.t"


class Client:
    """A listener that reads at once, or only when told to."""

    user_id = "u"

    def __init__(self) -> None:
        self.got: list[int] = []
        self.gaps: list[Gap] = []
        self.places: list[Position] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.most_at_once = self._at_once = 0

    @property
    def outlet(self) -> Client:
        return self

    def deliver(self, event: Event) -> None:
        self.got.append(event.seq)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)

    def missed(self, gaps: Sequence[Gap], place: Position) -> None:
        self.gaps += gaps
        self.places.append(place)

    async def writable(self) -> None:
        await self.reads.wait()
        self._at_once = 0


class Edge:
    """A line on the common server."""

    def __init__(self, server: MemoryServer) -> None:
        broker, metrics = MemoryBroker(server), Metrics()
        self.line = LineHub(
            broker,
            subjects.NOTIFY,
            subjects.ALL_NOTIFY,
            encode=encode,
            deadletters=DeadLetters(broker, metrics),
            metrics=metrics,
        )

    @property
    def place(self) -> Position:
        return self.line.position

    async def attach(self, client: Client, after: Position, *subjects_: str) -> list[Gap]:
        """Resume; return what was announced."""
        await self.line.resume(client, subjects_ or [SUBJECT], after)
        await settle()
        return client.gaps


def encode(message: Message, _epoch: str) -> Event:
    if message.data == b"broken":
        raise BadInput("broken")
    return Event("notification", b"{}")


@pytest.fixture
def server() -> MemoryServer:
    return MemoryServer()


@pytest.fixture
async def edges(server: MemoryServer) -> AsyncIterator[tuple[Edge, Edge]]:
    a, b = Edge(server), Edge(server)
    for edge in (a, b):
        await edge.line.start()
    yield a, b
    for edge in (a, b):
        await edge.line.close()


async def late(server: MemoryServer) -> Edge:
    """Start an edge that has nothing in its ring."""
    edge = Edge(server)
    await edge.line.start()
    edge.line._line.restart(edge.place)
    return edge


async def store(server: MemoryServer, count: int, subject: str = SUBJECT) -> list[int]:
    broker = MemoryBroker(server)
    stored = [await broker.append(subject, b"{}", msg_id=new_id()) for _ in range(count)]
    await settle()
    return [each.seq for each in stored]


@pytest.mark.parametrize("before", [1, MAX_RING_MESSAGES])
async def test_an_edge_that_has_just_started_has_what_others_missed_and_asks_the_stream_nothing(
    server: MemoryServer, edges: tuple[Edge, Edge], before: int
) -> None:
    a, _ = edges
    await store(server, before, OTHER)
    place = a.place
    seqs = await store(server, 50)
    fresh, client = Edge(server), Client()
    await fresh.line.start()
    assert fresh.place == a.place

    with patch.object(MemoryBroker, "read_after", side_effect=AssertionError("it asked the stream")):
        assert await fresh.attach(client, place) == []
    seqs += await store(server, 1)

    assert client.got == seqs
    await fresh.line.close()


def test_a_ring_does_not_reach_back_over_what_the_stream_dropped_before_this_edge_had_read_it() -> None:
    line = Line(subjects.NOTIFY, subjects.ALL_NOTIFY, Position("e", 0))
    for seq in (1, 2, 5, 6):
        line.remember(Message(SUBJECT, b"{}", {}, seq=seq))

    assert line.recent(2) is None, "the stream says what is missing"
    assert [kept.message.seq for kept in line.recent(4) or ()] == [5, 6]


async def test_nobody_begins_in_the_past_when_the_end_of_the_stream_is_gone(server: MemoryServer) -> None:
    seqs = await store(server, 3)
    del server.stream(subjects.NOTIFY).by_subject[SUBJECT][2:]
    fresh = Edge(server)
    await fresh.line.start()

    assert fresh.place.seq == seqs[2]
    await fresh.line.close()


@pytest.mark.parametrize("missed", [0, 1, RING_STEP, RING_STEP + 1, READ_PAGE + 1, MAX_REPLAY - 1])
async def test_a_client_that_was_away_gets_what_it_missed_from_memory_and_from_the_stream(
    server: MemoryServer, edges: tuple[Edge, Edge], missed: int
) -> None:
    a, _ = edges
    place = a.place
    await store(server, 1, OTHER)
    seqs = await store(server, missed)
    await store(server, 1, OTHER)
    for edge in (a, await late(server)):
        client = Client()

        assert await edge.attach(client, place) == []
        assert client.got == seqs
        await edge.line.close()


async def test_what_was_missed_comes_in_the_streams_order_whatever_its_subject(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    """A client that is cut off in the middle goes on from there: nothing before that place may still be owed."""
    a, _ = edges
    place = a.place
    seqs = [seq for _ in range(20) for subject in (TOPIC, OTHER, SUBJECT) for seq in await store(server, 1, subject)]
    wanted = [seq for number, seq in enumerate(seqs) if number % 3 != 1]
    for edge in (a, await late(server)):
        client = Client()
        await edge.attach(client, place, SUBJECT, TOPIC)

        assert client.got == wanted
        await edge.line.close()


async def test_a_gap_on_one_subject_is_announced_before_all_that_moves_the_place_beyond_it(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    await store(server, 1)
    place = edges[0].place
    await store(server, MAX_REPLAY + 1, TOPIC)
    seqs = await store(server, 3)
    edge, client = await late(server), Client()
    gaps = await edge.attach(client, place, SUBJECT, TOPIC)

    assert [(gap.subject, gap.reason) for gap in gaps] == [(TOPIC, GapReason.TOO_MANY)]
    assert client.places == [Position(place.epoch, seqs[0] - 1)]
    assert client.got == seqs
    await edge.line.close()


async def test_a_client_from_a_faster_edge_is_no_stranger_and_gets_nothing_twice(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    _, b = edges
    stream = server.stream(subjects.NOTIFY)
    stream.republish = False  # the live repeat has not reached edge B yet
    seqs = await store(server, 3)
    stream.republish = True
    client = Client()
    attaching = asyncio.ensure_future(b.attach(client, Position(b.place.epoch, seqs[1])))
    await settle()
    assert not attaching.done()
    later = await store(server, 1)  # shows the gap, which is filled

    assert await attaching == []
    assert client.got == [seqs[2], *later]


async def test_a_place_that_the_stream_never_gave_out_is_unknown(edges: tuple[Edge, Edge]) -> None:
    gaps = await edges[0].attach(Client(), Position(edges[0].place.epoch, 10**18))

    assert [gap.reason for gap in gaps] == [GapReason.UNKNOWN]


async def test_what_has_expired_is_announced(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    place = edges[0].place
    seqs = await store(server, 4)
    del server.stream(subjects.NOTIFY).by_subject[SUBJECT][:2]
    edge, client = await late(server), Client()

    assert await edge.attach(client, place) == [Gap(SUBJECT, place.epoch, place.seq, seqs[-1], GapReason.EXPIRED)]
    assert client.got == []
    await edge.line.close()


async def test_a_subject_trimmed_by_its_own_limit_is_a_gap_and_no_hole(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    """The stream's first sequence stays where another subject holds it, so it does not tell."""
    await store(server, 1, OTHER)
    place = edges[0].place
    await store(server, server.stream(subjects.NOTIFY).max_per_subject + 1)
    for edge in edges:
        client = Client()

        assert [gap.reason for gap in await edge.attach(client, place)] == [GapReason.TOO_MANY]
        assert client.got == []


def test_no_stream_that_is_resumed_keeps_fewer_of_a_subject_than_a_replay_may_have() -> None:
    kept = {spec.name: spec.max_per_subject for spec in STREAMS}

    assert min(kept[subjects.NOTIFY], kept[subjects.CHAT]) >= MAX_REPLAY


async def test_a_replay_goes_at_the_clients_pace_and_joins_without_a_seam(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    place = edges[0].place
    seqs = await store(server, 300)
    edge, client = await late(server), Client()
    client.reads.clear()
    attaching = asyncio.ensure_future(edge.attach(client, place))
    await settle()
    assert 1 <= len(client.got) <= RING_STEP
    seqs += await store(server, 20)
    client.reads.set()
    assert await attaching == []
    seqs += await store(server, 1)

    assert client.got == seqs
    assert client.most_at_once <= 2 * RING_STEP
    await edge.line.close()


async def test_a_replay_lets_the_loop_look_around_however_long_each_event_takes(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    place, rounds = edges[0].place, Rounds()
    seqs = await store(server, 20)

    class SlowClient(Client):
        def deliver(self, event: Event) -> None:
            rounds.work()
            super().deliver(event)

    late_edge = await late(server)
    for edge in (edges[0], late_edge):  # from the ring, and from the stream
        client = SlowClient()
        assert await edge.attach(client, place) == []
        assert client.got == seqs
    assert rounds.most_in_one <= RING_STEP
    await late_edge.line.close()


async def test_no_event_of_a_streams_earlier_life_is_given_a_place_in_the_next(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    place = edges[0].place
    await store(server, 100)
    edge, cursors = await late(server), list[str]()

    class NotingClient(Client):
        def deliver(self, event: Event) -> None:
            cursors.append(event.cursor)
            super().deliver(event)

    client = NotingClient()
    client.reads.clear()
    attaching = asyncio.ensure_future(edge.attach(client, place))
    await settle()
    server.recreate(subjects.NOTIFY)
    await edge.line._reconcile(True)
    client.reads.set()
    (gap,) = await attaching

    assert gap.reason is GapReason.EPOCH
    assert {cursor.partition(":")[0] for cursor in cursors} == {place.epoch}
    await edge.line.close()


async def test_a_stream_made_anew_during_a_replay_is_announced(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    a, _ = edges
    place = a.place
    await store(server, 100)
    client = Client()
    client.reads.clear()
    attaching = asyncio.ensure_future(a.attach(client, place))
    await settle()
    server.recreate(subjects.NOTIFY)
    await a.line._reconcile(True)
    client.reads.set()
    (gap,) = await attaching

    assert gap.reason is GapReason.EPOCH
    assert gap.epoch == a.place.epoch != place.epoch


async def test_a_stream_made_anew_is_announced_to_all_who_listen_and_goes_on(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    a, _ = edges
    mine, both = Client(), Client()
    await a.attach(mine, a.place)
    await a.attach(both, a.place, SUBJECT, TOPIC)
    await store(server, 3)
    server.recreate(subjects.NOTIFY)
    seqs = await store(server, 1)  # its number is one that was seen, its time is not
    await a.line._reconcile(True)
    seqs += await store(server, 2)

    assert [gap.reason for gap in mine.gaps] == [GapReason.EPOCH]
    assert {gap.subject for gap in both.gaps} == {SUBJECT, TOPIC}
    assert mine.places == both.places == [Position(a.place.epoch, seqs[0])]
    assert mine.got[3:] == seqs[1:]


async def test_an_edge_that_has_missed_too_much_to_read_says_so_to_all(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    a, _ = edges
    client = Client()
    await a.attach(client, a.place)
    server.stream(subjects.NOTIFY).republish = False
    seqs = await store(server, 11)
    with patch.object(line_hub_module, "MAX_BEHIND", 10):
        await a.line._reconcile(True)

    assert [(gap.reason, gap.start, gap.end) for gap in client.gaps] == [(GapReason.TOO_MANY, 0, seqs[-1])]
    assert client.got == []


async def test_what_is_not_valid_is_skipped_and_leaves_no_gap(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    a, _ = edges
    place = a.place
    broker = MemoryBroker(server)
    await store(server, 1)
    await broker.append(SUBJECT, b"broken", msg_id="x")
    await store(server, 1)
    for edge in (a, await late(server)):
        client = Client()

        assert await edge.attach(client, place) == []
        assert client.got == [1, 3]
        await edge.line.close()


# -- live -------------------------------------------------------------------------------------------------------------


async def test_what_its_subject_gets_reaches_every_stream_of_a_user_and_nobody_else(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    a, _ = edges
    one, other, stranger = Client(), Client(), Client()
    for client in (one, other):
        a.line.join(client, [SUBJECT])
    a.line.join(stranger, [OTHER])
    first = await store(server, 2)
    a.line.leave(one, [SUBJECT])
    second = await store(server, 1)
    a.line.leave(other, [SUBJECT])
    await store(server, 1)

    assert (one.got, other.got, stranger.got) == (first, first + second, [])
    assert not a.line.listeners(SUBJECT)


async def test_a_lost_repeat_of_anothers_message_holds_nothing_back_for_long(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    a, _ = edges
    client = Client()
    a.line.join(client, [SUBJECT, TOPIC])
    stream = server.stream(subjects.NOTIFY)
    stream.republish = False
    seqs = await store(server, 1, TOPIC)
    await store(server, 1, OTHER)
    stream.republish = True
    seqs += await store(server, 1)

    assert client.got == seqs


async def test_a_lost_repeat_that_nothing_follows_is_found_by_comparing(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    a, _ = edges
    client = Client()
    a.line.join(client, [SUBJECT])
    server.stream(subjects.NOTIFY).republish = False
    seqs = await store(server, 1)
    await a.line._reconcile(True)
    await settle()

    assert client.got == seqs


async def test_what_was_lost_and_purged_holds_nobody_up(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    a, _ = edges
    client = Client()
    a.line.join(client, [SUBJECT])
    stream = server.stream(subjects.NOTIFY)
    stream.republish = False
    await store(server, 2)
    stream.republish = True
    broker = MemoryBroker(server)
    await broker.append(SUBJECT, b"{}", msg_id="last")
    stream.by_subject.clear()  # before the gap could be filled
    await settle()

    assert client.got == [3]


async def test_what_was_read_of_a_streams_earlier_life_is_not_delivered_in_this_one(
    server: MemoryServer, edges: tuple[Edge, Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, _ = edges
    client, held = Client(), asyncio.Event()
    a.line.join(client, [SUBJECT])
    read_after = MemoryBroker.read_after

    async def slow(broker: MemoryBroker, *args: Any, **more: Any) -> Page:
        page = await read_after(broker, *args, **more)
        await held.wait()
        return page

    monkeypatch.setattr(MemoryBroker, "read_after", slow)
    server.stream(subjects.NOTIFY).republish = False
    await store(server, 5)
    comparing = asyncio.ensure_future(a.line._reconcile(True))
    await comparing  # the fill has begun, and its answer is on its way
    server.recreate(subjects.NOTIFY)
    await a.line._reconcile(True)
    held.set()
    await settle()
    seqs = await store(server, 2)

    assert client.got == seqs == [1, 2]


async def test_a_user_is_not_told_before_a_broadcast_that_came_first(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    """The place is one for all subjects: with 2 handed over, 1 must not be owed any more."""
    a, _ = edges
    crowd = [Client() for _ in range(SLICE + 1)]
    for client in crowd:
        a.line.join(client, [TOPIC])
    a.line.join(crowd[-1], [SUBJECT])
    broker = MemoryBroker(server)
    await broker.append(TOPIC, b"{}", msg_id="1")
    await broker.append(SUBJECT, b"{}", msg_id="2")
    await settle()

    assert crowd[-1].got == [1, 2]
