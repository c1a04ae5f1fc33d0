"""Streams are made once and changed without losing what they hold."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.broker.jetstream_admin import JetStreamAdmin
from shared.broker.provision import configs, provision
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.errors import BadInput, Unavailable
from tests.support.nats_server import NatsServer

BrokerFactory = Callable[..., Awaitable[JetStreamBroker]]


async def outcomes(url: str) -> set[str]:
    done: set[str] = set()
    await provision(url, report=lambda _name, outcome: done.add(outcome))
    return done


async def ensure(url: str, stream: str = subjects.CHAT, **changes: Any) -> None:
    """Give a stream these settings."""
    admin = await JetStreamAdmin.connect(url, timeout_s=5)
    try:
        await admin.ensure_stream({"name": stream} | changes)
    finally:
        await admin.close()


async def keys_until_full(link: JetStreamBroker) -> list[str]:
    """Make keys of 1,000 bytes in bucket `rooms`, and return those that it took."""
    made: list[str] = []
    while True:
        name = new_id()
        try:
            await link.put(subjects.ROOMS, name, value=b"x" * 1_000, expect=0)
        except Unavailable:
            return made
        made.append(name)


async def test_provisioning_again_changes_nothing(nats_server: NatsServer) -> None:
    assert await outcomes(nats_server.url) == {"unchanged"}


async def test_a_changed_stream_is_brought_back_and_keeps_its_messages_and_its_life(
    nats_server: NatsServer, broker: BrokerFactory
) -> None:
    link, room = await broker(url=nats_server.url), subjects.chat_message(new_id())
    appended = await link.append(room, b"kept", msg_id=new_id())
    before = await link.state(subjects.CHAT)
    await ensure(nats_server.url, max_msgs_per_subject=5)

    assert await outcomes(nats_server.url) == {"unchanged", "updated"}

    assert await outcomes(nats_server.url) == {"unchanged"}
    assert await link.last_seq(subjects.CHAT, room) == appended.seq
    assert await link.state(subjects.CHAT) == before


async def test_an_operators_bump_changes_the_epoch_and_survives_provisioning(
    nats_server: NatsServer, broker: BrokerFactory
) -> None:
    link = await broker(url=nats_server.url)
    before = (await link.state(subjects.CHAT)).epoch
    await ensure(nats_server.url, metadata={"epoch": "restored 2026-11-22"})
    bumped = (await link.state(subjects.CHAT)).epoch
    await ensure(nats_server.url, max_msgs_per_subject=5)
    await provision(nats_server.url)

    assert before != bumped == (await link.state(subjects.CHAT)).epoch
    assert bumped.startswith(before)
    assert len(bumped) <= 16


async def test_a_refused_change_names_the_stream(nats_server: NatsServer) -> None:
    with pytest.raises(BadInput, match="stream CHAT"):
        await ensure(nats_server.url, storage="memory")
    with pytest.raises(BadInput, match=r"stream CHAT.*replicas"):
        await provision(nats_server.url, replicas=3)


async def test_a_full_bucket_refuses_what_is_new_at_once_and_forgets_nothing_and_a_deletion_makes_room(
    nats_server: NatsServer, broker: BrokerFactory
) -> None:
    link, bucket = await broker(url=nats_server.url), subjects.bucket_stream(subjects.ROOMS)
    await ensure(nats_server.url, bucket, discard="old")  # as it was once provisioned
    await provision(nats_server.url)
    await ensure(nats_server.url, bucket, max_bytes=10_000)
    async with asyncio.timeout(5):
        made = await keys_until_full(link)

    assert 5 < len(made) < 10
    for name in made:
        assert await link.get(subjects.ROOMS, name)
    await link.delete(subjects.ROOMS, made[0])
    await link.put(subjects.ROOMS, new_id(), value=b"x" * 500, expect=0)


async def test_what_is_stored_survives_a_stop_and_a_start(nats_server: NatsServer, broker: BrokerFactory) -> None:
    room = subjects.chat_message(new_id())
    appended = await (await broker(url=nats_server.url)).append(room, b"x", msg_id=new_id())
    await nats_server.stop()
    await nats_server.start()

    link = await broker(url=nats_server.url)
    assert await link.last_seq(subjects.CHAT, room) == appended.seq


def test_in_a_cluster_every_stream_is_on_every_node_and_what_is_cheap_to_lose_is_in_memory() -> None:
    made = {config["name"]: (config["num_replicas"], config["storage"]) for config in configs(3)}

    assert {copies for copies, _ in made.values()} == {3}
    assert made[subjects.CHAT] == made["KV_rooms"] == (3, "file")
    assert made[subjects.PRICES] == made["KV_presence"] == (3, "memory")
