"""A backlog is bounded in every class of back-pressure, and what it drops is told."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from shared.edge.delivery.event import Event, Overflow
from shared.edge.delivery.overflow import Backlog, OverflowLimits

LIMITS = OverflowLimits(lossless_bytes=100, droppable_events=3, latest_keys=2)


def lossless(size: int = 10) -> Event:
    return Event("message", b"x" * size)


def latest(key: str, body: bytes = b"{}") -> Event:
    return Event("price", body, overflow=Overflow.LATEST, key=key)


def droppable() -> Event:
    return Event("typing", b"{}", overflow=Overflow.DROP)


def test_lossless_events_wait_in_order_up_to_their_bound_in_bytes() -> None:
    backlog = Backlog(LIMITS)
    events = [lossless() for _ in range(10)]

    assert all(backlog.put(event) for event in events)
    assert not backlog.put(lossless(1))
    assert backlog.take()[:10] == events


def test_what_was_taken_weighs_nothing_any_more() -> None:
    backlog = Backlog(LIMITS)
    for _ in range(5):
        assert backlog.put(lossless(100))
        assert backlog
        assert len(backlog.take()) == 1
        assert not backlog
        assert backlog.pending_bytes == 0


def test_a_portion_is_what_reaches_its_bound_and_the_values_come_with_the_last() -> None:
    backlog, events = Backlog(LIMITS), [lossless(100) for _ in range(5)]
    for event in (latest("A"), *events):
        backlog.put(event)

    assert backlog.take(250) == events[:3]
    assert backlog.pending_bytes == sum(len(event.body) for event in events[3:])
    assert [event.key for event in backlog.take(250)] == ["", "", "A"]
    assert not backlog


def test_only_the_newest_value_of_each_key_waits() -> None:
    backlog = Backlog(LIMITS)
    for number in range(1_000):
        assert backlog.put(latest("AAPL", b'{"n":%d}' % number))

    assert [event.body for event in backlog.take()] == [b'{"n":999}']


def test_a_key_over_the_bound_is_dropped_and_told() -> None:
    backlog = Backlog(LIMITS)
    for key in ("A", "B", "C", "A"):
        backlog.put(latest(key))

    assert [event.key for event in backlog.take()] == ["A", "B", ""]


def test_droppable_events_are_dropped_when_others_wait_and_the_client_is_told_how_many() -> None:
    backlog = Backlog(LIMITS)
    for _ in range(5):
        assert backlog.put(droppable())
    kept, told = backlog.take()[:3], backlog

    assert [event.type for event in kept] == ["typing"] * 3
    assert not told


def test_what_may_be_dropped_takes_no_more_than_half_of_the_room_so_it_costs_nobody_their_connection() -> None:
    backlog = Backlog(OverflowLimits(lossless_bytes=100, droppable_events=50))
    for _ in range(20):
        assert backlog.put(Event("relay", b"x" * 20, overflow=Overflow.DROP))
    assert backlog.pending_bytes == 40
    assert backlog.put(lossless(60))
    *events, told = backlog.take()

    assert [event.type for event in events] == ["relay", "relay", "message"]
    assert json.loads(told.body) == {"kind": "relay", "count": 18}


def test_what_is_begun_already_counts_against_both_bounds() -> None:
    backlog = Backlog(OverflowLimits(lossless_bytes=100, droppable_events=50))
    droppable_ = Event("relay", b"x" * 20, overflow=Overflow.DROP)

    assert backlog.put(droppable_, begun_bytes=40)  # dropped
    assert backlog.pending_bytes == 0
    assert backlog.put(droppable_, begun_bytes=30)
    assert backlog.put(lossless(50), begun_bytes=30)
    assert not backlog.put(lossless(1), begun_bytes=30)
    assert backlog.put(droppable_, begun_bytes=90), "what may be dropped never costs the connection"


def test_the_count_of_dropped_events_comes_last_and_once() -> None:
    backlog = Backlog(LIMITS)
    for _ in range(3):
        backlog.put(lossless())
    for _ in range(7):
        backlog.put(droppable())
    *_, told = backlog.take()

    assert told.type == "dropped"
    assert json.loads(told.body) == {"kind": "typing", "count": 7}
    assert backlog.take() == []


Kinds = st.sampled_from(["lossless", "a", "b", "c", "drop", "take", "portion"])


@given(kinds=st.lists(Kinds, max_size=200))
def test_nothing_is_lost_in_silence(kinds: list[str]) -> None:
    backlog = Backlog(OverflowLimits(lossless_bytes=10_000, droppable_events=3, latest_keys=2))
    out: list[Event] = []
    put = {"message": 0, "typing": 0}
    for kind in kinds:
        if kind == "take":
            out += backlog.take()
        elif kind == "portion":
            out += backlog.take(250)
        elif kind == "lossless":
            assert backlog.put(lossless())
            put["message"] += 1
        elif kind == "drop":
            assert backlog.put(droppable())
            put["typing"] += 1
        else:
            assert backlog.put(latest(kind))
    out += backlog.take()
    told = sum(json.loads(event.body)["count"] for event in out if event.type == "dropped" and b"typing" in event.body)

    assert sum(event.type == "message" for event in out) == put["message"]
    assert sum(event.type == "typing" for event in out) + told == put["typing"]
