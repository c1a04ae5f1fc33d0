"""What only the JetStream adapter can break: outages, hostile headers, refused rights, a link closed for good."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from shared.broker import jetstream_wire as wire
from shared.broker.jetstream import JetStreamBroker
from shared.broker.jetstream_client import MAX_PENDING_BYTES
from shared.broker.jetstream_inbox import Reply
from shared.broker.jetstream_log import PAGE_SUBJECT_BYTES, PAGE_SUBJECTS, _pages, _unbroken
from shared.broker.metrics import BrokerEvent, BrokerMetrics
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.errors import BadInput, OutcomeUnknown, Unavailable
from shared.runtime.embedded import EmbeddedNats
from shared.telemetry.metrics import Metrics
from tests.support.listening import DEADLINE_S, Ear
from tests.support.nats_server import NatsServer
from tests.support.proxy import Proxy


class Counted:
    """A broker whose events a test can read and await."""

    def __init__(self, broker: JetStreamBroker, metrics: Metrics) -> None:
        self.broker, self._metrics = broker, metrics

    def count(self, event: BrokerEvent) -> int:
        labels = {"link": "main", "event": event}
        return int(self._metrics.registry.get_sample_value("fanfare_broker_events_total", labels) or 0)

    async def until(self, event: BrokerEvent) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not self.count(event):
                await asyncio.sleep(0.01)


Open = Callable[[str], Awaitable[Counted]]


@pytest.fixture
async def open_link() -> AsyncIterator[Open]:
    made: list[JetStreamBroker] = []

    async def make(url: str) -> Counted:
        metrics = Metrics()
        made.append(await JetStreamBroker.connect(url, name="test", metrics=BrokerMetrics(metrics)))
        return Counted(made[-1], metrics)

    yield make
    for broker in made:
        await broker.close()


# -- outages ----------------------------------------------------------------------------------------------------------


async def test_after_a_crash_of_the_server_subscriptions_live_on_and_readers_are_told(
    nats_server: NatsServer, open_link: Open
) -> None:
    link, ear, room = await open_link(nats_server.url), Ear(), subjects.chat_message(new_id())
    back, order = asyncio.Event(), list[str]()
    link.broker.on_disconnect(lambda: order.append("lost"))
    link.broker.on_reconnect(lambda: order.append("back"))
    link.broker.on_reconnect(back.set)
    await link.broker.subscribe(subjects.live(room), ear)
    first = await link.broker.append(room, b"before", msg_id=new_id())

    await nats_server.crash_and_restart()
    async with asyncio.timeout(DEADLINE_S):
        await back.wait()
    second = await link.broker.append(room, b"after", msg_id=new_id())

    await ear.hears(2)
    assert ear.data == [b"before", b"after"]
    assert ear.messages[1].last_seq == first.seq < second.seq
    assert link.count(BrokerEvent.RECONNECTED) == 1
    assert order == ["lost", "back"]


async def test_an_append_during_an_outage_is_stored_exactly_once(nats_server: NatsServer, open_link: Open) -> None:
    link, room = await open_link(nats_server.url), subjects.chat_message(new_id())
    await nats_server.kill()
    async with asyncio.TaskGroup() as group:
        appending = [
            group.create_task(link.broker.append(room, b"%d" % number, msg_id=new_id())) for number in range(20)
        ]
        await link.until(BrokerEvent.DISCONNECTED)
        await nats_server.start()

    page = await link.broker.read_after(subjects.CHAT, room, 0, limit=100)
    assert sorted(message.seq for message in page.messages) == sorted(task.result().seq for task in appending)
    assert len({message.data for message in page.messages}) == len(page.messages) == 20


async def test_appends_go_on_through_a_crash_and_none_that_was_acknowledged_is_lost_or_doubled(
    nats_server: NatsServer, open_link: Open
) -> None:
    link, room = await open_link(nats_server.url), subjects.chat_message(new_id())
    acknowledged: dict[bytes, int] = {}
    crashed = asyncio.Event()

    async def write(writer: int) -> None:
        number = 0
        while not (crashed.is_set() and link.count(BrokerEvent.RECONNECTED)):
            number += 1
            data = b"%d-%d" % (writer, number)
            acknowledged[data] = (await link.broker.append(room, data, msg_id=new_id())).seq

    async with asyncio.TaskGroup() as group:
        for writer in range(4):
            group.create_task(write(writer))
        while len(acknowledged) < 40:
            await asyncio.sleep(0)
        await nats_server.crash_and_restart()
        crashed.set()

    stored = (await link.broker.read_after(subjects.CHAT, room, 0, limit=100_000)).messages
    assert {message.data: message.seq for message in stored} == acknowledged
    assert len(stored) == len(acknowledged)


async def test_an_append_that_gets_no_answer_says_that_the_outcome_is_unknown(nats_server: NatsServer) -> None:
    broker = await JetStreamBroker.connect(nats_server.url, name="test", append_deadline_s=0.2)
    room, msg_id = subjects.chat_message(new_id()), new_id()
    await nats_server.freeze()
    with pytest.raises(OutcomeUnknown):
        await broker.append(room, b"x", msg_id=msg_id)
    nats_server.thaw()

    assert (await broker.append(room, b"x", msg_id=msg_id)).duplicate
    await broker.close()


async def test_a_put_whose_answer_was_lost_is_not_taken_for_another_writers(
    nats_server: NatsServer, open_link: Open
) -> None:
    """The repeat is refused, since the first one was stored: the revision that is in the way is our own."""
    link, key = await open_link(nats_server.url), new_id()
    await nats_server.freeze()
    async with asyncio.TaskGroup() as group:
        putting = group.create_task(link.broker.put(subjects.LEASES, key, value=b"mine", expect=0))
        await link.until(BrokerEvent.RETRIED)
        nats_server.thaw()

    entry = await link.broker.get(subjects.LEASES, key)
    assert entry is not None
    assert (entry.value, entry.revision) == (b"mine", putting.result())


async def test_what_is_published_while_the_link_is_down_is_dropped_counted_and_not_sent_later(
    nats_server: NatsServer, open_link: Open
) -> None:
    link, ear, subject = await open_link(nats_server.url), Ear(), subjects.price(new_id())
    await link.broker.subscribe(subject, ear)
    await nats_server.kill()
    await link.until(BrokerEvent.DISCONNECTED)

    for _ in range(3):
        await link.broker.publish(subject, b"late")
    assert not link.broker.usable()
    await nats_server.start()
    await link.until(BrokerEvent.RECONNECTED)
    await link.broker.publish(subject, b"fresh")

    await ear.hears(1)
    assert ear.data == [b"fresh"]
    assert link.count(BrokerEvent.PUBLISH_DROPPED) == 3


async def test_who_waits_for_an_answer_hears_at_once_that_the_link_broke(
    nats_server: NatsServer, open_link: Open
) -> None:
    link, edge, asked = await open_link(nats_server.url), new_id(), asyncio.Event()

    async def never(_: object) -> bytes:
        asked.set()
        await asyncio.Event().wait()
        return b""

    other = await open_link(nats_server.url)
    await other.broker.serve(subjects.session_commands(edge), never)
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as group:
        request = link.broker.request(subjects.session_command(edge, "s"), b"", timeout_s=600)
        asking = group.create_task(_error_of(request))
        await asked.wait()
        await nats_server.kill()

    assert isinstance(asking.result(), Unavailable)


async def test_a_server_that_does_not_answer_fails_the_check_and_a_late_pong_does_no_harm(
    nats_server: NatsServer, open_link: Open
) -> None:
    """nats-py's own read loop dies of a PONG that nobody waits for any more; the link stays up, and deaf."""
    link, ear, subject = await open_link(nats_server.url), Ear(), subjects.price(new_id())
    await link.broker.subscribe(subject, ear)
    await nats_server.freeze()
    with pytest.raises(Unavailable):
        await link.broker.check()
    nats_server.thaw()

    await link.broker.check()
    await link.broker.publish(subject, b"heard")
    await ear.hears(1)
    assert link.count(BrokerEvent.DISCONNECTED) == 0


