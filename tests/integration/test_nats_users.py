"""infra/nats/accounts.conf gives each user what its service does, and nothing more: on a real server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import nats
import pytest
import pytest_asyncio

from shared.broker.jetstream import JetStreamBroker
from shared.broker.port import Broker, Message
from shared.broker.provision import provision
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.contracts.streams import BUCKETS, STREAMS
from shared.errors import Unavailable
from shared.runtime.embedded import EmbeddedNats

ACCOUNTS = Path(__file__).parents[2] / "infra" / "nats" / "accounts.conf"
USERS = ["admin", "auth", "chat", "notifications", "price_feed", "producer"]
SERVICES = ["auth", "chat", "notifications", "price_feed"]

Connect = Callable[[str], Awaitable[JetStreamBroker]]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def address(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Callable[[str], str]]:
    """Gives a user's address on a provisioned server with accounts.conf; everyone's password is their name."""
    accounts = ACCOUNTS.read_text()
    for user in USERS:
        accounts = accounts.replace(f"$NATS_{user.upper()}_PASSWORD", user)
    async with EmbeddedNats(tmp_path_factory.mktemp("users"), extra_config=accounts) as server:

        def of(user: str) -> str:
            return server.url.replace("://", f"://{user}:{user}@")

        await provision(of("admin"))
        yield of


@pytest.fixture
async def connect(address: Callable[[str], str]) -> AsyncIterator[Connect]:
    """Connects a service as its own user, with an inbox of its own."""
    made: list[JetStreamBroker] = []

    async def as_user(user: str) -> JetStreamBroker:
        made.append(await JetStreamBroker.connect(address(user), name=user))
        return made[-1]

    yield as_user
    for broker in made:
        await broker.close()


def ignore(_message: Message) -> None:
    """A handler for what is not looked at."""


async def as_chat(broker: Broker) -> None:
    """Do all that the chat service does on the bus."""
    room, user, edge = new_id(), new_id(), new_id()
    for pattern in (
        subjects.live(subjects.chat_message(room)),
        subjects.ALL_REVOKED,
        subjects.ALL_TYPING,
        subjects.relay(room),
        subjects.ALL_READ,
        subjects.leader_elected(subjects.bucket_stream(subjects.ROOMS)),
        subjects.bucket_changes(subjects.LEASES, "edge"),
        subjects.bucket_changes(subjects.PRESENCE),
        subjects.bucket_changes(subjects.ROOMS),
    ):
        await broker.subscribe(pattern, ignore)
    await broker.append(subjects.chat_message(room), b"{}", msg_id=new_id())
    await broker.append(subjects.deadletter(subjects.chat_message(room)), b"{}", msg_id=new_id())
    await broker.publish(subjects.typing(room), b"{}")
    await broker.publish(subjects.relay(room), b"")
    await broker.publish(subjects.read(user), b"{}")
    await broker.publish(subjects.status("chat", edge), b"{}")
    await broker.publish(subjects.log("chat", edge), b"{}")
    await broker.purge(subjects.CHAT, subjects.chat_message(room))
    await broker.count(subjects.counter("chat", user, 1))
    await broker.state(subjects.CHAT)
    await broker.last_seq(subjects.CHAT, subjects.chat_message(room))
    await broker.read_after(subjects.CHAT, subjects.chat_message(room), 0, limit=10)
    await broker.read_last(subjects.CHAT, [subjects.chat_message(room)])
    await broker.count_after(subjects.CHAT, 0, subjects.chat_message(room))
    for bucket, *key in (
        (subjects.LEASES, "edge", edge),
        (subjects.PRESENCE, room, edge),
        (subjects.ROOMS, room),
        (subjects.OWNERS, user),
    ):
        await use_key(broker, bucket, *key)
        if bucket != subjects.OWNERS:
            await broker.read_last(subjects.bucket_stream(bucket), [subjects.bucket_keys(bucket)])
    await use_key(broker, subjects.MARKERS, user)
    await broker.append(subjects.presence_gone(room, user), b"{}", msg_id=new_id())
    await broker.read_last(subjects.bucket_stream(subjects.PRESENCE), [subjects.rosters_of(edge)])
    canary = subjects.canary(edge)
    await broker.subscribe(subjects.live(canary), ignore)
    await broker.publish(canary, b"{}")
    await broker.state(subjects.CANARY)
    await broker.last_seq(subjects.CANARY, canary)
    await broker.read_after(subjects.CANARY, canary, 0, limit=1)
    await as_edge(broker, subjects.CHAT, subjects.CANARY)


async def as_notifications(broker: Broker) -> None:
    """Do all that the notifications service does on the bus."""
    user, topic, edge, session = (new_id() for _ in range(4))

    async def answer(_request: Message) -> bytes:
        return b"done"

    for pattern in (
        subjects.live(subjects.ALL_NOTIFY),
        subjects.ALL_REVOKED,
        subjects.ALL_PRICES,
        subjects.ALL_STATUS,
        subjects.ALL_LOGS,
        subjects.FEED_STATUS,
        subjects.bucket_changes(subjects.WATCHLISTS),
    ):
        await broker.subscribe(pattern, ignore)
    await broker.serve(subjects.session_commands(edge), answer)
    assert await broker.request(subjects.session_command(edge, session), b"{}") == b"done"
    for subject in (subjects.notify_user(user), subjects.notify_topic(topic)):
        await broker.append(subject, b"{}", msg_id=new_id())
        await broker.last_seq(subjects.NOTIFY, subject)
        await broker.read_after(subjects.NOTIFY, subject, 0, limit=10)
    await broker.append(subjects.deadletter(subjects.price("ACME")), b"{}", msg_id=new_id())
    await broker.publish(subjects.status("notifications", edge), b"{}")
    await broker.publish(subjects.log("notifications", edge), b"{}")
    await broker.state(subjects.NOTIFY)
    await broker.read_last(subjects.PRICES, [subjects.ALL_PRICES])
    await broker.read_last(subjects.STATUS, [subjects.ALL_STATUS])
    await use_key(broker, subjects.WATCHLISTS, user)
    await broker.publish(subjects.notify_canary(edge), b"{}")
    await as_edge(broker, subjects.NOTIFY)


async def as_edge(broker: Broker, *streams: str) -> None:
    """Do what every edge does: admit tickets once, know what was revoked, hear of new leaders."""
    for led in (*streams, subjects.REVOKED):
        await broker.subscribe(subjects.leader_elected(led), ignore)
    await broker.put(subjects.TICKETS, new_id(), value=b"1", expect=0, ttl_s=60)
    await broker.read_last(subjects.REVOKED, [subjects.STORED_REVOKED])
    await broker.read_after(subjects.REVOKED, subjects.revoked(new_id()), 0, limit=10)


async def as_auth(broker: Broker) -> None:
    """Do all that the auth service does on the bus."""
    await broker.append(subjects.revoked(new_id()), b"{}", msg_id=new_id())
    await broker.publish(subjects.status("auth", new_id()), b"{}")
    await broker.publish(subjects.log("auth", new_id()), b"{}")


async def as_price_feed(broker: Broker) -> None:
    """Do all that the price feed does on the bus."""
    await broker.subscribe(subjects.bucket_changes(subjects.LEASES), ignore)
    await broker.publish(subjects.price("ACME"), b"{}")
    await broker.publish(subjects.status("price_feed", new_id()), b"{}")
    await broker.publish(subjects.log("price_feed", new_id()), b"{}")
    await broker.read_last(subjects.PRICES, [subjects.price("ACME")])
    for stream in (subjects.PRICES, subjects.bucket_stream(subjects.LEASES)):
        await broker.state(stream)
    await use_key(broker, subjects.LEASES, "price_feed")


async def use_key(broker: Broker, bucket: str, *key: str) -> None:
    """Set a key, read it, remove it, and make it anew."""
    revision = await broker.put(bucket, *key, value=b"1", expect=0, ttl_s=60)
    assert await broker.get(bucket, *key)
    await broker.delete(bucket, *key, expect=revision)
    await broker.put(bucket, *key, value=b"2", expect=0, ttl_s=60)


WORK: dict[str, Callable[[Broker], Awaitable[None]]] = {
    "auth": as_auth,
    "chat": as_chat,
    "notifications": as_notifications,
    "price_feed": as_price_feed,
}


@pytest.mark.parametrize("service", SERVICES)
async def test_each_service_may_do_its_work(connect: Connect, service: str) -> None:
    broker = await connect(service)

    await WORK[service](broker)

    await broker.check()  # it fails for good once the server has refused anything
    assert broker.usable()


@pytest.mark.parametrize("user", [*SERVICES, "producer"])
@pytest.mark.parametrize(
    "subject",
    [
        subjects.live(subjects.chat_message("room")),
        subjects.live(subjects.notify_user("user")),
        "_INBOX_admin.x",
        "$SYS.REQ.SERVER.PING",
        *(f"$JS.API.STREAM.{verb}.CHAT" for verb in ("CREATE", "UPDATE", "DELETE", "MSG.DELETE", "SNAPSHOT")),
        "$JS.API.STREAM.PURGE.NOTIFY",
        "$JS.API.CONSUMER.CREATE.CHAT",
    ],
)
async def test_nobody_may_forge_what_was_stored_or_touch_streams(connect: Connect, user: str, subject: str) -> None:
    await assert_publish_refused(await connect(user), subject)


@pytest.mark.parametrize(
    ("user", "subject"),
    [
        ("auth", subjects.chat_message("room")),
        ("chat", subjects.revoked("user")),
        ("chat", "$JS.API.STREAM.PURGE.KV_rooms"),
        ("chat", subjects.notify_user("user")),
        ("chat", subjects.price("ACME")),
        ("chat", subjects.status("auth", "one")),
        ("chat", subjects.log("auth", "one")),
        ("chat", subjects.bucket_key(subjects.LEASES, "price_feed")),
        ("notifications", subjects.chat_message("room")),
        ("notifications", subjects.revoked("user")),
        ("notifications", "$JS.API.STREAM.PURGE.CHAT"),
        ("notifications", "$JS.API.DIRECT.GET.CHAT"),
        ("price_feed", subjects.notify_user("user")),
        ("price_feed", subjects.bucket_key(subjects.LEASES, "edge", "one")),
        ("producer", subjects.chat_message("room")),
        ("producer", "$JS.API.STREAM.PURGE.CHAT"),
        ("producer", subjects.revoked("user")),
        ("producer", subjects.read("user")),
        ("producer", subjects.bucket_key(subjects.ROOMS, "room")),
        ("producer", subjects.session_command("edge", "session")),
        ("producer", "$JS.API.DIRECT.GET.NOTIFY"),
    ],
)
async def test_a_user_may_not_publish_what_is_anothers(connect: Connect, user: str, subject: str) -> None:
    await assert_publish_refused(await connect(user), subject)


@pytest.mark.parametrize("user", [*SERVICES, "producer"])
@pytest.mark.parametrize("pattern", [">", "live.>", "_INBOX.>", "_INBOX_admin.>", "$SYS.>", "$JS.>"])
async def test_nobody_may_listen_to_everything(address: Callable[[str], str], user: str, pattern: str) -> None:
    assert await refused_subscribe(address(user), pattern)


@pytest.mark.parametrize(
    ("user", "pattern"),
    [
        ("chat", "live.notify.user.*"),
        ("chat", "_INBOX_notifications.>"),
        ("notifications", "live.chat.room.*.msg"),
        ("notifications", "_INBOX_chat.>"),
        ("price_feed", "notify.user.*"),
        ("producer", "notify.user.*"),
        ("producer", "prices.*"),
        ("producer", "logs.*.*"),
        ("chat", "logs.*.*"),
    ],
)
async def test_a_user_may_not_listen_to_what_is_anothers(
    address: Callable[[str], str], user: str, pattern: str
) -> None:
    assert await refused_subscribe(address(user), pattern)


async def test_a_producer_may_publish_with_a_plain_client(address: Callable[[str], str], connect: Connect) -> None:
    broker = await connect("notifications")
    heard: asyncio.Queue[str] = asyncio.Queue()
    for pattern in ("live.notify.user.*", "live.notify.topic.*", "prices.*", "status.*.*", "logs.*.*"):
        await broker.subscribe(pattern, lambda message: heard.put_nowait(message.subject))

    producer = await nats.connect(address("producer"))
    wanted = [subjects.notify_user("u"), subjects.notify_topic("t"), subjects.price("A")]
    wanted += [subjects.status("c", "i"), subjects.log("c", "i")]
    for subject in wanted:
        await producer.publish(subject, b"{}")
    await producer.close()

    async with asyncio.timeout(5):
        assert {subjects.stored(await heard.get()) for _ in wanted} == set(wanted)


async def test_nobody_comes_in_without_a_password(address: Callable[[str], str]) -> None:
    for credentials in ("", "chat@", "chat:wrong@", "nobody:chat@"):
        url = address("chat").replace("chat:chat@", credentials)
        with pytest.raises(Unavailable):
            await JetStreamBroker.connect(url, name="chat", timeout_s=0.5)


def test_rights_name_only_streams_and_buckets_that_exist() -> None:
    known = {spec.name for spec in STREAMS} | {subjects.bucket_stream(spec.name) for spec in BUCKETS}
    text = ACCOUNTS.read_text()

    named = {word.strip('",').rpartition(".")[2] for word in text.split() if word.startswith('"$JS.API.')}

    assert named <= known


# -- helpers ----------------------------------------------------------------------------------------------------------


async def assert_publish_refused(broker: JetStreamBroker, subject: str) -> None:
    """Publish, and require that the server refused it."""
    await broker.publish(subject, b"{}")
    with suppress(Unavailable):
        await broker.check()  # when it returns, the server has seen the message
    with pytest.raises(Unavailable, match="permission"):
        await broker.check()


async def refused_subscribe(url: str, pattern: str) -> bool:
    """Subscribe with a plain client, and say whether the server refused it."""
    refusals: asyncio.Queue[Exception] = asyncio.Queue()

    async def note(error: Exception) -> None:
        refusals.put_nowait(error)

    client: Any = await nats.connect(url, error_cb=note)
    try:
        await client.subscribe(pattern)
        await client.flush()
        async with asyncio.timeout(2):
            return "permissions violation" in str(await refusals.get()).lower()
    except TimeoutError:
        return False
    finally:
        await client.close()
