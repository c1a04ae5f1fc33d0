"""Prices: the newest value of each symbol, at the rate that a client asked for; what is no price reaches nobody."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

import pytest
from pydantic_core import to_json

from shared.clock import now_ms
from shared.edge.timers import TICK_S
from tests.support.price_board import STALE_AFTER_S, Feed, settle


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    feed = Feed()
    await feed.board.start()
    yield feed
    await feed.board.close()
    await feed.deadletters.close()


# -- conflation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [0.5, 3.0, 10.0, 50.0])
async def test_a_client_gets_no_more_flushes_than_it_asked_for_and_always_the_newest_value(
    feed: Feed, rate_hz: float
) -> None:
    screen, _ = feed.screen("A", rate_hz=rate_hz)
    for number in range(500):
        await feed.tick("A", 100 + number)
        feed.pass_time(TICK_S)
        assert all(data["price"] <= 100 + number for data in screen.data())
    feed.pass_time(1 / rate_hz + 2 * TICK_S)

    seconds = feed.hand.now_s - 1000
    assert 0.9 * rate_hz * 10 <= len(screen.data()) <= rate_hz * seconds + 1
    assert screen.latest("A")["price"] == 599


async def test_between_two_flushes_there_is_the_interval_but_for_the_wheels_lateness(feed: Feed) -> None:
    screen, _ = feed.screen("A", rate_hz=10)
    for number in range(200):
        await feed.tick("A", 1 + number)
        feed.pass_time(TICK_S)
    times = [when for when, event in screen.shown if event.type == "price_update"]

    assert min(late - early for early, late in pairwise(times)) >= 0.1 - TICK_S - 1e-9


async def test_one_flush_carries_each_changed_symbol_once(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B", "C", rate_hz=1)
    for number in range(5):
        await feed.tick("A", 10 + number)
        await feed.tick("B", 20 + number)
    feed.pass_time(1)

    assert {data["symbol"]: data["price"] for data in screen.data()} == {"A": 14, "B": 24}
    assert len(screen.data()) == 2


async def test_a_change_after_a_quiet_time_goes_out_at_once(feed: Feed) -> None:
    screen, _ = feed.screen("A", rate_hz=1)
    feed.pass_time(10)
    await feed.tick("A", 5)
    feed.pass_time(2 * TICK_S)

    assert screen.latest("A")["price"] == 5


async def test_two_clients_share_the_encoded_bytes(feed: Feed) -> None:
    one, _ = feed.screen("A")
    other, _ = feed.screen("A")
    await feed.tick("A", 5)
    feed.pass_time(1)

    assert one.shown[-1][1] is other.shown[-1][1]


async def test_five_thousand_symbols_are_followed_and_snapped(feed: Feed) -> None:
    names = [f"S{number}" for number in range(5_000)]
    screen, _ = feed.screen(*names, rate_hz=1)
    for number, name in enumerate(names):
        await feed.broker.publish(
            f"prices.{name}", to_json({"symbol": name, "price": number + 1, "timestamp": now_ms()})
        )
    await settle()
    feed.pass_time(1)
    late, _ = feed.screen(*names)

    assert {data["symbol"]: data["price"] for data in screen.data()} == {
        name: number + 1 for number, name in enumerate(names)
    }
    assert len(late.data("snapshot")[0]["symbols"]) == 5_000
    assert len(feed.board.listing()) == 5_000


# -- watching ---------------------------------------------------------------------------------------------------------


async def test_a_new_symbol_comes_with_a_snapshot_of_it_alone(feed: Feed) -> None:
    await feed.tick("A", 1)
    await feed.tick("B", 2)
    screen, flow = feed.screen("A")
    flow.set_symbols(frozenset({"A", "B", "UNSEEN"}))

    snapshots = [[each["symbol"] for each in snapshot["symbols"]] for snapshot in screen.data("snapshot")]
    assert snapshots == [["A"], ["B"]]


async def test_a_removed_symbol_is_not_flushed_any_more(feed: Feed) -> None:
    screen, flow = feed.screen("A", "B")
    await feed.tick("A", 1)
    flow.set_symbols(frozenset({"B"}))
    await feed.tick("A", 2)
    feed.pass_time(1)

    assert screen.data() == []


async def test_a_closed_flow_leaves_nothing_behind(feed: Feed) -> None:
    _, flow = feed.screen("A", "B")
    await feed.tick("A", 1)
    flow.close()

    assert feed.board._watchers == {}


# -- change and order -------------------------------------------------------------------------------------------------


async def test_change_follows_from_the_tick_before(feed: Feed) -> None:
    screen, _ = feed.screen("A")
    await feed.tick("A", 100)
    await feed.tick("A", 110)
    feed.pass_time(1)

    assert screen.latest("A") | {"timestamp": 0} == {
        "symbol": "A", "price": 110, "timestamp": 0, "previous": 100, "change": 10, "changePercent": 10
    }  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "Invalid JSON"),
        (b"[]", "object"),
        (b'{"symbol":"A","price":NaN,"timestamp":1}', "price"),
        (b'{"symbol":"A","price":1e999,"timestamp":1}', "price"),
        (b'{"symbol":"A","price":0,"timestamp":1}', "price"),
        (b'{"symbol":"A","price":-5,"timestamp":1}', "price"),
        (b'{"symbol":"A","price":"\\ud800","timestamp":1}', "JSON"),
        (b'{"symbol":"A","timestamp":1}', "price"),
        (b'{"symbol":"A","price":5,"timestamp":-1}', "timestamp"),
        (b'{"symbol":"B","price":5,"timestamp":1}', "the symbol is not the subject's"),
        (b'{"symbol":"A","price":5,"timestamp":9000000000000000}', "its time is in the future"),
    ],
)
async def test_what_is_no_price_is_a_dead_letter_and_counted(feed: Feed, payload: bytes, reason: str) -> None:
    screen, _ = feed.screen("A", "B")
    await feed.publish("A", payload)
    feed.pass_time(1)

    dead = await feed.dead()
    assert list(dead) == [payload.decode()]
    assert reason in dead[payload.decode()]
    assert feed.count("prices_received", valid="no") == 1
    assert feed.count("dead_letters", kind="prices", kept="yes") == 1
    assert screen.data() == []


async def test_an_older_tick_is_a_dead_letter_and_changes_nothing(feed: Feed) -> None:
    await feed.tick("A", 100, timestamp=5000)
    await feed.tick("A", 50, timestamp=4999)

    assert feed.board.listing()[0] == {"symbol": "A", "price": 100, "timestamp": 5000}
    assert "older" in "".join((await feed.dead()).values())


async def test_a_broken_producer_does_not_fill_the_store_but_is_counted(feed: Feed) -> None:
    for number in range(200):
        await feed.broker.publish("prices.A", b"broken %d" % number)
    await settle()

    assert 20 <= len(await feed.dead()) <= 25
    assert feed.count("prices_received", valid="no") == 200
    assert feed.count("dead_letters", kind="prices", kept="no") >= 175


# -- what is stored ---------------------------------------------------------------------------------------------------


async def test_it_begins_with_the_last_values_that_are_stored() -> None:
    feed = Feed()
    await feed.tick("A", 5)
    await feed.board.start()

    assert feed.board.listing()[0]["price"] == 5  # type: ignore[index]


async def test_after_a_lost_link_what_is_newer_is_taken_and_what_is_known_is_left(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B", rate_hz=50)
    await feed.tick("A", 1, timestamp=1000)
    await feed.tick("B", 10, timestamp=1000)
    await feed.tick("B", 11, timestamp=1001)
    feed.pass_time(1)
    prices = feed.server.stream_of("prices.A")
    assert prices is not None
    missed = to_json({"symbol": "A", "price": 2, "timestamp": 2000})
    feed.server.up = False
    feed.server.store(prices, "prices.A", missed, {})
    for interest in list(feed.server._interests):  # what is published while the link is down arrives nowhere
        interest.active = False
    await settle()
    for interest in list(feed.server._interests):
        interest.active = True
    feed.server.start()
    await settle()
    feed.pass_time(1)

    assert screen.latest("A")["price"] == 2
    assert screen.latest("B")["change"] == 1
    assert [data["price"] for data in screen.data() if data["symbol"] == "B"] == [11]


# -- staleness --------------------------------------------------------------------------------------------------------


async def test_silence_makes_every_watched_price_stale_and_a_tick_makes_all_fresh(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B")
    await feed.tick("A", 1)
    await feed.tick("B", 2)
    feed.pass_time(1)
    assert "stale" not in screen.latest("A")

    feed.pass_time(STALE_AFTER_S + 0.5)
    assert screen.latest("A")["stale"] is True
    assert screen.latest("B")["stale"] is True
    assert feed.screen("A")[0].data("snapshot")[0]["symbols"][0]["stale"] is True

    await feed.tick("A", 3)
    feed.pass_time(0.2)
    assert "stale" not in screen.latest("A")
    assert "stale" not in screen.latest("B")


async def test_prices_that_do_not_move_are_not_stale_while_the_feed_lives(feed: Feed) -> None:
    await feed.tick("A", 1)
    for _ in range(10):
        feed.pass_time(1)
        feed.board.feed_lives()

    assert not feed.board.stale