async def test_the_server_learns_of_an_interest_before_it_is_asked_to_confirm_it(
    nats_url: str, open_link: Open
) -> None:
    """nats-py's own flush sends PING ahead of a SUB that is still in its buffer, so that PONG proves nothing."""
    async with Proxy(nats_url) as proxy:
        sent, link, subject = proxy.record(), await open_link(proxy.url), subjects.price(new_id())
        await link.broker.subscribe(subject, Ear())

        assert 0 < sent.index(f"SUB {subject}".encode()) < sent.rindex(b"PING\r\n")


async def test_a_burst_is_sent_a_socket_that_takes_nothing_is_not_fed_and_its_backlog_is_not_sent_later(
    nats_url: str, open_link: Open
) -> None:
    there, ear, subject = await open_link(nats_url), Ear(), subjects.typing(new_id())
    await there.broker.subscribe(subject, ear)
    burst, size = 2 * MAX_PENDING_BYTES // 50_000, 50_000
    async with Proxy(nats_url) as proxy:
        link = await open_link(proxy.url)
        for _ in range(burst):
            await link.broker.publish(subject, b"b" * size)
        await ear.hears(burst)
        assert link.count(BrokerEvent.PUBLISH_DROPPED) == 0

        await _stuff(link, proxy, subject)
        proxy.cut()
        await link.until(BrokerEvent.RECONNECTED)
        await link.broker.publish(subject, b"fresh")
        await link.broker.check()

    await ear.until(lambda: b"fresh" in ear.data)
    assert not [data for data in ear.data if data.startswith(b"s")]


