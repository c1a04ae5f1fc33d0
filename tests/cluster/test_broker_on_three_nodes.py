"""The port's promise on three nodes: what only a cluster can break, and what it must live through."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import pytest
import pytest_asyncio

from shared.broker.jetstream import JetStreamBroker, JetStreamSubscription
from shared.broker.port import Handler, Message
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.edge.continuity import reconciler
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event
from shared.edge.topics.hub import Hub
from shared.errors import Unavailable
from shared.telemetry.metrics import Metrics
from tests.support.listening import Ear
from tests.support.nats_cluster import NatsCluster
from tests.support.waiting import eventually

Answer = TypeVar("Answer")

NEW_LEADER_S = 15.0  # nats-server begins an election 4 to 9 s after a leader fell silent
NOTICED_S = 10.0
"""Three pings of 2 s without an answer, and 2 s for a node that takes the next connection and says nothing."""

pytestmark = pytest.mark.asyncio(loop_scope="module")

Connect = Callable[..., Awaitable[JetStreamBroker]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NatsCluster]:
    """One cluster for all tests of this module."""
    async with NatsCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest_asyncio.fixture(loop_scope="module")
async def cluster(nodes: NatsCluster) -> AsyncIterator[NatsCluster]:
    """The cluster, whole at the start of each test and made whole after it."""
    yield nodes
    for node in nodes.nodes.values():
        if not node.pid:
            await node.start()
        elif node.frozen:
            node.thaw()
    await nodes.settled()


@pytest_asyncio.fixture(loop_scope="module")
async def connect(cluster: NatsCluster) -> AsyncIterator[Connect]:
    """Connects to every node, or first to the one that is named."""
    made: list[JetStreamBroker] = []

    async def make(first: str = "") -> JetStreamBroker:
        url = cluster.nodes[first].url if first else cluster.url
        made.append(await JetStreamBroker.connect(url, name="test"))
        return made[-1]

    yield make
    for broker in made:
        await broker.close()


def fresh_room() -> str:
    return subjects.chat_message(new_id())


async def stored(broker: JetStreamBroker, room: str) -> list[bytes]:
    """Return what the room holds, once a replica gives all that the leader knows."""
    last = await asked_until_answered(lambda: broker.last_seq(subjects.CHAT, room))
    while True:
        page = await asked_until_answered(lambda: broker.read_after(subjects.CHAT, room, 0, limit=10_000))
        messages = page.messages
        if messages and messages[-1].seq == last:
            return [message.data for message in messages]


# -- write ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill", "freeze", "step down"])
async def test_appends_go_on_through_the_loss_of_the_leader_and_none_is_lost_or_doubled(
    cluster: NatsCluster, connect: Connect, fault: str
) -> None:
    leader = await cluster.leader(subjects.CHAT)
    (follower, _) = await cluster.followers(subjects.CHAT)
    broker, room = await connect(follower), fresh_room()
    acked: dict[bytes, int] = {}
    done = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not done.is_set():
            data = b"%d-%d" % (writer, number)
            acked[data] = (await broker.append(room, data, msg_id=new_id())).seq
            number += 1

    async with asyncio.TaskGroup() as group:
        for writer in range(4):
            group.create_task(write(writer))
        await eventually(lambda: len(acked) > 50)
        began_s = time.monotonic()
        await {"kill": cluster.nodes[leader].kill, "freeze": cluster.nodes[leader].freeze}.get(
            fault, lambda: cluster.step_down(subjects.CHAT)
        )()
        before = len(acked)
        await eventually(lambda: len(acked) > before + 50, deadline_s=2 * NEW_LEADER_S)
        paused_s = time.monotonic() - began_s
        done.set()

    assert paused_s < NEW_LEADER_S
    found = await stored(broker, room)
    assert sorted(found) == sorted(acked)
    assert found == sorted(acked, key=acked.__getitem__)


async def test_a_repetition_is_known_to_the_new_leader(cluster: NatsCluster, connect: Connect) -> None:
    broker, room, once = await connect(), fresh_room(), new_id()
    first = await broker.append(room, b"x", msg_id=once)
    leader = await cluster.leader(subjects.CHAT)
    await cluster.nodes[leader].kill()

    again = await broker.append(room, b"x", msg_id=once)

    assert (again.seq, again.duplicate) == (first.seq, True)
    assert await stored(broker, room) == [b"x"]


async def test_keys_and_counters_live_through_the_loss_of_any_node(cluster: NatsCluster, connect: Connect) -> None:
    broker, key, counter = await connect(), new_id(), subjects.counter("test", new_id(), 1)
    revision = await broker.put(subjects.ROOMS, key, value=b"0", expect=0)
    counted = 0
    for number, node in enumerate(cluster.nodes.values(), 1):
        await node.kill()
        entry = await asked_until_answered(lambda: broker.get(subjects.ROOMS, key))
        assert entry is not None
        assert entry.revision == revision
        revision = await broker.put(subjects.ROOMS, key, value=b"%d" % number, expect=revision)
        # A counter has no id to be repeated with: who asks too early is told so, and its step may have been taken.
        before, counted = counted, await asked_until_answered(lambda: broker.count(counter))
        assert counted > before
        await node.start()
        await cluster.settled()


async def asked_until_answered(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Return the answer of a broker that refuses while there is no leader, which may be longer than it waits."""
    async with asyncio.timeout(40):
        while True:
            with suppress(Unavailable):
                return await ask()


