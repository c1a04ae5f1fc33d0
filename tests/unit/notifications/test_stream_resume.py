"""Two edges and a client that moves between them: everything it has not seen, once each, or the loss is announced."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.contracts.streams import STREAMS
from shared.edge import hub as hub_module
from shared.edge.deadletters import DeadLetters
from shared.edge.event import Event
from shared.edge.hub import Hub
from shared.edge.replay import MAX_REPLAY, RING_STEP, Gap, GapReason
from shared.edge.topic import MAX_RING_EVENTS
from shared.errors import BadInput
from shared.telemetry.metrics import Metrics
from tests.support.price_board import Hand, settle

SUBJECT = "notify.user.u"
OTHER = "notify.user.other"


class Client:
    """A listener that reads at once, or only when told to."""

    user_id = "u"

    def __init__(self) -> None:
        self.got: list[int] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.most_at_once = self._at_once = 0

    def deliver(self, event: Event) -> None:
        self.got.append(event.seq)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)

    async def writable(self) -> None:
        await self.reads.wait()
        self._at_once = 0


class Edge:
    """A hub on the common server."""

    def __init__(self, server: MemoryServer) -> None:
        broker, metrics = MemoryBroker(server), Metrics()
        self.hand = Hand()
        self.hub = Hub(
            broker,
            encoders={subjects.NOTIFY: encode},
            deadletters=DeadLetters(broker, metrics),
            metrics=metrics,
            on_resync=lambda _topic: None,
            clock=self.hand,
        )

    async def place(self, subject: str = SUBJECT) -> Position:
        return await self.hub.position(subjects.NOTIFY, subject)

    async def attach(self, client: Client, after: Position, subject: str = SUBJECT) -> Gap | None:
        gap = await self.hub.attach(subjects.NOTIFY, subject, client, after)
        await settle()
        return gap


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
    yield a, b
    for edge in (a, b):
        await edge.hub.close()


async def store(server: MemoryServer, count: int, subject: str = SUBJECT) -> list[int]:
    broker = MemoryBroker(server)
    stored = [await broker.append(subject, b"{}", msg_id=new_id()) for _ in range(count)]
    await settle()
    return [each.seq for each in stored]


@pytest.mark.parametrize("missed", [0, 1, RING_STEP, RING_STEP + 1, MAX_RING_EVENTS + 1, MAX_REPLAY - 1])
async def test_a_client_that_was_away_gets_what_it_missed_at_either_edge(
    server: MemoryServer, edges: tuple[Edge, Edge], missed: int
) -> None:
    a, b = edges
    place = await a.place()
    seqs = await store(server, missed)
    for edge in (a, b):
        client = Client()

        assert await edge.attach(client, place) is None
        assert client.got == seqs


async def test_a_client_of_an_empty_subject_has_a_place_that_outlives_what_expires(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    """With the place 0 it would look like one who missed all that has expired."""
    a, b = edges
    await store(server, 3, OTHER)
    place = await a.place()
    del server.stream(subjects.NOTIFY).by_subject[OTHER]
    seqs = await store(server, 2)
    client = Client()

    assert await b.attach(client, place) is None
    assert client.got == seqs


async def test_a_client_from_a_faster_edge_is_no_stranger_and_gets_nothing_twice(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    _, b = edges
    place = await b.place()
    stream = server.stream(subjects.NOTIFY)
    stream.republish = False  # the live repeat has not reached edge B yet
    seqs = await store(server, 3)
    stream.republish = True
    client = Client()
    attaching = asyncio.ensure_future(b.attach(client, Position(place.epoch, seqs[1])))
    await settle()
    assert not attaching.done()
    later = await store(server, 1)  # shows the gap, which is filled

    assert await attaching is None
    assert client.got == [seqs[2], *later]


async def test_a_place_that_the_stream_never_gave_out_is_unknown(edges: tuple[Edge, Edge]) -> None:
    place = await edges[0].place()
    gap = await edges[0].attach(Client(), Position(place.epoch, 10**18))

    assert gap is not None
    assert gap.reason is GapReason.UNKNOWN


async def test_what_has_expired_is_announced(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    place = await edges[0].place()
    seqs = await store(server, 4)
    del server.stream(subjects.NOTIFY).by_subject[SUBJECT][:2]
    client = Client()
    gap = await edges[1].attach(client, place)

    assert gap == Gap(SUBJECT, place.epoch, place.seq, seqs[-1], GapReason.EXPIRED)
    assert client.got == []


async def test_a_subject_trimmed_by_its_own_limit_is_a_gap_and_no_hole(
    server: MemoryServer, edges: tuple[Edge, Edge]
) -> None:
    """The stream's first sequence stays where another subject holds it, so it does not tell."""
    a, b = edges
    await store(server, 1, OTHER)
    place = await a.place()
    await store(server, server.stream(subjects.NOTIFY).max_per_subject + 1)
    for edge in (a, b):
        client = Client()
        gap = await edge.attach(client, place)

        assert gap is not None
        assert gap.reason is GapReason.TOO_MANY
        assert client.got == []


def test_no_stream_that_is_resumed_keeps_fewer_of_a_subject_than_a_replay_may_have() -> None:
    kept = {spec.name: spec.max_per_subject for spec in STREAMS}

    assert min(kept[subjects.NOTIFY], kept[subjects.CHAT]) >= MAX_REPLAY


async def test_a_replay_goes_at_the_clients_pace_and_joins_without_a_seam(
    server: MemoryServer, edges: tuple[Edge, Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than an idle topic is kept: the topic must not be dropped under the one who waits to join it."""
    a, _ = edges
    place = await a.place()
    seqs = await store(server, MAX_RING_EVENTS + 50)
    client = Client()
    client.reads.clear()
    attaching = asyncio.ensure_future(a.attach(client, place))
    await settle()
    assert 1 <= len(client.got) <= RING_STEP
    a.hand.now_s += 10 * hub_module.LINGER_S
    await a.hub._drop_idle()
    seqs += await store(server, 20)
    client.reads.set()
    assert await attaching is None
    seqs += await store(server, 1)

    assert client.got == seqs
    assert client.most_at_once <= 2 * RING_STEP


async def test_a_stream_made_anew_during_a_replay_is_announced(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    a, _ = edges
    place = await a.place()
    await store(server, 100)
    client = Client()
    client.reads.clear()
    attaching = asyncio.ensure_future(a.attach(client, place))
    await settle()
    server.recreate(subjects.NOTIFY)
    await a.hub._check_epochs()
    client.reads.set()
    gap = await attaching

    assert gap is not None
    assert gap.reason is GapReason.EPOCH
    assert gap.epoch != place.epoch


async def test_what_is_not_valid_is_skipped_and_leaves_no_gap(server: MemoryServer, edges: tuple[Edge, Edge]) -> None:
    a, b = edges
    place = await a.place()
    broker = MemoryBroker(server)
    await store(server, 1)
    await broker.append(SUBJECT, b"broken", msg_id="x")
    await store(server, 1)
    for edge in (a, b):
        client = Client()

        assert await edge.attach(client, place) is None
        assert client.got == [1, 3]