async def test_a_link_to_a_server_that_takes_nothing_is_given_up_and_made_anew(nats_url: str, open_link: Open) -> None:
    """nats-py waits until what it wrote is sent before it reconnects: for a peer that is gone, minutes."""
    async with Proxy(nats_url) as proxy:
        link = await open_link(proxy.url)
        await _stuff(link, proxy)

        await link.until(BrokerEvent.RECONNECTED)
        await link.broker.check()
        assert link.broker.usable()


async def test_closing_a_link_to_a_server_that_takes_nothing_takes_seconds(nats_url: str, open_link: Open) -> None:
    async with Proxy(nats_url) as proxy:
        link = await open_link(proxy.url)
        await _stuff(link, proxy)

        async with asyncio.timeout(5):
            await link.broker.close()
        assert not link.broker.usable()


async def test_an_answer_that_was_lost_stays_unknown_whatever_is_refused_later(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    metrics = Metrics()
    broker = await JetStreamBroker.connect(
        nats_server.url, name="test", append_deadline_s=3, metrics=BrokerMetrics(metrics)
    )
    await nats_server.freeze()
    async with asyncio.TaskGroup() as group:
        appending = group.create_task(_error_of(broker.append(subjects.chat_message("r"), b"x", msg_id=new_id())))
        while not broker._link._inbox:
            await asyncio.sleep(0)
        await nats_server.kill()
        port = int(nats_server.url.rpartition(":")[2])
        async with EmbeddedNats(tmp_path / "empty", port=port):
            await Counted(broker, metrics).until(BrokerEvent.RETRIED)
            await appending

    assert isinstance(appending.result(), OutcomeUnknown)
    await broker.close()


async def test_connecting_where_no_server_is_fails_in_time_and_says_why(nats_server: NatsServer) -> None:
    await nats_server.kill()

    with pytest.raises(Unavailable, match=r"no NATS server answered within 0\.3 s"):
        await JetStreamBroker.connect(nats_server.url, name="test", timeout_s=0.3)


@pytest.mark.parametrize("url", ["http://", "nats://:x:y", ""])
async def test_an_address_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises((BadInput, Unavailable)):
        await JetStreamBroker.connect(url, name="test", timeout_s=0.2)


# -- the end of a link ------------------------------------------------------------------------------------------------


async def test_a_link_that_the_server_closes_for_good_says_so(nats_url: str, open_link: Open) -> None:
    link = await open_link(nats_url)
    link.broker._link._client._transport.write(b"BOGUS\r\n")

    async with asyncio.timeout(DEADLINE_S):
        await link.broker.closed()
    assert not link.broker.usable()
    assert link.count(BrokerEvent.CLOSED) == 1


@pytest.mark.parametrize(
    "subject", ["", "a b", "a\r\nPUB b 0", "a..b", ".a", "a.", "x" * 600, "prices.*", "prices.>", "a\tb", "a\u00a0b"]
)
async def test_a_subject_that_could_end_the_link_is_refused_before_it_is_sent(
    nats_url: str, open_link: Open, subject: str
) -> None:
    link = await open_link(nats_url)
    with pytest.raises(BadInput):
        await link.broker.publish(subject, b"")
    if "*" not in subject and ">" not in subject:
        with pytest.raises(BadInput):
            await link.broker.subscribe(subject, Ear())

    await link.broker.check()
    assert link.count(BrokerEvent.CLOSED) == 0


async def test_a_header_that_would_inject_protocol_is_refused(nats_url: str, open_link: Open) -> None:
    link, ear, subject = await open_link(nats_url), Ear(), subjects.price(new_id())
    await link.broker.subscribe(subject, ear)
    with pytest.raises(BadInput):
        await link.broker.publish(subject, b"", {"a\r\nb": "c"})
    await link.broker.publish(subject, b"", {"name": "value\r\nNats-Sequence: 9"})

    (message,) = await ear.hears(1)
    assert dict(message.headers) == {"name": "value  Nats-Sequence: 9"}


async def test_a_refused_permission_fails_the_check_for_good(tmp_path: Path, open_link: Open) -> None:
    rights = 'authorization { users: [ { user: a, password: b, permissions: { publish: ["ok"], subscribe: [">"] } } ] }'
    async with EmbeddedNats(tmp_path, extra_config=rights) as server:
        link = await open_link(server.url.replace("nats://", "nats://a:b@"))
        await link.broker.publish("ok", b"")
        await link.broker.check()

        await link.broker.publish("forbidden", b"")
        await link.until(BrokerEvent.PERMISSION_REFUSED)

        with pytest.raises(Unavailable, match="forbidden"):
            await link.broker.check()


async def test_a_subscription_costs_no_task(nats_url: str, open_link: Open) -> None:
    link = await open_link(nats_url)
    before = len(asyncio.all_tasks())
    for number in range(50):
        await link.broker.subscribe(subjects.price(f"s{number}"), Ear())

    assert len(asyncio.all_tasks()) == before


# -- headers ----------------------------------------------------------------------------------------------------------

names = st.text(st.characters(min_codepoint=1, max_codepoint=300, exclude_characters="\r\n"), max_size=12)
values = st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), max_size=20)
lines = st.lists(st.tuples(names, st.sampled_from([":", ": ", ":\t", ""]), values), max_size=8)


