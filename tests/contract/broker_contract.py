"""The contract of `shared.broker.port`: every adapter passes all of it, on whatever it runs.

Whoever holds an adapter to it derives a `Test…` class from `BrokerContract`, with a fixture `link` that makes a link.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NoReturn, TypeVar

import pytest

from shared.broker.port import Broker, Message, Page
from shared.broker.serving import MAX_AT_ONCE
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.contracts.streams import MAX_MESSAGE_BYTES
from shared.errors import Conflict, Gone, NotFound, TooLarge, Unavailable
from tests.support.listening import DEADLINE_S, Ear

Connect = Callable[[], Awaitable[Broker]]


Answer = TypeVar("Answer")


def fresh_room() -> str:
    return subjects.chat_message(new_id())


async def soon(ask: Callable[[], Awaitable[Answer]], is_whole: Callable[[Answer], bool]) -> Answer:
    """Return what a replica says once it knows all that was stored; it may be behind for a moment."""
    async with asyncio.timeout(DEADLINE_S):
        while not is_whole(answer := await ask()):
            await asyncio.sleep(0)
    return answer


def ends_with(data: bytes) -> Callable[[Page], bool]:
    """Say of a page whether this is its last message."""
    return lambda page: bool(page.messages) and page.messages[-1].data == data


class Ephemeral:
    """At most once, in order for one publisher and one subject."""

    async def test_one_publishers_messages_on_one_subject_arrive_in_order(self, connect: Connect) -> None:
        here, there, ear = await connect(), await connect(), Ear()
        subject = subjects.typing(new_id())
        await there.subscribe(subject, ear)

        for number in range(200):
            await here.publish(subject, b"%d" % number)

        await ear.hears(200)
        assert ear.data == [b"%d" % number for number in range(200)]

    async def test_a_subscriber_hears_its_own_publishes(self, broker: Broker) -> None:
        ear, subject = Ear(), subjects.typing(new_id())
        await broker.subscribe(subject, ear)

        await broker.publish(subject, b"me", {"Who": "me"})

        (message,) = await ear.hears(1)
        assert (message.subject, message.data, message.headers["Who"]) == (subject, b"me", "me")

    async def test_the_broker_knows_of_an_interest_when_subscribe_returns(self, connect: Connect) -> None:
        here, there = await connect(), await connect()
        for _ in range(30):
            ear, subject = Ear(), subjects.typing(new_id())
            await there.subscribe(subject, ear)
            await here.publish(subject, b"at once")
            await ear.hears(1)
            assert ear.data == [b"at once"]

    async def test_what_nobody_listens_to_is_gone(self, broker: Broker) -> None:
        ear, subject = Ear(), subjects.typing(new_id())
        await broker.publish(subject, b"early")
        await broker.subscribe(subject, ear)
        await broker.publish(subject, b"late")

        await ear.hears(1)
        assert ear.data == [b"late"]

    async def test_a_pattern_hears_what_it_matches_and_nothing_else(self, broker: Broker) -> None:
        edge, ear, rest = new_id(), Ear(), Ear()
        await broker.subscribe(subjects.session_commands(edge), ear)
        await broker.subscribe(f"edge.session.{edge}.>", rest)

        await broker.publish(subjects.session_command(new_id(), "s"), b"other edge")
        await broker.publish(f"edge.session.{edge}.s.other", b"other word")
        await broker.publish(subjects.session_command(edge, "s"), b"mine")

        await rest.hears(2)
        assert ear.data == [b"mine"]
        assert rest.data == [b"other word", b"mine"]

    async def test_a_message_that_was_never_stored_has_no_sequence_whatever_its_headers_claim(
        self, broker: Broker
    ) -> None:
        ear, subject = Ear(), subjects.typing(new_id())
        await broker.subscribe(subject, ear)

        await broker.publish(subject, b"", {"Nats-Sequence": "7", "Nats-Last-Sequence": "6", "KV-Operation": "DEL"})

        (message,) = await ear.hears(1)
        assert (message.seq, message.last_seq, message.time_ms, message.gone) == (0, 0, 0, False)

    async def test_one_who_wants_data_alone_gets_it_with_its_subject_and_a_failure_stops_nobody(
        self, broker: Broker
    ) -> None:
        heard: list[tuple[bytes, bytes]] = []
        ear, symbol = Ear(), new_id()

        def note(subject: bytes, data: bytes) -> None:
            heard.append((subject, data))
            if data == b"fail":
                raise ValueError("a bug in a handler")

        await broker.subscribe_data(subjects.price(symbol), note)
        await broker.subscribe(subjects.price(symbol), ear)
        for data in (b"1", b"fail", b"3\r\nPING\r\n"):
            await broker.publish(subjects.price(symbol), data, {"Some": "header"})

        await ear.hears(3)
        assert heard == [(subjects.price(symbol).encode(), data) for data in ear.data]

    async def test_a_closed_subscription_is_not_called_any_more(self, broker: Broker) -> None:
        closed, open_, subject = Ear(), Ear(), subjects.typing(new_id())
        subscription = await broker.subscribe(subject, closed)
        await broker.subscribe(subject, open_)
        await broker.publish(subject, b"on its way")
        await subscription.close()
        heard = len(closed.data)

        await broker.publish(subject, b"after")

        await open_.hears(2)
        assert len(closed.data) == heard

    async def test_a_handler_that_raises_stops_nobody(self, broker: Broker) -> None:
        ear, subject = Ear(), subjects.typing(new_id())

        def fail(_: Message) -> NoReturn:
            raise ValueError("a bug in a handler")

        await broker.subscribe(subject, fail)
        await broker.subscribe(subject, ear)
        for _ in range(3):
            await broker.publish(subject, b"x")

        await ear.hears(3)
        await broker.check()


class Requests:
    """Asked once, answered once, or refused in time."""

    async def test_a_request_is_answered_wherever_it_is_served(self, connect: Connect) -> None:
        here, there, edge = await connect(), await connect(), new_id()

        async def shout(message: Message) -> bytes:
            return message.subject.encode() + b" " + message.data.upper()

        await there.serve(subjects.session_commands(edge), shout)
        subject = subjects.session_command(edge, "s1")

        assert await here.request(subject, b"hello") == subject.encode() + b" HELLO"

    async def test_a_request_that_nobody_serves_is_gone(self, broker: Broker) -> None:
        with pytest.raises(Gone):
            await broker.request(subjects.session_command(new_id(), "s"), b"")

    async def test_a_request_to_what_is_no_longer_served_is_gone(self, connect: Connect) -> None:
        here, there, edge = await connect(), await connect(), new_id()

        async def answer(_: Message) -> bytes:
            return b""

        serving = await there.serve(subjects.session_commands(edge), answer)
        await serving.close()
        await there.check()

        with pytest.raises(Gone):
            await here.request(subjects.session_command(edge, "s"), b"")

    async def test_a_request_without_an_answer_in_time_is_unavailable(self, broker: Broker) -> None:
        edge = new_id()

        async def never(_: Message) -> bytes:
            await asyncio.Event().wait()
            return b""

        await broker.serve(subjects.session_commands(edge), never)

        with pytest.raises(Unavailable):
            await broker.request(subjects.session_command(edge, "s"), b"", timeout_s=0.05)

    @pytest.mark.parametrize(
        ("raised", "heard"), [(Gone("left"), Gone), (Conflict(), Unavailable), (KeyError(), Unavailable)]
    )
    async def test_what_a_responder_raises_reaches_who_asked(
        self, broker: Broker, raised: Exception, heard: type[Exception]
    ) -> None:
        edge = new_id()

        async def fail(_: Message) -> NoReturn:
            raise raised

        await broker.serve(subjects.session_commands(edge), fail)

        with pytest.raises(heard) as caught:
            await broker.request(subjects.session_command(edge, "s"), b"")
        assert type(caught.value) is heard

    async def test_requests_above_the_bound_are_refused_and_not_queued(self, broker: Broker) -> None:
        edge, release, running = new_id(), asyncio.Event(), 0

        async def wait(_: Message) -> bytes:
            nonlocal running
            running += 1
            await release.wait()
            return b"served"

        await broker.serve(subjects.session_commands(edge), wait)
        subject = subjects.session_command(edge, "s")
        async with asyncio.TaskGroup() as group:
            asked = [
                group.create_task(_outcome(broker.request(subject, b"", timeout_s=DEADLINE_S)))
                for _ in range(MAX_AT_ONCE + 5)
            ]
            refused = [task async for task in _first(asked, 5)]
            release.set()

        assert {task.result() for task in refused} == {"unavailable"}
        assert sum(task.result() == "served" for task in asked) == MAX_AT_ONCE == running


class Stored:
    """Once appended, in the stream; the leader knows at once, a replica soon."""

    async def test_what_was_appended_is_in_every_later_leader_read(self, connect: Connect) -> None:
        here, there, room = await connect(), await connect(), fresh_room()
        for _ in range(20):
            appended = await here.append(room, b"x", msg_id=new_id())
            assert await there.last_seq(subjects.CHAT, room) == appended.seq

    async def test_the_last_sequence_of_an_unknown_subject_is_0(self, broker: Broker) -> None:
        assert await broker.last_seq(subjects.CHAT, fresh_room()) == 0

    async def test_a_message_repeated_with_its_id_is_stored_once(self, broker: Broker) -> None:
        room, msg_id = fresh_room(), new_id()
        first = await broker.append(room, b"once", msg_id=msg_id)
        again = await broker.append(room, b"once", msg_id=msg_id)

        assert (first.duplicate, again.duplicate, again.seq) == (False, True, first.seq)
        await broker.append(room, b"end", msg_id=new_id())
        page = await soon(lambda: broker.read_after(subjects.CHAT, room, 0, limit=10), ends_with(b"end"))
        assert [message.data for message in page.messages] == [b"once", b"end"]

    async def test_what_was_purged_is_gone_and_what_is_of_other_subjects_or_comes_later_is_not(
        self, broker: Broker
    ) -> None:
        room, other = fresh_room(), fresh_room()
        for subject in (room, room, other):
            await broker.append(subject, b"before", msg_id=new_id())
        await broker.purge(subjects.CHAT, room)
        assert await broker.last_seq(subjects.CHAT, room) == 0
        assert await broker.last_seq(subjects.CHAT, other) > 0
        later = await broker.append(room, b"later", msg_id=new_id())

        page = await soon(lambda: broker.read_after(subjects.CHAT, room, 0, limit=10), ends_with(b"later"))
        assert [message.seq for message in page.messages] == [later.seq]
        await broker.purge(subjects.CHAT, room)
        await broker.purge(subjects.CHAT, room)
        assert await broker.first_seq(subjects.CHAT, room) == 0

    async def test_an_id_is_of_the_stream_not_of_the_subject_so_callers_build_it_from_both(
        self, broker: Broker
    ) -> None:
        one, other, msg_id = fresh_room(), fresh_room(), new_id()
        first = await broker.append(one, b"x", msg_id=msg_id)
        second = await broker.append(other, b"y", msg_id=msg_id)

        assert (second.duplicate, second.seq) == (True, first.seq)
        assert await broker.last_seq(subjects.CHAT, other) == 0

    async def test_the_same_id_in_another_stream_is_another_message(self, broker: Broker) -> None:
        msg_id = new_id()
        await broker.append(fresh_room(), b"x", msg_id=msg_id)

        assert not (await broker.append(subjects.notify_user(new_id()), b"x", msg_id=msg_id)).duplicate

    @pytest.mark.parametrize("too_many_bytes", [1, MAX_MESSAGE_BYTES])
    async def test_a_message_above_the_streams_limit_is_too_large_and_the_link_lives(
        self, broker: Broker, too_many_bytes: int
    ) -> None:
        with pytest.raises(TooLarge):
            await broker.append(fresh_room(), b"x" * (MAX_MESSAGE_BYTES - 16 + too_many_bytes), msg_id=new_id())
        await broker.append(fresh_room(), b"x", msg_id=new_id())

    async def test_stored_messages_are_repeated_live_with_their_chain(self, connect: Connect) -> None:
        here, there, ear, room = await connect(), await connect(), Ear(), fresh_room()
        await there.subscribe(subjects.live(room), ear)
        seqs = [(await here.append(room, b"%d" % number, msg_id=new_id())).seq for number in range(3)]
        await here.append(fresh_room(), b"another room", msg_id=new_id())
        last = await here.append(room, b"3", msg_id=new_id(), headers={"Trace": "t"})

        messages = await ear.hears(4)
        assert [message.seq for message in messages] == [*seqs, last.seq]
        assert [message.last_seq for message in messages] == [0, *seqs]
        assert ear.data == [b"0", b"1", b"2", b"3"]
        assert messages[3].headers["Trace"] == "t"
        assert all(message.time_ms > 1_700_000_000_000 for message in messages)
        assert messages[0].subject == subjects.live(room)

    async def test_a_repeated_append_is_not_repeated_live(self, broker: Broker) -> None:
        ear, room, msg_id = Ear(), fresh_room(), new_id()
        await broker.subscribe(subjects.live(room), ear)
        await broker.append(room, b"once", msg_id=msg_id)
        await broker.append(room, b"once", msg_id=msg_id)
        await broker.append(room, b"end", msg_id=new_id())

        await ear.hears(2)
        assert ear.data == [b"once", b"end"]

    async def test_the_sender_hears_its_message_before_append_returns(self, broker: Broker) -> None:
        ear, room = Ear(), fresh_room()
        await broker.subscribe(subjects.live(room), ear)
        await broker.append(room, b"x", msg_id=new_id())

        assert ear.data == [b"x"]

    async def test_a_plain_publish_on_a_stored_subject_is_stored_too(self, broker: Broker) -> None:
        ear, user = Ear(), new_id()
        await broker.subscribe(subjects.live(subjects.notify_user(user)), ear)
        await broker.publish(subjects.notify_user(user), b"from a producer")

        (message,) = await ear.hears(1)
        page = await soon(
            lambda: broker.read_after(subjects.NOTIFY, subjects.notify_user(user), 0, limit=5),
            ends_with(b"from a producer"),
        )
        assert [(read.seq, read.data) for read in page.messages] == [(message.seq, b"from a producer")]

    async def test_reading_after_a_sequence_gives_pages_in_order(self, broker: Broker) -> None:
        room = fresh_room()
        seqs = [(await broker.append(room, b"%d" % number, msg_id=new_id())).seq for number in range(7)]
        await broker.append(fresh_room(), b"noise", msg_id=new_id())

        first = await soon(lambda: broker.read_after(subjects.CHAT, room, seqs[0], limit=3), lambda page: page.more)
        rest = await soon(lambda: broker.read_after(subjects.CHAT, room, seqs[3], limit=3), ends_with(b"6"))
        end = await broker.read_after(subjects.CHAT, room, rest.messages[-1].seq, limit=3)

        assert [message.seq for message in first.messages] == seqs[1:4]
        assert [message.data for message in first.messages] == [b"1", b"2", b"3"]
        assert [message.seq for message in rest.messages] == seqs[4:7]
        assert (first.more, rest.more, end.more, end.messages) == (True, False, False, [])
        assert {message.subject for message in first.messages} == {room}
        assert {message.last_seq for message in first.messages} == {0}

    async def test_a_page_may_be_larger_than_a_batch_of_the_broker(self, broker: Broker) -> None:
        room, count = fresh_room(), 620
        async with asyncio.TaskGroup() as group:
            for number in range(count):
                group.create_task(broker.append(room, b"x" * 3000 + b"%d" % number, msg_id=new_id()))

        page = await soon(lambda: broker.read_after(subjects.CHAT, room, 0, limit=count - 1), lambda page: page.more)

        assert len({message.seq for message in page.messages}) == count - 1
        assert page.more

    @pytest.mark.parametrize("after_seq", [0, 2**63 - 1, 9_999_999_999_999_999_999])
    async def test_reading_where_nothing_is_gives_an_empty_page(self, broker: Broker, after_seq: int) -> None:
        page = await broker.read_after(subjects.CHAT, fresh_room(), after_seq, limit=10)

        assert (page.messages, page.more) == ([], False)

    async def test_the_last_message_of_each_subject_is_read_by_name_and_by_pattern(self, broker: Broker) -> None:
        rooms = [fresh_room() for _ in range(3)]
        for room in rooms:
            await broker.append(room, b"old", msg_id=new_id())
            await broker.append(room, room.encode(), msg_id=new_id())
        component, instance = new_id(), new_id()
        await broker.publish(subjects.status(component, instance), b"up")
        await broker.publish(subjects.status(component, "other"), b"down")

        named = await soon(
            lambda: broker.read_last(subjects.CHAT, [*rooms, fresh_room()]),
            lambda messages: [message.data for message in messages].count(b"old") == 0 and len(messages) == len(rooms),
        )
        matched = await soon(
            lambda: broker.read_last(subjects.STATUS, [f"status.{component}.*"]), lambda messages: len(messages) == 2
        )

        assert {message.subject: message.data for message in named} == {room: room.encode() for room in rooms}
        assert {message.data for message in matched} == {b"up", b"down"}
        assert await broker.read_last(subjects.CHAT, []) == []

    async def test_the_last_messages_of_more_subjects_than_the_broker_gives_at_once_are_all_read(
        self, broker: Broker
    ) -> None:
        component, count = new_id(), 1_300
        names = [subjects.status(component, f"i{number}") for number in range(count)]
        for name in names:
            await broker.publish(name, name.encode())
        by_name = await soon(lambda: broker.read_last(subjects.STATUS, names), lambda messages: len(messages) == count)
        by_pattern = await soon(
            lambda: broker.read_last(subjects.STATUS, [f"status.{component}.*"]),
            lambda messages: len(messages) == count,
        )

        assert sorted(message.subject for message in by_name) == sorted(names)
        assert {message.subject: message.data for message in by_pattern} == {name: name.encode() for name in names}

    async def test_a_stream_tells_its_life_and_where_it_stands(self, broker: Broker) -> None:
        before = await broker.state(subjects.CHAT)
        appended = await broker.append(fresh_room(), b"x", msg_id=new_id())
        after = await broker.state(subjects.CHAT)

        assert after.epoch == before.epoch
        assert 1 <= len(after.epoch) <= 16
        assert after.epoch.isalnum()
        assert after.epoch.islower()
        assert after.last_seq >= appended.seq > before.last_seq
        assert 1 <= after.first_seq <= appended.seq

    async def test_what_a_stream_has_dropped_shows_in_a_subjects_first_and_in_what_is_counted(
        self, broker: Broker
    ) -> None:
        kept, replaced = subjects.price(new_id()), subjects.price(new_id())
        anchor = await broker.append(kept, b"x", msg_id=new_id())
        before = await broker.state(subjects.PRICES)
        seqs = [(await broker.append(replaced, b"%d" % number, msg_id=new_id())).seq for number in range(3)]
        after = await broker.state(subjects.PRICES)

        assert await broker.first_seq(subjects.PRICES, kept) == anchor.seq
        assert await broker.first_seq(subjects.PRICES, replaced) == seqs[-1]
        assert await broker.first_seq(subjects.PRICES, subjects.price(new_id())) == 0
        assert after.deleted == before.deleted + 2
        await soon(lambda: broker.count_after(subjects.PRICES, anchor.seq - 1), lambda count: count == 2)
        await soon(lambda: broker.count_after(subjects.PRICES, anchor.seq), lambda count: count == 1)
        assert await broker.count_after(subjects.PRICES, seqs[-1]) == 0

    async def test_the_messages_of_one_subject_behind_a_place_are_counted_among_others(self, broker: Broker) -> None:
        room, other = fresh_room(), fresh_room()
        seqs = []
        for _ in range(5):
            seqs.append((await broker.append(room, b"x", msg_id=new_id())).seq)
            await broker.append(other, b"x", msg_id=new_id())

        await soon(lambda: broker.count_after(subjects.CHAT, 0, other), lambda count: count == 5)
        counts = [await broker.count_after(subjects.CHAT, seq, room) for seq in (0, seqs[0], seqs[0] + 1, seqs[4])]
        assert counts == [5, 4, 4, 0]
        assert await broker.count_after(subjects.CHAT, 0, fresh_room()) == 0

    async def test_a_stream_that_was_not_provisioned_is_not_found(self, broker: Broker) -> None:
        with pytest.raises(NotFound):
            await broker.state("NOPE")
        with pytest.raises(NotFound):
            await broker.last_seq("NOPE", "x")

    async def test_a_stream_keeps_only_so_many_messages_of_a_subject(self, broker: Broker) -> None:
        symbol = new_id()
        for price in (b"1", b"2", b"3"):
            last = await broker.append(subjects.price(symbol), price, msg_id=new_id())

        page = await soon(
            lambda: broker.read_after(subjects.PRICES, subjects.price(symbol), 0, limit=10), ends_with(b"3")
        )
        assert [(message.seq, message.data) for message in page.messages] == [(last.seq, b"3")]

    async def test_all_processes_share_a_counter(self, connect: Connect) -> None:
        here, there = await connect(), await connect()
        counter = subjects.counter("messages", new_id(), 1)

        assert [await here.count(counter), await there.count(counter, 5), await here.count(counter, -2)] == [1, 6, 4]
        assert await here.count(subjects.counter("messages", new_id(), 1)) == 1

    async def test_concurrent_additions_all_count(self, connect: Connect) -> None:
        brokers, counter = [await connect(), await connect()], subjects.counter("messages", new_id(), 1)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(broker.count(counter)) for broker in brokers for _ in range(25)]

        assert sorted(task.result() for task in tasks) == list(range(1, 51))


class Keys:
    """The last value wins, unless a revision is expected."""

    async def test_a_key_has_its_last_value_on_every_edge(self, connect: Connect) -> None:
        here, there, room = await connect(), await connect(), new_id()
        assert await here.get(subjects.ROOMS, room, "meta") is None
        first = await here.put(subjects.ROOMS, room, "meta", value=b"1")
        second = await there.put(subjects.ROOMS, room, "meta", value=b"2")

        entry = await here.get(subjects.ROOMS, room, "meta")
        assert second > first
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", second)

    async def test_an_expected_revision_must_hold(self, broker: Broker) -> None:
        key = new_id()
        first = await broker.put(subjects.ROOMS, key, value=b"1", expect=0)
        second = await broker.put(subjects.ROOMS, key, value=b"2", expect=first)

        for stale in (0, first, second + 1):
            with pytest.raises(Conflict):
                await broker.put(subjects.ROOMS, key, value=b"3", expect=stale)
            with pytest.raises(Conflict):
                await broker.delete(subjects.ROOMS, key, expect=stale)
        entry = await broker.get(subjects.ROOMS, key)
        assert entry is not None
        assert entry.value == b"2"

    async def test_of_many_that_create_a_key_one_succeeds(self, connect: Connect) -> None:
        brokers, key = [await connect(), await connect()], new_id()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_outcome(broker.put(subjects.ROOMS, key, value=b"x", expect=0)))
                for broker in brokers
                for _ in range(10)
            ]

        outcomes = [task.result() for task in tasks]
        assert outcomes.count("conflict") == 19

    async def test_a_deleted_key_is_not_there_and_can_be_created_again(self, broker: Broker) -> None:
        key = new_id()
        revision = await broker.put(subjects.ROOMS, key, value=b"1")
        await broker.delete(subjects.ROOMS, key, expect=revision)
        assert await broker.get(subjects.ROOMS, key) is None

        again = await broker.put(subjects.ROOMS, key, value=b"2", expect=0)

        assert again > revision
        with pytest.raises(Conflict):
            await broker.put(subjects.ROOMS, key, value=b"3", expect=0)

    async def test_deleting_a_key_that_is_not_there_is_no_error_and_no_news(self, broker: Broker) -> None:
        key, ear = new_id(), Ear()
        await broker.subscribe(subjects.bucket_changes(subjects.ROOMS, key), ear)
        await broker.delete(subjects.ROOMS, key, "never")
        await broker.delete(subjects.ROOMS, key, "never", expect=0)
        await broker.put(subjects.ROOMS, key, "end", value=b"end")

        await ear.hears(1)
        assert ear.data == [b"end"]

    async def test_a_key_whose_time_is_over_goes_and_everyone_hears_it(self, connect: Connect) -> None:
        here, there, ear, room = await connect(), await connect(), Ear(), new_id()
        await there.subscribe(subjects.bucket_changes(subjects.PRESENCE, room), ear)
        revision = await here.put(subjects.PRESENCE, room, "edge", value=b"here", ttl_s=1)

        put, gone = await ear.hears(2)
        assert (put.data, put.seq, put.gone) == (b"here", revision, False)
        assert (gone.data, gone.gone, gone.last_seq) == (b"", True, revision)
        assert gone.subject == put.subject == subjects.bucket_changes(subjects.PRESENCE, room).replace(">", "edge")
        assert await here.get(subjects.PRESENCE, room, "edge") is None

    async def test_a_key_can_be_created_over_the_marker_of_one_whose_time_is_over(self, broker: Broker) -> None:
        key, ear = new_id(), Ear()
        await broker.subscribe(subjects.bucket_changes(subjects.LEASES), ear)
        await broker.put(subjects.LEASES, key, value=b"1", ttl_s=1, expect=0)
        await ear.until(lambda: any(message.gone and message.subject.endswith(key) for message in ear.messages))

        revision = await broker.put(subjects.LEASES, key, value=b"2", expect=0)

        entry = await broker.get(subjects.LEASES, key)
        assert entry is not None
        assert (entry.value, entry.revision) == (b"2", revision)

    async def test_renewing_a_key_in_time_keeps_it(self, broker: Broker) -> None:
        key, ear = new_id(), Ear()
        await broker.subscribe(subjects.bucket_changes(subjects.LEASES), ear)
        revision = await broker.put(subjects.LEASES, key, value=b"1", ttl_s=1)
        await broker.put(subjects.LEASES, key, value=b"2", expect=revision, ttl_s=60)
        await broker.put(subjects.LEASES, f"{key}-other", value=b"goes", ttl_s=1)
        await ear.until(lambda: any(message.gone and message.subject.endswith("-other") for message in ear.messages))

        entry = await broker.get(subjects.LEASES, key)
        assert entry is not None
        assert entry.value == b"2"

    async def test_a_deletion_is_heard_as_gone_and_read_as_a_marker(self, broker: Broker) -> None:
        room, ear = new_id(), Ear()
        await broker.subscribe(subjects.bucket_changes(subjects.PRESENCE, room), ear)
        await broker.put(subjects.PRESENCE, room, "stays", value=b"1")
        await broker.put(subjects.PRESENCE, room, "goes", value=b"1")
        await broker.delete(subjects.PRESENCE, room, "goes")

        heard = await ear.hears(3)
        stream = subjects.bucket_stream(subjects.PRESENCE)
        read = await soon(
            lambda: broker.read_last(stream, [subjects.bucket_keys(subjects.PRESENCE, room)]),
            lambda messages: any(message.gone for message in messages),
        )
        assert [message.gone for message in heard] == [False, False, True]
        assert {message.subject.rpartition(".")[2]: message.gone for message in read} == {"stays": False, "goes": True}


class Life:
    """A link is usable until it is closed."""

    async def test_a_link_that_is_up_is_usable_and_one_that_was_closed_is_not(self, broker: Broker) -> None:
        assert broker.usable()
        await broker.check()

        await broker.close()

        assert not broker.usable()
        with pytest.raises(Unavailable):
            await broker.check()
        async with asyncio.timeout(DEADLINE_S):
            await broker.closed()

    async def test_after_a_close_publishing_is_dropped_and_asking_is_unavailable(self, broker: Broker) -> None:
        await broker.close()

        await broker.publish(subjects.typing("r"), b"dropped")
        with pytest.raises(Unavailable):
            await broker.request(subjects.session_command("e", "s"), b"")
        with pytest.raises(Unavailable):
            await broker.last_seq(subjects.CHAT, fresh_room())


class BrokerContract(Ephemeral, Requests, Stored, Keys, Life):
    """All of it."""

    @pytest.fixture
    async def connect(self, link: Connect) -> AsyncIterator[Connect]:
        """Makes brokers that meet, as edges do."""
        made: list[Broker] = []

        async def connect() -> Broker:
            made.append(await link())
            return made[-1]

        yield connect
        for one in made:
            await one.close()

    @pytest.fixture
    async def broker(self, connect: Connect) -> Broker:
        """One of them."""
        return await connect()


# -- helpers ----------------------------------------------------------------------------------------------------------


async def _outcome(asking: Awaitable[object]) -> str:
    try:
        answer = await asking
    except (Unavailable, Conflict) as error:
        return error.code
    return answer.decode() if isinstance(answer, bytes) else "done"


async def _first(tasks: list[asyncio.Task[str]], count: int) -> AsyncIterator[asyncio.Task[str]]:
    pending = set(tasks)
    while count > 0:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE_S)
        assert done, "nobody was refused"
        for task in done:
            count -= 1
            yield task
