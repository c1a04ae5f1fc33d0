"""Prices: the newest value of each symbol, at the rate that a client asked for; what is no price reaches nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import pytest
from pydantic_core import from_json, to_json

from services.notifications.price_groups import SLICE
from services.notifications.ticks import MAX_UNREAD
from shared.clock import now_ms
from shared.edge.timers import TICK_S
from tests.support.price_board import STALE_AFTER_S, Feed, Screen, settle


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    feed = Feed()
    await feed.board.start()
    yield feed
    await feed.board.close()
    await feed.deadletters.close()


async def served_in_one_go(feed: Feed, crowd: Sequence[Screen]) -> list[int]:
    """Let time pass until all have been sent something; return how many were in each round of the loop."""
    served = [sum(bool(screen.batches) for screen in crowd)]
    while served[-1] < len(crowd):
        await feed.pass_time(TICK_S)
        served.append(sum(bool(screen.batches) for screen in crowd))
    return [late - early for early, late in pairwise(served)]


# -- conflation -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate_hz", [0.5, 3.0, 10.0, 50.0])
async def test_a_client_gets_no_more_flushes_than_it_asked_for_and_always_the_newest_value(
    feed: Feed, rate_hz: float
) -> None:
    screen, _ = feed.screen("A", rate_hz=rate_hz)
    for number in range(500):
        await feed.tick("A", 100 + number)
        await feed.pass_time(TICK_S)
        assert all(data["price"] <= 100 + number for data in screen.data())
    await feed.pass_time(1 / rate_hz + 2 * TICK_S)

    seconds = feed.hand.now_s - 1000
    assert 0.9 * rate_hz * 10 <= len(screen.data()) <= rate_hz * seconds + 1
    assert screen.latest("A")["price"] == 599


async def test_between_two_flushes_there_is_the_interval_but_for_the_wheels_lateness(feed: Feed) -> None:
    screen, _ = feed.screen("A", rate_hz=10)
    for number in range(200):
        await feed.tick("A", 1 + number)
        await feed.pass_time(TICK_S)
    times = [when for when, event in screen.shown if event.type == "price_update"]

    assert min(late - early for early, late in pairwise(times)) >= 0.1 - TICK_S - 1e-9


async def test_a_quiet_time_earns_no_higher_rate_afterwards(feed: Feed) -> None:
    screen, _ = feed.screen("A", rate_hz=5)
    await feed.pass_time(1)
    for number in range(20):
        await feed.tick("A", 1 + number)
        await feed.pass_time(TICK_S)
    times = [when for when, event in screen.shown if event.type == "price_update"]

    assert times[1] - times[0] >= 0.2 - 1e-9


async def test_one_flush_carries_each_changed_symbol_once(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B", "C", rate_hz=1)
    for number in range(5):
        await feed.tick("A", 10 + number)
        await feed.tick("B", 20 + number)
    await feed.pass_time(1)

    assert {data["symbol"]: data["price"] for data in screen.data()} == {"A": 14, "B": 24}
    assert len(screen.data()) == 2


async def test_a_change_after_a_quiet_time_goes_out_at_once(feed: Feed) -> None:
    screen, _ = feed.screen("A", rate_hz=1)
    await feed.pass_time(10)
    await feed.tick("A", 5)
    await feed.pass_time(2 * TICK_S)

    assert screen.latest("A")["price"] == 5


async def test_clients_share_what_was_made_for_one_of_them(feed: Feed) -> None:
    one, other, third = feed.screen("A", "B")[0], feed.screen("B", "A")[0], feed.screen("A")[0]
    await feed.tick("A", 5)
    await feed.tick("B", 6)
    await feed.pass_time(1)

    assert one.batches[0] == other.batches[0]  # not equal events, but the same
    assert third.batches[0][0] in one.batches[0]


async def test_everything_that_changed_for_a_client_goes_out_in_one_write(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B", "C", rate_hz=10)
    for _ in range(20):
        for symbol in ("A", "B"):
            await feed.tick(symbol, 5)
        await feed.pass_time(TICK_S)

    assert [len(batch) for batch in screen.batches] == [2] * len(screen.batches)
    assert 4 <= len(screen.batches) <= 5


async def test_a_large_audience_is_served_in_slices_and_everybody_once(feed: Feed) -> None:
    crowd = [feed.screen("A") for _ in range(3 * SLICE)]
    leaving = crowd[2 * SLICE]
    await feed.tick("A", 5)
    served = await served_in_one_go(feed, [screen for screen, _ in crowd[:SLICE]])
    leaving[1].close()
    served += await served_in_one_go(feed, [screen for screen, _ in crowd if screen is not leaving[0]])

    assert max(served) <= SLICE
    assert [len(screen.batches) for screen, _ in crowd if screen is not leaving[0]] == [1] * (3 * SLICE - 1)
    assert leaving[0].batches == []


async def test_of_large_deliveries_fewer_go_out_in_one_go(feed: Feed) -> None:
    names = [f"S{number:040}" for number in range(SLICE - 1)]
    crowd = [feed.screen(*names)[0] for _ in range(2 * SLICE)]
    for name in names:
        await feed.broker.publish(f"prices.{name}", to_json({"symbol": name, "price": 1, "timestamp": now_ms()}))
    await settle()

    assert max(await served_in_one_go(feed, crowd)) <= SLICE // 2
    assert all(len(screen.batches) == 1 for screen in crowd)


async def test_what_is_made_for_a_delivery_counts_as_work_too(feed: Feed) -> None:
    names = [[f"S{client}-{number}" for number in range(SLICE // 2)] for client in range(8)]
    crowd = [feed.screen(*each)[0] for each in names]
    for name in (name for each in names for name in each):
        await feed.broker.publish(f"prices.{name}", to_json({"symbol": name, "price": 1, "timestamp": now_ms()}))
    await settle()

    assert max(await served_in_one_go(feed, crowd)) <= 2
    assert all(len(screen.data()) == SLICE // 2 for screen in crowd)


async def test_five_thousand_symbols_are_followed_and_snapped(feed: Feed) -> None:
    names = [f"S{number}" for number in range(5_000)]
    screen, _ = feed.screen(*names, rate_hz=1)
    for number, name in enumerate(names):
        await feed.broker.publish(
            f"prices.{name}", to_json({"symbol": name, "price": number + 1, "timestamp": now_ms()})
        )
    await settle()
    await feed.pass_time(1)
    while not screen.batches:  # made in slices
        await settle()
    late, _ = feed.screen(*names)

    assert {data["symbol"]: data["price"] for data in screen.data()} == {
        name: number + 1 for number, name in enumerate(names)
    }
    assert len(late.data("snapshot")[0]["symbols"]) == 5_000


async def test_a_large_market_is_listed_whole_without_holding_up_the_loop(feed: Feed) -> None:
    names = [f"S{number:05}" for number in range(5_000)]
    for name in names:  # a flood, so nobody has read them yet
        await feed.broker.publish(f"prices.{name}", to_json({"symbol": name, "price": 1, "timestamp": now_ms()}))
    await settle()
    await feed.pass_time(TICK_S)
    turns = 0
    async with asyncio.TaskGroup() as group:
        listing = group.create_task(feed.board.listing())
        while not listing.done():
            await asyncio.sleep(0)
            turns += 1

    listed = from_json(listing.result())
    assert ([each["symbol"] for each in listed["symbols"]], listed["stale"]) == (names, False)
    assert turns > 3


async def test_what_ticks_while_a_large_audience_is_being_served_goes_out_next(feed: Feed) -> None:
    crowd = [feed.screen("A")[0] for _ in range(2 * SLICE)]
    await feed.tick("A", 5)
    await feed.pass_time(2 * TICK_S)  # the first slice
    feed.board._book.receive(b"prices.A", to_json({"symbol": "A", "price": 6, "timestamp": now_ms()}))
    await feed.pass_time(2 * TICK_S)  # told, and still sending
    await settle()
    await feed.pass_time(1)
    await settle()

    assert {tuple(data["price"] for data in screen.data()) for screen in crowd} == {(5, 6)}


async def test_an_audience_that_leaves_before_its_turn_leaves_nothing_behind(feed: Feed) -> None:
    _, first = feed.screen(*(f"S{number}" for number in range(SLICE)))
    _, second = feed.screen("S0", "S1")
    for number in range(SLICE):
        await feed.broker.publish(
            f"prices.S{number}", to_json({"symbol": f"S{number}", "price": 1, "timestamp": now_ms()})
        )
    await settle()
    await feed.pass_time(TICK_S)
    second.close()
    first.close()
    await settle()

    assert (len(feed.board.groups), feed.board.groups._waiting) == (0, {})


# -- watching ---------------------------------------------------------------------------------------------------------


async def test_a_new_symbol_comes_with_a_snapshot_of_it_alone(feed: Feed) -> None:
    await feed.tick("A", 1)
    await feed.tick("B", 2)
    await feed.pass_time(1)
    screen, flow = feed.screen("A")
    flow.set_symbols(frozenset({"A", "B", "UNSEEN"}))

    snapshots = [[each["symbol"] for each in snapshot["symbols"]] for snapshot in screen.data("snapshot")]
    assert snapshots == [["A"], ["B"]]


async def test_a_removed_symbol_is_not_flushed_any_more(feed: Feed) -> None:
    screen, flow = feed.screen("A", "B")
    await feed.tick("A", 1)
    flow.set_symbols(frozenset({"B"}))
    await feed.tick("A", 2)
    await feed.pass_time(1)

    assert screen.data() == []


async def test_a_closed_flow_leaves_nothing_behind(feed: Feed) -> None:
    _, flow = feed.screen("A", "B")
    await feed.tick("A", 1)
    flow.close()

    assert (len(feed.board.groups), feed.board.groups._waiting) == (0, {})


async def test_a_change_that_was_on_its_way_is_not_lost_when_the_watchlist_changes(feed: Feed) -> None:
    screen, flow = feed.screen("A", "B", rate_hz=1)
    await feed.tick("A", 1)
    await feed.pass_time(0.1)
    await feed.tick("A", 2)  # waits for the next second
    await feed.pass_time(0.1)
    flow.set_symbols(frozenset({"A", "B", "C"}))
    await feed.tick("B", 3)  # has come, and no beat since
    flow.set_symbols(frozenset({"B", "C"}))

    snapshots = [{each["symbol"]: each["price"] for each in data["symbols"]} for data in screen.data("snapshot")]
    assert snapshots == [{}, {"A": 2}, {"B": 3}]


async def test_what_somebody_else_has_read_already_reaches_all_who_watch_it(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B", rate_hz=50)
    await feed.tick("A", 1)
    feed.screen("A")  # its snapshot reads the tick
    await feed.tick("B", 2)
    await feed.pass_time(1)

    assert {data["symbol"]: data["price"] for data in screen.data()} == {"A": 1, "B": 2}


# -- change and order -------------------------------------------------------------------------------------------------


async def test_change_follows_from_the_tick_before(feed: Feed) -> None:
    screen, _ = feed.screen("A")
    await feed.tick("A", 100)
    await feed.tick("A", 110)
    await feed.pass_time(1)

    assert screen.latest("A") | {"timestamp": 0} == {
        "symbol": "A", "price": 110, "timestamp": 0, "previous": 100, "change": 10, "changePercent": 10
    }  # fmt: skip


async def test_in_a_flood_change_follows_from_the_tick_that_was_read_before(feed: Feed) -> None:
    screen, _ = feed.screen("A")
    await feed.tick("A", 100)
    await feed.pass_time(1)
    for price in (*range(1, MAX_UNREAD + 1), 110):  # between two beats
        await feed.tick("A", price)
    await feed.pass_time(1)

    assert [(data["price"], data.get("change")) for data in screen.data()] == [(100, None), (110, 10)]


async def test_what_a_producer_says_of_the_change_is_left_as_it_is(feed: Feed) -> None:
    screen, _ = feed.screen("A")
    await feed.tick("A", 100)
    await feed.pass_time(1)
    await feed.tick("A", 110, previous=88, changePercent=7)
    await feed.pass_time(1)

    assert (screen.latest("A")["previous"], screen.latest("A")["change"]) == (88, 22)


@pytest.mark.parametrize("flood", [0, MAX_UNREAD])
async def test_a_tick_that_is_not_valid_does_not_hide_the_one_before_it(feed: Feed, flood: int) -> None:
    screen, _ = feed.screen("A")
    for _ in range(flood):
        await feed.tick("OTHER", 1)
    await feed.tick("A", 100)
    for payload in (b"garbage", b'{"symbol":"B","price":5,"timestamp":1}'):
        await feed.publish("A", payload)
    await feed.pass_time(1)
    await feed.publish("A", b"more garbage")
    await feed.pass_time(1)

    assert [data["price"] for data in screen.data()] == [100]
    assert len(await feed.dead()) == 3


async def test_in_a_quiet_market_every_tick_is_read_the_bad_between_good_ones_too(feed: Feed) -> None:
    await feed.tick("A", 100)
    await feed.publish("A", b"garbage")
    await feed.tick("A", 101)
    await feed.pass_time(1)

    assert (feed.count("prices_read", valid="yes"), list(await feed.dead())) == (2, ["garbage"])


async def test_symbols_that_were_never_a_price_take_no_place(feed: Feed) -> None:
    for number in range(100):
        await feed.broker.publish(f"prices.G{number}", b"garbage")
    await feed.broker.publish("prices.no id", b"garbage")
    await settle()
    await feed.pass_time(1)

    assert (feed.board._book._by_subject, feed.board._book._by_symbol) == ({}, {})
    assert feed.count("prices_read", valid="no") == 101


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
    await feed.pass_time(1)

    dead = await feed.dead()
    assert list(dead) == [payload.decode()]
    assert reason in dead[payload.decode()]
    assert feed.count("prices_read", valid="no") == 1
    assert feed.count("dead_letters", kind="prices", kept="yes") == 1
    assert screen.data() == []


async def test_an_older_tick_is_a_dead_letter_and_changes_nothing(feed: Feed) -> None:
    await feed.tick("A", 100, timestamp=5000)
    await feed.pass_time(1)
    await feed.tick("A", 50, timestamp=4999)
    await feed.pass_time(1)

    assert from_json(await feed.board.listing())["symbols"] == [{"symbol": "A", "price": 100, "timestamp": 5000}]
    assert "older" in "".join((await feed.dead()).values())


async def test_a_broken_producer_does_not_fill_the_store_but_is_counted(feed: Feed) -> None:
    for number in range(200):
        await feed.broker.publish("prices.A", b"broken %d" % number)
        await settle()
        await feed.pass_time(TICK_S)

    assert 20 <= len(await feed.dead()) <= 25
    assert feed.count("prices_read", valid="no") == 200
    assert feed.count("dead_letters", kind="prices", kept="no") >= 175


async def test_a_flood_is_counted_whole_and_read_in_its_newest_alone(feed: Feed) -> None:
    for number in range(500):
        await feed.broker.publish("prices.A", b"broken %d" % number)
        await feed.broker.publish("prices.B", b'{"symbol":"B","price":1,"timestamp":%d}' % number)
    await settle()
    await feed.pass_time(1)

    assert feed.count("prices_received") == 1000
    assert (feed.count("prices_read", valid="yes"), feed.count("prices_read", valid="no")) == (1, MAX_UNREAD)


# -- what is stored ---------------------------------------------------------------------------------------------------


async def test_it_begins_with_the_last_values_that_are_stored() -> None:
    feed = Feed()
    await feed.tick("A", 5)
    await feed.board.start()

    assert [each["price"] for each in from_json(await feed.board.listing())["symbols"]] == [5]


async def test_after_a_lost_link_what_is_newer_is_taken_and_what_is_known_is_left(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B", rate_hz=50)
    await feed.tick("A", 1, timestamp=1000)
    await feed.tick("B", 10, timestamp=1000)
    await feed.pass_time(1)
    await feed.tick("B", 11, timestamp=1001)
    await feed.pass_time(1)
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
    await feed.pass_time(1)

    assert screen.latest("A")["price"] == 2
    assert screen.latest("B")["change"] == 1
    assert [data["price"] for data in screen.data() if data["symbol"] == "B"] == [10, 11]


# -- staleness --------------------------------------------------------------------------------------------------------


async def test_silence_makes_every_watched_price_stale_and_a_tick_makes_all_fresh(feed: Feed) -> None:
    screen, _ = feed.screen("A", "B")
    await feed.tick("A", 1)
    await feed.tick("B", 2)
    await feed.pass_time(1)
    assert "stale" not in screen.latest("A")

    await feed.pass_time(STALE_AFTER_S + 0.5)
    assert screen.latest("A")["stale"] is True
    assert screen.latest("B")["stale"] is True
    assert feed.screen("A")[0].data("snapshot")[0]["symbols"][0]["stale"] is True

    shown = len(screen.data())
    await feed.tick("A", 3)
    await feed.pass_time(0.2)
    assert all("stale" not in data for data in screen.data()[shown:])
    assert "stale" not in screen.latest("A")
    assert "stale" not in screen.latest("B")


async def test_prices_that_do_not_move_are_not_stale_while_the_feed_lives(feed: Feed) -> None:
    await feed.tick("A", 1)
    for _ in range(10):
        await feed.pass_time(1)
        await feed.beat("up")

    assert not feed.board.stale


async def test_what_is_stored_is_no_sign_of_life(feed: Feed) -> None:
    screen, _ = feed.screen("A")
    await feed.tick("A", 1)
    await feed.pass_time(STALE_AFTER_S + 0.5)
    prices = feed.server.stream_of("prices.A")
    assert prices is not None
    feed.server.store(prices, "prices.A", to_json({"symbol": "A", "price": 2, "timestamp": now_ms() + 1}), {})
    feed.board._book._by_symbol["A"].unread.clear()  # it was stored while the link was down
    feed.server.start()
    await settle()
    await feed.pass_time(1)

    assert (screen.latest("A")["price"], screen.latest("A")["stale"]) == (2, True)


@pytest.mark.parametrize("status", ["standby", "nonsense"])
async def test_a_feed_that_is_not_up_keeps_no_price_fresh(feed: Feed, status: str) -> None:
    await feed.tick("A", 1)
    for _ in range(10):
        await feed.pass_time(1)
        await feed.beat(status)

    assert feed.board.stale