@given(lines)
async def test_headers_read_as_nats_py_reads_them(parts: list[tuple[str, str, str]]) -> None:
    raw = b"NATS/1.0\r\n" + b"".join(f"{''.join(part)}\r\n".encode() for part in parts) + b"\r\n"

    assert dict(wire.WireHeaders(raw)) == (await Client()._process_headers(raw) or {})


@given(lines, st.integers(1, 2**63), st.integers(0, 2**63))
def test_whatever_a_publisher_sends_the_servers_own_headers_win(
    parts: list[tuple[str, str, str]], seq: int, last_seq: int
) -> None:
    spoofed = [*parts, ("Nats-Sequence", ": ", "7"), ("Nats-Last-Sequence", ": ", "x"), ("KV-Operation", ": ", "DEL")]
    raw = (
        b"NATS/1.0\r\n"
        + b"".join(f"{''.join(part)}\r\n".encode() for part in spoofed)
        + f"Nats-Sequence: {seq}\r\nNats-Time-Stamp: 2026-11-22T20:25:22.6Z\r\n".encode()
        + f"Nats-Last-Sequence: {last_seq}\r\n\r\n".encode()
    )
    message = wire.live_message(b"live.chat.room.r.msg", b"", raw)

    assert (message.seq, message.last_seq, message.time_ms, message.gone) == (seq, last_seq, 1795379122600, False)


