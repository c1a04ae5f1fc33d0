"""A topic emits every stored message once and in order, whatever the live repeat loses, doubles or turns around."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.broker.port import Message, Page
from shared.contracts.cursor import Position
from shared.edge.continuity import chain as chain_module
from shared.edge.delivery.event import Event
from shared.edge.topics.topic import MAX_RING_EVENTS, Topic

SUBJECT = "a.subject"


def stored(seqs: list[int]) -> list[Message]:
    """Return messages as the live repeat carries them: each names the one before it."""
    before = [0, *seqs]
    return [
        Message(SUBJECT, b"", {}, seq=seq, last_seq=last, time_ms=seq)
        for seq, last in zip(seqs, before[: len(seqs)], strict=True)
    ]


def new_topic(seq: int = 0) -> Topic:
    return Topic("STREAM", SUBJECT, Position("e", seq))


class Reader:
    """Does with a topic what the hub does, one step at a time, so that a test can put anything in between."""

    def __init__(self, messages: list[Message], start_seq: int) -> None:
        self.messages, self.topic = messages, new_topic(start_seq)
        self.kept = 0
        self.emitted: list[int] = []
        self._page: Page | None = None

    def store(self) -> None:
        """One more message is in the stream."""
        self.kept = min(self.kept + 1, len(self.messages))

    def live(self, index: int) -> None:
        """The live repeat of any stored message arrives, early, late or once more."""
        if self.kept:
            self._emit(self.topic.receive(replace(self.messages[index % self.kept])))
            self.topic.filling = self.topic.filling or self.topic.needs_fill

    def read(self, limit: int, lag: int) -> None:
        """A replica that is `lag` messages behind answers the fill; the answer is still on its way."""
        if self.topic.filling:
            known = self.messages[: max(0, self.kept - lag)]
            after = [replace(message, last_seq=0) for message in known if message.seq > self.topic.seq]
            self._page = Page(after[:limit], more=len(after) > limit)

    def fill(self) -> None:
        """The answer arrives."""
        page, self._page = self._page, None
        if page is not None:
            self._emit(self.topic.fill(page))
            self.topic.filling = page.more or self.topic.gap_remains

    def reconcile(self) -> None:
        """What no chain shows is found by comparing with the stream."""
        self.fill()
        self.topic.filling = True
        while self.topic.filling:
            self.read(limit=3, lag=0)
            self.fill()

    def _emit(self, messages: list[Message]) -> None:
        self.emitted += [message.seq for message in messages]


Steps = st.lists(
    st.one_of(
        st.tuples(st.just("store")),
        st.tuples(st.just("live"), st.integers(0, 30)),
        st.tuples(st.just("read"), st.integers(1, 4), st.integers(0, 3)),
        st.tuples(st.just("fill")),
    ),
    max_size=80,
)


@given(
    gaps=st.lists(st.integers(1, 3), min_size=1, max_size=30),
    start=st.integers(0, 10),
    steps=Steps,
    max_waiting=st.integers(1, 5),
)
def test_every_stored_message_is_emitted_once_and_in_order(
    gaps: list[int], start: int, steps: list[tuple[str, *tuple[int, ...]]], max_waiting: int
) -> None:
    seqs = [sum(gaps[: count + 1]) for count in range(len(gaps))]
    start_seq = ([0, *seqs])[start % (len(seqs) + 1)]
    reader = Reader(stored(seqs), start_seq)
    with patch.object(chain_module, "MAX_WAITING", max_waiting):
        for name, *arguments in steps:
            getattr(reader, name)(*arguments)
        while reader.kept < len(seqs):
            reader.store()
        reader.reconcile()

    assert reader.emitted == [seq for seq in seqs if seq > start_seq]
    assert not reader.topic.gap_remains


def test_messages_in_order_pass_at_once() -> None:
    topic = new_topic()

    assert [[out.seq for out in topic.receive(message)] for message in stored([3, 5, 9])] == [[3], [5], [9]]
    assert topic.position == Position("e", 9)


def test_after_a_purge_the_chain_is_lower_and_no_gap() -> None:
    topic = new_topic(7)

    assert topic.receive(Message(SUBJECT, b"", {}, seq=9, last_seq=0))
    assert not topic.needs_fill


def test_what_waits_is_bounded_and_what_did_not_fit_is_seen_by_the_next_message() -> None:
    messages = stored(list(range(1, 10)))
    topic = new_topic()
    with patch.object(chain_module, "MAX_WAITING", 2):
        for message in messages[1:7]:
            assert topic.receive(message) == []
        topic.filling = True
        emitted = topic.fill(Page(messages[:1], more=False))
        assert [message.seq for message in emitted] == [1, 2, 3]
        topic.filling = False

        assert topic.receive(messages[8]) == []
    assert topic.needs_fill


def test_a_known_sequence_with_a_newer_time_is_another_life_of_the_stream() -> None:
    topic = new_topic()
    topic.receive(Message(SUBJECT, b"", {}, seq=5, last_seq=0, time_ms=100))

    topic.receive(Message(SUBJECT, b"", {}, seq=5, last_seq=0, time_ms=100))
    assert not topic.suspect_epoch

    topic.receive(Message(SUBJECT, b"", {}, seq=1, last_seq=0, time_ms=101))
    assert topic.suspect_epoch


def test_a_restart_forgets_the_old_life() -> None:
    topic = new_topic()
    for message in stored([1, 2]):
        topic.receive(message)
        topic.remember(event(message.seq))
    topic.receive(Message(SUBJECT, b"", {}, seq=9, last_seq=8))

    topic.restart(Position("f", 0))

    assert topic.recent(0) == []
    assert not topic.needs_fill
    assert [message.seq for message in topic.receive(stored([1])[0])] == [1]


# -- the ring ---------------------------------------------------------------------------------------------------------


def event(seq: int) -> Event:
    return Event("kind", b"{}", seq=seq)


@pytest.mark.parametrize(
    ("after", "expected"),
    [(9, None), (10, [11, 12]), (11, [12]), (12, []), (99, [])],
)
def test_the_ring_reaches_back_to_where_the_topic_began(after: int, expected: list[int] | None) -> None:
    topic = new_topic(10)
    for seq in (11, 12):
        topic.remember(event(seq))

    assert seqs_of(topic.recent(after)) == expected


def test_a_full_ring_lets_the_oldest_go_and_says_that_it_does_not_reach_them() -> None:
    topic = new_topic()
    for seq in range(1, MAX_RING_EVENTS + 3):
        topic.remember(event(seq))

    assert topic.recent(1) is None
    assert seqs_of(topic.recent(2)) == list(range(3, MAX_RING_EVENTS + 3))


def test_what_was_read_from_the_stream_joins_the_ring_once() -> None:
    topic = new_topic(10)
    for seq in (11, 12):
        topic.remember(event(seq))

    topic.recall([event(7), event(10), event(11)], 6, 11)

    assert seqs_of(topic.recent(6)) == [7, 10, 11, 12]
    assert topic.recent(5) is None


@pytest.mark.parametrize(("after", "end"), [(6, 9), (10, 12), (11, 12)])
def test_what_does_not_join_the_ring_is_not_taken_back(after: int, end: int) -> None:
    topic = new_topic(10)
    topic.remember(event(11))

    topic.recall([event(end)], after, end)

    assert topic.recent(9) is None
    assert seqs_of(topic.recent(10)) == [11]


def test_of_what_is_taken_back_a_full_ring_keeps_the_newest() -> None:
    topic = new_topic(MAX_RING_EVENTS)
    for seq in range(MAX_RING_EVENTS + 1, 2 * MAX_RING_EVENTS - 1):
        topic.remember(event(seq))

    topic.recall([event(seq) for seq in range(1, MAX_RING_EVENTS + 1)], 0, MAX_RING_EVENTS)

    assert topic.recent(MAX_RING_EVENTS - 3) is None
    recent = seqs_of(topic.recent(MAX_RING_EVENTS - 2)) or []
    assert recent == list(range(MAX_RING_EVENTS - 1, 2 * MAX_RING_EVENTS - 1))


def seqs_of(events: list[Event] | None) -> list[int] | None:
    return None if events is None else [event.seq for event in events]


def test_what_waits_is_not_lost_with_the_page_that_the_stream_has_dropped_it_from() -> None:
    """A busy subject may be trimmed by its limit before the gap before it is filled."""
    messages = stored([1, 2, 3, 4])
    topic = new_topic()
    topic.receive(messages[1])
    topic.filling = True
    ready = topic.fill(Page([messages[3]], more=False))

    assert [message.seq for message in ready] == [2, 4]


def test_after_an_outage_a_lower_chain_waits_until_the_stream_was_asked() -> None:
    topic = new_topic(4)
    topic.unsure = True
    after_a_purge = Message(SUBJECT, b"", {}, seq=9, last_seq=0, time_ms=9)

    assert topic.receive(after_a_purge) == []
    assert topic.needs_fill
    assert topic.first_waiting == 9
    topic.skip_to(8)
    assert topic.fill(Page([], more=False)) == [after_a_purge]


def test_after_an_outage_a_message_that_names_the_last_seen_one_passes_at_once() -> None:
    topic = new_topic(4)
    topic.unsure = True
    successor = Message(SUBJECT, b"", {}, seq=9, last_seq=4, time_ms=9)

    assert topic.receive(successor) == [successor]


def test_a_ring_does_not_reach_over_what_was_lost() -> None:
    topic = new_topic()
    topic.remember(Event("t", b"{}", seq=3))
    topic.skip_to(7)

    assert (topic.seq, topic.recent(3), topic.recent(7)) == (7, None, [])
