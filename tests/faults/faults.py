"""What goes wrong: each function does it to a world and undoes it, as an operator or a supervisor would."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal

import httpx
import nats
from nats.js import JetStreamContext

from shared.broker.provision import provision
from shared.contracts import subjects
from shared.contracts.streams import STREAMS
from tests.faults.record import Op
from tests.faults.trial import Fault
from tests.faults.world import World
from tests.support.edges import EdgeProcess, until_ready
from tests.support.waiting import eventually

OUTAGE_S = 6.0
EXIT_S = 30.0
KEPT_OF_A_TOPIC = next(spec.max_per_subject for spec in STREAMS if spec.name == subjects.NOTIFY)


# -- edges ------------------------------------------------------------------------------------------------------------


async def kill_an_edge_of_each(world: World) -> None:
    """kill -9 of one edge of the chat and one of the notifications; others are started in their place."""
    doomed = [random.choice(world.chat.edges), random.choice(world.notifications.edges)]
    for edge in doomed:
        await edge.kill()
    world.over.set()
    for edge in doomed:
        await world.replace(edge)


async def freeze_an_edge(world: World) -> None:
    """SIGSTOP of an edge; its health check fails, and it is sent clients again when it has thawed."""
    edge = random.choice(world.chat.edges)
    edge.signal(signal.SIGSTOP)
    await asyncio.sleep(1)  # as long as a balancer takes to see it
    world.forget(edge)
    await asyncio.sleep(OUTAGE_S)
    edge.signal(signal.SIGCONT)
    await until_ready(edge.http)
    world.chat.edges.append(edge)


async def restart_every_edge(world: World) -> None:
    """A rolling restart: for each edge another is started, then it is drained and ended."""
    for edge in world.edges:
        await world.start_edge(edge.name.partition("-")[0])
        await stop(world, edge)


async def stop(world: World, edge: EdgeProcess) -> None:
    """End an edge as an orchestrator does."""
    world.forget(edge)
    edge.signal(signal.SIGTERM)
    async with asyncio.timeout(EXIT_S):
        assert await edge.process.wait() == 0, edge.log.read_text()


# -- NATS -------------------------------------------------------------------------------------------------------------


async def kill_nats(world: World) -> None:
    """kill -9 of a node, the leader of the chat's stream in a cluster; it is started again after a while."""
    node = world.nodes[await leader(world)]
    await node.kill()
    if world.cluster is not None:
        world.over.set()  # the others go on
    await asyncio.sleep(OUTAGE_S)
    await node.start()


async def kill_each_node_in_turn(world: World) -> None:
    """kill -9 of each node, one after the other, each when the one before has caught up."""
    for node in world.nodes.values():
        await node.kill()
        await asyncio.sleep(2)
        await node.start()
        await whole(world)


async def freeze_nats(world: World) -> None:
    """SIGSTOP of a node, the leader of the chat's stream in a cluster: its connections stay open."""
    node = world.nodes[await leader(world)]
    await node.freeze()
    if world.cluster is not None:
        world.over.set()
    await asyncio.sleep(OUTAGE_S)
    node.thaw()


async def restart_nats(world: World) -> None:
    """SIGTERM of every node, one after the other, and a start."""
    for node in world.nodes.values():
        await node.stop()
        await node.start()
        await whole(world)


async def step_down(world: World) -> None:
    """The leader of the chat's stream hands over, four times."""
    assert world.cluster is not None
    for _ in range(4):
        await world.cluster.step_down(subjects.CHAT)
        await world.cluster.step_down(subjects.NOTIFY)
        await asyncio.sleep(1)


async def leader(world: World) -> str:
    """Return the name of the node that leads the chat's stream."""
    return await world.cluster.leader(subjects.CHAT) if world.cluster else next(iter(world.nodes))


async def whole(world: World) -> None:
    """Return when every node has everything."""
    if world.cluster is not None:
        await world.cluster.settled()


# -- the network between edges and NATS -------------------------------------------------------------------------------


async def partition_an_edge(world: World) -> None:
    """Nothing passes between one edge of each service and NATS."""
    for edge in one_of_each(world):
        world.nats_proxy[edge.name].block()
    await outage(world)


async def mute_an_edge(world: World) -> None:
    """What one edge of each service sends does not reach NATS; what NATS sends does reach the edge."""
    for edge in one_of_each(world):
        world.nats_proxy[edge.name].block(world.nats_proxy[edge.name].up)
    await outage(world)


async def deafen_an_edge(world: World) -> None:
    """What NATS sends does not reach one edge of each service; what the edge sends does reach NATS."""
    for edge in one_of_each(world):
        world.nats_proxy[edge.name].block(world.nats_proxy[edge.name].down)
    await outage(world)