async def test_a_spoofed_sequence_loses_against_the_servers(nats_url: str, open_link: Open) -> None:
    link, ear, room = await open_link(nats_url), Ear(), subjects.chat_message(new_id())
    await link.broker.subscribe(subjects.live(room), ear)
    spoof = {"Nats-Sequence": "999999", "Nats-Last-Sequence": "999998", "Nats-Time-Stamp": "1999-01-01T00:00:00Z"}
    appended = await link.broker.append(room, b"x", msg_id=new_id(), headers=spoof)

    (live,) = await ear.hears(1)
    (read,) = (await link.broker.read_after(subjects.CHAT, room, 0, limit=1)).messages
    assert (live.seq, live.last_seq) == (appended.seq, 0)
    assert (read.seq, read.subject) == (appended.seq, room)
    assert live.time_ms == read.time_ms > 1_700_000_000_000


@given(st.integers(0, 2**32), st.integers(0, 999_999_999))
def test_the_servers_times_read_to_the_millisecond(second: int, nanosecond: int) -> None:
    """Go leaves out the zeros at the end of the decimals, and the point with them."""
    fraction = f".{nanosecond:09d}".rstrip("0").rstrip(".")
    stamp = f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}{fraction}Z"

    assert wire.time_ms(stamp.encode()) == second * 1000 + nanosecond // 1_000_000


def test_the_servers_headers_are_found_in_any_order() -> None:
    raw = b"NATS/1.0\r\nNats-Last-Sequence: 4\r\nNats-Sequence: 5\r\nNats-Time-Stamp: 1970-01-01T00:00:01Z\r\n\r\n"
    message = wire.live_message(b"live.x", b"", raw)

    assert (message.seq, message.last_seq, message.time_ms) == (5, 4, 1000)


# -- batches ----------------------------------------------------------------------------------------------------------


def test_a_batch_with_a_hole_is_not_taken_for_complete() -> None:
    def reply(seq: int, before: int) -> Reply:
        return Reply(b"", f"NATS/1.0\r\nNats-Sequence: {seq}\r\nNats-Last-Sequence: {before}\r\n\r\n".encode())

    assert [message.seq for message in _unbroken([reply(3, 0), reply(5, 3)])] == [3, 5]
    with pytest.raises(Unavailable):
        _unbroken([reply(3, 0), reply(7, 5)])


@given(st.lists(st.text("ab", min_size=1, max_size=300), max_size=50).map(lambda texts: texts * 60))
def test_pages_of_subjects_stay_within_the_servers_limits_and_lose_none(asked: list[str]) -> None:
    pages = _pages(asked)

    assert [subject for page in pages for subject in page] == asked
    assert all(len(page) <= PAGE_SUBJECTS for page in pages)
    assert all(sum(len(subject) + 3 for subject in page) <= PAGE_SUBJECT_BYTES + 600 for page in pages)


async def _stuff(link: Counted, proxy: Proxy, subject: str = "eph.stuff") -> None:
    """Let the other side take nothing, and fill every buffer on the way to it."""
    proxy.strand()
    while not link.count(BrokerEvent.PUBLISH_DROPPED):
        await link.broker.publish(subject, b"s" * 50_000)


async def _error_of(asking: Awaitable[object]) -> Exception | None:
    try:
        await asking
    except Unavailable as error:
        return error
    return None
