"""A resume is complete, without a seam and without doubles, or it is announced as a gap; over the broker in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from unittest.mock import patch

import pytest

from shared.broker.memory import MemoryBroker, MemoryServer, MemorySubscription
from shared.broker.port import Handler, Message, Page
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.contracts.ids import new_id
from shared.edge.continuity.past import MAX_REPLAY, RING_STEP
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.fanout import SLICE
from shared.edge.topics import hub as hub_module
from shared.edge.topics import replay as replay_module
from shared.edge.topics.hub import Hub
from shared.edge.topics.replay import PORTION_BYTES
from shared.edge.topics.topic import MAX_RING_EVENTS
from shared.errors import BadInput
from shared.telemetry.metrics import Metrics
from tests.support.rounds import Rounds

ROOM = subjects.chat_message("room")
OTHER = subjects.chat_message("other")


class HeldBroker(MemoryBroker):
    """A broker whose live repeat a test holds back, loses or lets go, and whose reads it can watch."""

    def __init__(self, server: MemoryServer) -> None:
        super().__init__(server)
        self.holding = False
        self.reads = 0
        self.readable = asyncio.Event()
        self.readable.set()
        self._held: list[tuple[Handler, Message]] = []

    async def subscribe(self, pattern: str, handler: Handler) -> MemorySubscription:
        def deliver(message: Message) -> None:
            if self.holding:
                self._held.append((handler, message))
            else:
                handler(message)

        return await super().subscribe(pattern, deliver)

    async def read_after(self, stream: str, subject: str, after_seq: int, *, limit: int) -> Page:
        self.reads += 1
        await self.readable.wait()
        return await super().read_after(stream, subject, after_seq, limit=limit)

    def let_go(self) -> None:
        """Deliver what was held back."""
        self.holding = False
        held, self._held = self._held, []
        for handler, message in held:
            handler(message)


class Client:
    """A listener that may be slow: it takes `room` events before a replay has to wait for it."""

    user_id = "user"

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.open = asyncio.Event()
        self.open.set()
        self.waiting = asyncio.Event()

    @property
    def seqs(self) -> list[int]:
        return [event.seq for event in self.events]

    def deliver(self, event: Event) -> None:
        self.events.append(event)

    async def writable(self) -> None:
        self.waiting.set()
        await self.open.wait()


class Fixture:
    """A hub on a broker, and a producer."""

    def __init__(self, server: MemoryServer, hub: Hub, broker: HeldBroker, gaps: list[Gap]) -> None:
        self.server, self.hub, self.broker, self.gaps = server, hub, broker, gaps
        self._producer = MemoryBroker(server)

    async def store(self, count: int, subject: str = ROOM) -> list[int]:
        return [(await self._producer.append(subject, b"{}", msg_id=new_id())).seq for _ in range(count)]

    async def epoch(self) -> str:
        return (await self.broker.state(subjects.CHAT)).epoch

    async def resume(self, client: Client, seq: int) -> Gap | None:
        return await self.hub.attach(subjects.CHAT, ROOM, client, Position(await self.epoch(), seq))

    async def open_topic(self) -> None:
        await self.hub.position(subjects.CHAT, ROOM)


def encode(message: Message, _epoch: str) -> Event:
    if message.data != b"{}":
        raise BadInput("not valid")
    return Event("chat_message", message.data)


@pytest.fixture
async def edge() -> AsyncIterator[Fixture]:
    server = MemoryServer()
    broker, metrics = HeldBroker(server), Metrics()
    deadletters = DeadLetters(broker, metrics)
    gaps: list[Gap] = []
    hub = Hub(
        broker,
        encoders={subjects.CHAT: encode},
        deadletters=deadletters,
        metrics=metrics,
        on_gap=lambda _topic, gap: gaps.append(gap),
    )
    await hub.start()
    yield Fixture(server, hub, broker, gaps)
    await hub.close()
    await deadletters.close()


async def settled() -> None:
    """Let everything that is on its way inside this process arrive."""
    for _ in range(10):
        await asyncio.sleep(0)


# -- beside others ----------------------------------------------------------------------------------------------------


async def test_a_resume_lets_the_loop_look_around_however_long_each_message_takes(
    edge: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seqs, client, rounds = await edge.store(20), Client(), Rounds()

    def slow_encode(message: Message, epoch: str) -> Event:
        rounds.work()
        return Event(encode(message, epoch).type, b"x" * (PORTION_BYTES // 2 + 1))

    def slow_deliver(event: Event) -> None:
        rounds.work()
        client.events.append(event)

    monkeypatch.setitem(edge.hub._encoders, subjects.CHAT, slow_encode)  # type: ignore[arg-type]
    monkeypatch.setattr(client, "deliver", slow_deliver)
    for reads in (1, 1):  # from the stream, then from the ring
        assert await edge.resume(client, seqs[0] - 1) is None
        assert edge.broker.reads == reads

    assert rounds.most_in_one <= RING_STEP
    assert client.seqs == 2 * seqs


async def test_what_was_missed_is_handed_over_in_portions_and_each_is_one_write(
    edge: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [10, 10, PORTION_BYTES - 20, 1, PORTION_BYTES + 1, PORTION_BYTES, 5, 5, 5, 5, 5]
    waiting, portions = iter(sizes), list[list[Event]]()

    def sized(message: Message, epoch: str) -> Event:
        return Event(encode(message, epoch).type, b"x" * next(waiting))

    monkeypatch.setitem(edge.hub._encoders, subjects.CHAT, sized)  # type: ignore[arg-type]
    monkeypatch.setattr(replay_module, "deliver_to_each", lambda _outlets, events: portions.append(list(events)))
    seqs = await edge.store(len(sizes))

    assert await edge.resume(Client(), seqs[0] - 1) is None
    assert [event.seq for portion in portions for event in portion] == seqs
    assert [[len(event.body) for event in portion] for portion in portions] == [
        sizes[:3],
        *([size] for size in sizes[3:6]),
        sizes[6:],
    ]


# -- complete ---------------------------------------------------------------------------------------------------------


async def test_a_resume_from_the_stream_is_complete_and_goes_on_live(edge: Fixture) -> None:
    seqs = await edge.store(500)
    client = Client()

    assert await edge.resume(client, seqs[99]) is None
    seqs += await edge.store(3)
    await settled()

    assert client.seqs == seqs[100:]


async def test_a_resume_from_the_ring_reads_no_stream(edge: Fixture) -> None:
    await edge.open_topic()
    seqs = await edge.store(100)
    await settled()
    edge.broker.reads = 0
    client = Client()

    assert await edge.resume(client, seqs[9]) is None
    assert client.seqs == seqs[10:]
    assert edge.broker.reads == 0


async def test_a_resume_where_nothing_was_missed_delivers_nothing(edge: Fixture) -> None:
    seqs = await edge.store(5)
    client = Client()

    assert await edge.resume(client, seqs[-1]) is None
    assert client.seqs == []


async def test_a_resume_of_a_subject_that_was_quiet_while_others_were_not_reads_no_stream(edge: Fixture) -> None:
    seqs = await edge.store(2)
    await edge.store(3, OTHER)
    client = Client()

    with patch.object(edge.broker, "first_seq", side_effect=AssertionError("its last message says it all")):
        assert await edge.resume(client, seqs[-1]) is None
    assert edge.broker.reads == 0


async def test_messages_of_other_rooms_in_between_are_no_gap(edge: Fixture) -> None:
    first = await edge.store(2)
    await edge.store(50, OTHER)
    later = await edge.store(2)
    client = Client()

    assert await edge.resume(client, first[0]) is None
    assert client.seqs == [first[1], *later]


async def test_what_is_stored_while_its_live_repeat_is_on_its_way_is_delivered_once(edge: Fixture) -> None:
    seqs = await edge.store(10)
    await edge.open_topic()
    edge.broker.holding = True
    seqs += await edge.store(5)
    client = Client()

    assert await edge.resume(client, seqs[2]) is None
    edge.broker.let_go()
    await settled()

    assert client.seqs == seqs[3:]


async def test_an_invalid_payload_is_left_out_of_a_resume(edge: Fixture) -> None:
    seqs = await edge.store(2)
    await MemoryBroker(edge.server).append(ROOM, b"broken", msg_id=new_id())
    seqs += await edge.store(2)
    client = Client()

    assert await edge.resume(client, seqs[0]) is None
    assert client.seqs == seqs[1:]


async def test_a_herd_that_resumes_from_one_place_costs_one_read(edge: Fixture) -> None:
    seqs = await edge.store(10)
    herd = [Client() for _ in range(50)]

    gaps = await asyncio.gather(*(edge.resume(client, seqs[0]) for client in herd))

    assert set(gaps) == {None}
    assert edge.broker.reads == 1
    assert all(client.seqs == seqs[1:] for client in herd)
    assert len({id(client.events[0]) for client in herd}) == 1, "each was encoded once"


async def test_whoever_comes_after_the_first_is_served_from_the_ring(edge: Fixture) -> None:
    seqs = await edge.store(10)
    first, second, third = Client(), Client(), Client()
    await edge.resume(first, seqs[2])
    edge.broker.reads = 0
    seqs += await edge.store(1)
    await settled()

    await edge.resume(second, seqs[2])
    await edge.resume(third, seqs[5])

    assert edge.broker.reads == 0
    assert (second.seqs, third.seqs) == (seqs[3:], seqs[6:])


async def test_a_read_goes_on_for_the_others_when_the_client_that_began_it_leaves(edge: Fixture) -> None:
    seqs = await edge.store(10)
    edge.broker.readable.clear()
    first, second = Client(), Client()
    resuming = [asyncio.ensure_future(edge.resume(client, seqs[0])) for client in (first, second)]
    await settled()
    resuming[0].cancel()
    await settled()
    edge.broker.readable.set()

    assert await resuming[1] is None
    assert (edge.broker.reads, second.seqs, first.seqs) == (1, seqs[1:], [])


async def test_nothing_is_lost_when_the_ring_rolls_over_while_a_slow_client_is_replayed_to(edge: Fixture) -> None:
    seqs = await edge.store(300)
    slow = Client()
    slow.open.clear()
    resuming = asyncio.ensure_future(edge.resume(slow, seqs[0]))
    await slow.waiting.wait()
    seqs += await edge.store(MAX_RING_EVENTS + 100)
    await settled()

    slow.open.set()
    assert await resuming is None
    seqs += await edge.store(1)
    await settled()

    assert slow.seqs == seqs[1:]


async def test_a_replay_that_outlasts_the_time_an_idle_topic_is_kept_still_goes_on_live(
    edge: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub_module, "LINGER_S", 0.0)
    seqs = await edge.store(300)
    slow = Client()
    slow.open.clear()
    resuming = asyncio.ensure_future(edge.resume(slow, seqs[0]))
    await slow.waiting.wait()
    await edge.hub._drop_idle()
    slow.open.set()
    await resuming
    seqs += await edge.store(1)
    await settled()

    assert slow.seqs == seqs[1:]


async def test_a_place_that_a_faster_edge_gave_out_is_known_once_this_edge_has_caught_up(edge: Fixture) -> None:
    await edge.open_topic()
    edge.broker.holding = True
    seqs = await edge.store(5)
    client = Client()
    resuming = asyncio.ensure_future(edge.resume(client, seqs[3]))
    await settled()
    edge.broker.let_go()

    assert await resuming is None
    seqs += await edge.store(1)
    await settled()
    assert client.seqs == seqs[4:]


async def test_two_who_attach_to_a_new_subject_at_once_share_one_subscription(edge: Fixture) -> None:
    seqs = await edge.store(3)
    clients = [Client(), Client()]

    await asyncio.gather(*(edge.resume(client, seqs[0]) for client in clients))
    seqs += await edge.store(1)
    await settled()

    assert [client.seqs for client in clients] == [seqs[1:], seqs[1:]]


# -- announced --------------------------------------------------------------------------------------------------------


async def test_a_place_whose_successors_have_expired_is_a_gap_and_live_messages_follow(edge: Fixture) -> None:
    seqs = await edge.store(10)
    del edge.server.stream(subjects.CHAT).by_subject[ROOM][:5]
    client = Client()

    gap = await edge.resume(client, seqs[2])
    live = await edge.store(1)
    await settled()

    assert gap is not None
    assert (gap.reason, gap.start, gap.end, gap.starts_over) == (GapReason.EXPIRED, seqs[2], seqs[-1], False)
    assert client.seqs == live


async def test_the_place_of_the_last_that_expired_is_no_gap(edge: Fixture) -> None:
    seqs = await edge.store(10)
    del edge.server.stream(subjects.CHAT).by_subject[ROOM][:5]
    client = Client()

    assert await edge.resume(client, seqs[4]) is None
    assert client.seqs == seqs[5:]


async def test_too_many_missed_messages_are_a_gap_and_none_of_them_is_delivered(edge: Fixture) -> None:
    seqs = await edge.store(MAX_REPLAY + MAX_RING_EVENTS + 1)
    client = Client()

    gap = await edge.resume(client, seqs[0])

    assert gap is not None
    assert gap.reason is GapReason.TOO_MANY
    assert client.seqs == []


async def test_a_place_in_another_life_of_the_stream_starts_over(edge: Fixture) -> None:
    await edge.store(3)
    client = Client()

    gap = await edge.hub.attach(subjects.CHAT, ROOM, client, Position("other", 1))

    assert gap is not None
    assert gap.starts_over
    assert gap.reason is GapReason.EPOCH


async def test_a_place_that_the_stream_never_had_starts_over(edge: Fixture) -> None:
    seqs = await edge.store(3)
    client = Client()

    gap = await edge.resume(client, seqs[-1] + 1_000)

    assert gap is not None
    assert gap.reason is GapReason.UNKNOWN


async def test_a_stream_made_anew_during_a_replay_starts_over(edge: Fixture) -> None:
    seqs = await edge.store(300)
    slow = Client()
    slow.open.clear()
    resuming = asyncio.ensure_future(edge.resume(slow, seqs[0]))
    await slow.waiting.wait()
    edge.server.recreate(subjects.CHAT)
    await edge.hub._reconcile(True)
    slow.open.set()
    gap = await resuming

    assert gap is not None
    assert gap.reason is GapReason.EPOCH


# -- what the chain does not show -------------------------------------------------------------------------------------


async def test_a_lost_repeat_that_nothing_follows_is_found_by_comparing_with_the_stream(edge: Fixture) -> None:
    await edge.open_topic()
    client = Client()
    await edge.resume(client, 0)
    edge.broker.holding = True
    seqs = await edge.store(3)

    await edge.hub._reconcile(True)
    await settled()

    assert client.seqs == seqs


async def test_a_stream_made_anew_restarts_its_topics_and_tells(edge: Fixture) -> None:
    await edge.store(5)
    client = Client()
    await edge.resume(client, 0)
    edge.server.recreate(subjects.CHAT)
    await edge.hub._reconcile(True)
    seqs = await edge.store(2)
    await settled()

    assert [(gap.subject, gap.reason) for gap in edge.gaps] == [(ROOM, GapReason.EPOCH)]
    assert client.seqs[-2:] == seqs


async def test_an_outage_during_a_comparison_leaves_its_topics_in_doubt(edge: Fixture) -> None:
    await edge.store(1)
    await edge.open_topic()
    (topic,) = edge.hub._topics()
    edge.server.stop()
    edge.server.start()
    read_last = edge.broker.read_last

    async def cut_meanwhile(stream: str, names: Sequence[str]) -> list[Message]:
        edge.server.stop()
        edge.server.start()
        return await read_last(stream, names)

    with patch.object(edge.broker, "read_last", cut_meanwhile):
        await edge.hub._reconcile(True)
    assert topic.unsure
    await edge.hub._reconcile(True)
    assert not topic.unsure


async def test_what_was_purged_in_an_outage_is_told_once_and_the_room_goes_on(edge: Fixture) -> None:
    await edge.store(1, OTHER)
    seen = await edge.store(1)
    client = Client()
    await edge.resume(client, seen[0])
    edge.server.stop()
    edge.broker.holding = True
    stream = edge.server.stream(subjects.CHAT)
    lost = [edge.server.store(stream, ROOM, b"{}", {}).seq for _ in range(2)]
    await settled()
    edge.server.purge(subjects.CHAT, ROOM)
    edge.server.start()
    for _ in range(3):
        await edge.hub._reconcile(True)
    edge.broker.holding = False
    live = await edge.store(1)
    await settled()

    assert [(gap.start, gap.end, gap.reason) for gap in edge.gaps] == [(seen[0], lost[-1], GapReason.EXPIRED)]
    assert client.seqs == live


# -- outlets ----------------------------------------------------------------------------------------------------------


async def test_who_leaves_amid_a_broadcast_gets_no_more_of_it_where_its_events_go(edge: Fixture) -> None:
    await edge.open_topic()
    here = Position(await edge.epoch(), 0)
    clients = {Client(): Client() for _ in range(2 * SLICE)}
    for client, outlet in clients.items():
        await edge.hub.attach(subjects.CHAT, ROOM, client, here, outlet=outlet)
    seqs = await edge.store(1)
    first, last = next(iter(clients)), next(reversed(clients))
    edge.hub.detach(ROOM, last)
    await settled()

    assert (clients[first].seqs, first.seqs) == (seqs, [])
    assert clients[last].seqs == []


async def test_who_is_ahead_of_a_topic_does_not_wait_for_what_was_purged_meanwhile(
    edge: Fixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay_module, "ASKED_EVERY", 2)
    await edge.open_topic()
    edge.broker.holding = True  # this edge does not hear of what another has told the client already
    seqs, client = await edge.store(3), Client()
    coming = asyncio.ensure_future(edge.resume(client, seqs[-1]))
    await settled()
    assert not coming.done()
    await edge.broker.purge(subjects.CHAT, ROOM)

    async with asyncio.timeout(5):
        await coming
    assert client.seqs == []


async def test_who_leaves_while_a_topic_has_yet_to_catch_up_is_not_waited_for(edge: Fixture) -> None:
    await edge.open_topic()
    edge.broker.holding = True
    seqs, client = await edge.store(3), Client()
    coming = asyncio.ensure_future(edge.resume(client, seqs[-1]))
    await settled()
    edge.hub.detach(ROOM, client)

    async with asyncio.timeout(0.5):  # before the topic has caught up by itself
        assert await coming is None
    assert edge.hub.listeners(ROOM) == []