async def cut_links(world: World) -> None:
    """The links to NATS are reset, all of them, again and again."""
    for _ in range(8):
        await asyncio.sleep(random.uniform(0.2, 1.0))
        for proxy in world.nats_proxy.values():
            proxy.cut()


async def slow_links(world: World) -> None:
    """The links to NATS take 100 ms each way, in slices of 100 bytes, and lose their connection now and then."""
    for proxy in world.nats_proxy.values():
        for way in (proxy.up, proxy.down):
            way.latency_s, way.slice_bytes = 0.1, 100
    for _ in range(3):
        await asyncio.sleep(2)
        random.choice(list(world.nats_proxy.values())).cut()
    heal(world)


async def outage(world: World) -> None:
    """Let the network be as it is for a while, then well again."""
    await asyncio.sleep(OUTAGE_S)
    heal(world)


def heal(world: World) -> None:
    """Every link to NATS is well."""
    for proxy in world.nats_proxy.values():
        proxy.heal()


def one_of_each(world: World) -> list[EdgeProcess]:
    """Return one edge of the chat and one of the notifications."""
    return [random.choice(world.chat.edges), random.choice(world.notifications.edges)]


# -- clients ----------------------------------------------------------------------------------------------------------


async def cut_clients(world: World) -> None:
    """Half of the clients lose their connection, again and again."""
    for _ in range(5):
        for client in random.sample(list(world.crowd.clients), len(world.crowd.clients) // 2):
            client.cut()
        await asyncio.sleep(1)


async def half_open_clients(world: World) -> None:
    """Clients and edges do not hear each other any more, and nobody says so: each must find out for itself."""
    proxies = await world.proxies_before_edges()
    for proxy in proxies:
        proxy.block()
    await asyncio.sleep(OUTAGE_S)  # longer than a client waits, and than an edge does
    for edge in world.chat.edges:
        await eventually(lambda edge=edge: _sessions(edge, 0), deadline_s=15)
    for proxy in proxies:
        proxy.cut()
        proxy.heal()


async def poor_lines(world: World) -> None:
    """Clients reach the edges over 200 ms, at 32 kB/s, in slices of 7 bytes, and are cut now and then."""
    proxies = await world.proxies_before_edges()
    for proxy in proxies:
        for way in (proxy.up, proxy.down):
            way.latency_s, way.bytes_per_s, way.slice_bytes = 0.2, 32_000, 700
        proxy.down.slice_bytes = 7
    for _ in range(3):
        await asyncio.sleep(2)
        random.choice(list(world.crowd.clients)).cut()
    for proxy in proxies:
        proxy.heal()


async def slow_readers(world: World) -> None:
    """A quarter of the chat stops reading for a while, then loses its connection and comes back for what it missed."""
    slow = random.sample(list(world.crowd.members), len(world.crowd.members) // 4)
    for member in slow:
        member.stop_reading()
    await asyncio.sleep(OUTAGE_S)
    for member in slow:
        member.cut()


# -- what else a suite stands on --------------------------------------------------------------------------------------


async def keys_down(world: World) -> None:
    """The auth service does not answer, and every client comes back meanwhile."""
    world.keys_proxy.refuses = True
    world.keys_proxy.cut()
    for client in world.crowd.clients:
        client.cut()
    await asyncio.sleep(OUTAGE_S)
    world.keys_proxy.heal()


async def purge_stream(world: World) -> None:
    """An operator empties both streams while half of the clients are away: what they missed can be had no more."""
    for client in random.sample(list(world.crowd.clients), len(world.crowd.clients) // 2):
        client.hold(2)
        client.cut()
    await asyncio.sleep(1)
    js = await admin(world)
    for stream in (subjects.CHAT, subjects.NOTIFY):
        await js.purge_stream(stream)
    await js._nc.close()


async def purge_what_an_edge_missed(world: World) -> None:
    """An operator purges half of the rooms and topics while an edge of each service is cut off; all go on."""
    for edge in one_of_each(world):
        world.nats_proxy[edge.name].refuses = True
        world.nats_proxy[edge.name].cut()
    await asyncio.sleep(2)
    js = await admin(world)
    for room in list(world.crowd.rooms)[::2]:
        await js.purge_stream(subjects.CHAT, subject=subjects.chat_message(room))
    for topic in list(world.crowd.topics)[::2]:
        await js.purge_stream(subjects.NOTIFY, subject=subjects.notify_topic(topic))
    await js._nc.close()
    await asyncio.sleep(1)
    heal(world)


async def make_streams_anew(world: World) -> None:
    """Both streams are deleted and made again: numbers begin at 1, and mean something else."""
    js = await admin(world)
    for stream in (subjects.CHAT, subjects.NOTIFY):
        await js.delete_stream(stream)
    await js._nc.close()
    world.announcer.epoch = "anew"
    await provision(world.nats_url, replicas=len(world.nodes))


async def fill_the_disk(world: World) -> None:
    """The disk that NATS stores on is full; JetStream gives up, and is started again when there is room."""
    assert world.disk.is_mount(), "only a disk of its own may be filled: this trial needs root, and Linux"
    (node,) = world.nodes.values()
    hog = world.disk / "hog"
    with hog.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 16))
    await asyncio.sleep(OUTAGE_S)
    hog.unlink()
    await node.stop()
    await node.start()


async def miss_more_than_is_kept(world: World) -> None:
    """An edge is cut off while more is said on one topic than its stream keeps of one."""
    edge = random.choice(world.notifications.edges)
    proxy = world.nats_proxy[edge.name]
    proxy.refuses = True
    proxy.cut()
    topic = next(iter(world.crowd.topics))
    for _ in range(KEPT_OF_A_TOPIC // 100 + 2):
        for _ in range(100):
            world.announcer.announce(topic)
        await world.announcer.done()
    proxy.heal()


async def revoke_sessions(world: World) -> None:
    """Sessions end while one edge is cut off: each connection must be gone a second after its edge can know."""
    revoked = random.sample(list(world.crowd.members), 8)
    edge = random.choice(world.chat.edges)
    proxy = world.nats_proxy.get(edge.name)
    if proxy is not None:
        proxy.block()
    js = await admin(world)
    for member in revoked:
        await js.publish(f"auth.revoked.{member.user}", member.revocation())
    await js._nc.close()
    await asyncio.sleep(3)
    heal(world)
    await until_ready(edge.http)  # it knows what was revoked when it can serve again
    for member in revoked:
        world.recorder.note(Op.REVOKE, member.user)
    await asyncio.sleep(2)


async def admin(world: World) -> JetStreamContext:
    """Return a link that may do anything."""
    client = await nats.connect(world.nats_url.split(","))
    return client.jetstream(timeout=10)


async def _sessions(edge: EdgeProcess, count: int) -> bool:
    """Whether an edge has so many sessions."""
    try:
        text = (await edge.http.get("/metrics")).text
    except httpx.TransportError:
        return False
    return any(line.startswith("fanfare_sessions{") and line.endswith(f" {count}.0") for line in text.splitlines())


FAULTS = (
    Fault("kill -9 of an edge", kill_an_edge_of_each, quick=(1,)),
    Fault("SIGSTOP of an edge", freeze_an_edge),
    Fault("rolling restart of every edge", restart_every_edge),
    Fault("kill -9 of NATS, of the stream leader in a cluster", kill_nats, quick=(3,)),
    Fault("kill -9 of each NATS node in turn", kill_each_node_in_turn, nodes=(3,)),
    Fault("SIGSTOP of NATS, of the stream leader in a cluster", freeze_nats),
    Fault("restart of every NATS node", restart_nats),
    Fault("stream leaders step down", step_down, nodes=(3,)),
    Fault("edge cut off from NATS", partition_an_edge, nodes=(1,), quick=(1,)),
    Fault("edge cannot send to NATS", mute_an_edge, nodes=(1,)),
    Fault("edge does not hear NATS", deafen_an_edge, nodes=(1,)),
    Fault("links to NATS reset again and again", cut_links, nodes=(1,)),
    Fault("slow and sliced links to NATS", slow_links, nodes=(1,)),
    Fault("half of the clients cut, five times", cut_clients),
    Fault("half-open clients", half_open_clients, within_s=20, nodes=(1,)),
    Fault("slow, narrow and sliced lines to clients", poor_lines, within_s=30, nodes=(1,)),
    Fault("slow readers", slow_readers),
    Fault("auth service down", keys_down),
    Fault("streams purged", purge_stream, announces=True, repeatable=False),
    Fault(
        "rooms and topics purged, one edge cut off",
        purge_what_an_edge_missed,
        announces=True,
        nodes=(1,),
        repeatable=False,
    ),
    Fault("streams made anew", make_streams_anew, within_s=30, announces=True, repeatable=False, quick=(1,)),
    Fault("disk of NATS full", fill_the_disk, within_s=30, nodes=(1,)),
    Fault("edge misses more than is kept", miss_more_than_is_kept, announces=True, nodes=(1,), repeatable=False),
    Fault("sessions revoked, one edge cut off", revoke_sessions, repeatable=False),
)