# -- read -------------------------------------------------------------------------------------------------------------


async def test_a_reader_at_a_node_that_is_behind_misses_nothing(cluster: NatsCluster, connect: Connect) -> None:
    leader = await cluster.leader(subjects.CHAT)
    (behind, _) = await cluster.followers(subjects.CHAT)
    writer, reader, room = await connect(leader), await connect(behind), fresh_room()
    listener, hub = Listener(), make_hub(reader)
    await hub.start()
    await hub.attach(subjects.CHAT, room, listener, await hub.position(subjects.CHAT, room))
    await cluster.nodes[behind].freeze()
    written = [b"%d" % number for number in range(300)]
    last = [await writer.append(room, data, msg_id=new_id()) for data in written][-1]

    cluster.nodes[behind].thaw()

    # It reads from its own node, which is behind; the leader says how far to read.
    assert await reader.last_seq(subjects.CHAT, room) == last.seq
    await eventually(lambda: len(listener.data) == len(written), deadline_s=20)
    assert listener.data == written
    await hub.close()


async def test_what_a_leader_stored_and_did_not_repeat_arrives_as_soon_as_there_is_a_new_one(
    cluster: NatsCluster, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciler, "RECONCILE_EVERY_S", 3_600.0)
    broker, room, listener = Hearing(await connect()), fresh_room(), Listener()
    hub = make_hub(broker)
    await hub.start()
    await hub.attach(subjects.CHAT, room, listener, await hub.position(subjects.CHAT, room))
    await broker.append(room, b"repeated", msg_id=new_id())
    await eventually(lambda: listener.data == [b"repeated"])
    broker.deaf_to = subjects.live(room)
    await broker.append(room, b"not repeated", msg_id=new_id())

    await cluster.step_down(subjects.CHAT)

    await eventually(lambda: len(listener.data) == 2)
    assert listener.data == [b"repeated", b"not repeated"]
    await hub.close()


# -- the link ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_a_link_whose_node_is_lost_moves_to_another_with_all_that_it_listens_to(
    cluster: NatsCluster, connect: Connect, fault: str
) -> None:
    broker, ear, subject = await connect(), Ear(), subjects.typing(new_id())
    back = asyncio.Event()
    broker.on_reconnect(back.set)
    await broker.subscribe(subject, ear)
    mine = next(name for name, node in cluster.nodes.items() if node.url == address_of(broker))
    other = await connect(next(name for name in cluster.nodes if name != mine))

    began_s = time.monotonic()
    await getattr(cluster.nodes[mine], fault)()
    async with asyncio.timeout(15):
        await back.wait()

    assert time.monotonic() - began_s < NOTICED_S
    assert address_of(broker) != cluster.nodes[mine].url

    async def hears() -> bool:
        await other.publish(subject, b"here")
        return bool(ear.data)

    await eventually(hears)


async def test_a_link_without_any_node_comes_back_when_one_majority_does(
    cluster: NatsCluster, connect: Connect
) -> None:
    broker, room = await connect(), fresh_room()
    for node in cluster.nodes.values():
        await node.kill()
    await eventually(lambda: not broker.usable())
    with pytest.raises(Unavailable):
        await broker.check()
    for name in ("node-1", "node-3"):
        await cluster.nodes[name].start()

    appended = await asked_until_answered(lambda: append(broker, room))

    assert await broker.last_seq(subjects.CHAT, room) == appended


async def append(broker: JetStreamBroker, room: str) -> int:
    return (await broker.append(room, b"x", msg_id="the same")).seq


# -- helpers ----------------------------------------------------------------------------------------------------------


class Listener:
    """A client's session, as the hub sees it."""

    user_id = "user"

    def __init__(self) -> None:
        self.data: list[bytes] = []

    def deliver(self, event: Event) -> None:
        self.data.append(event.body)

    async def writable(self) -> None:
        """Take as much as there is."""


class Hearing(JetStreamBroker):
    """A broker that can be deaf to one subject, as if its stream's leader had not repeated what it stored."""

    def __init__(self, broker: JetStreamBroker) -> None:
        self.__dict__.update(broker.__dict__)
        self.deaf_to = ""

    async def subscribe(self, pattern: str, handler: Handler) -> JetStreamSubscription:
        def hear(message: Message) -> None:
            if message.subject != self.deaf_to:
                handler(message)

        return await super().subscribe(pattern, hear)


def make_hub(broker: JetStreamBroker) -> Hub:
    metrics = Metrics()
    return Hub(
        broker,
        encoders={subjects.CHAT: lambda message, _epoch: Event("chat_message", message.data)},
        deadletters=DeadLetters(broker, metrics),
        metrics=metrics,
        on_gap=lambda _topic, _gap: None,
    )


def address_of(broker: JetStreamBroker) -> str:
    """Return the address of the node that a broker is connected to."""
    url = broker._link._client.connected_url
    return f"nats://{url.hostname}:{url.port}"
