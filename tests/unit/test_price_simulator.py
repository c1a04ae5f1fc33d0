"""The simulator: deterministic, plausible, paced, and able to go on where another stopped."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.price_feed.listing import MAX_SYMBOLS, listing
from services.price_feed.simulator import Simulator
from services.price_feed.source import MAX_STEP_MS
from shared.contracts.events import PriceTick
from shared.contracts.ids import require_id

T0 = 1_800_000_000_000


def simulator(*, seed: int = 7, count: int = 5, ticks_per_s: float = 100.0) -> Simulator:
    return Simulator(listing(count), seed=seed, ticks_per_s=ticks_per_s)


def pull(source: Simulator, steps_ms: list[int]) -> list[PriceTick]:
    """Pull once at T0 and once after each step."""
    return [tick for now_ms in accumulate(steps_ms, initial=T0) for tick in source.next_batch(now_ms).ticks]


def path(ticks: list[PriceTick]) -> list[tuple[str, float]]:
    return [(tick.symbol, tick.price) for tick in ticks]


@given(seed=st.integers(), first=st.lists(st.integers(0, MAX_STEP_MS)), second=st.lists(st.integers(0, MAX_STEP_MS)))
def test_one_seed_gives_one_path_however_it_is_pulled(seed: int, first: list[int], second: list[int]) -> None:
    one, other = path(pull(simulator(seed=seed), first)), path(pull(simulator(seed=seed), second))
    shared = min(len(one), len(other))

    assert one[:shared] == other[:shared]


def test_another_seed_gives_another_path() -> None:
    assert path(pull(simulator(seed=1), [500] * 4)) != path(pull(simulator(seed=2), [500] * 4))


@given(steps_ms=st.lists(st.integers(1, MAX_STEP_MS), min_size=1, max_size=50), rate=st.integers(1, 500))
def test_the_rate_is_kept_over_pulls_of_any_length(steps_ms: list[int], rate: int) -> None:
    ticks = pull(simulator(count=5, ticks_per_s=rate), steps_ms)

    assert len(ticks) - 5 == pytest.approx(sum(steps_ms) * rate / 1000, abs=1.001)


def test_each_symbol_opens_at_once_and_then_moves_equally_often() -> None:
    ticks = pull(simulator(count=5, ticks_per_s=10), [500] * 10)

    counts = {symbol: sum(tick.symbol == symbol for tick in ticks) for symbol in simulator().symbols}
    assert len(ticks) == 5 + 50
    assert set(counts.values()) == {11}


@given(seed=st.integers())
def test_each_tick_says_how_it_differs_from_the_one_before(seed: int) -> None:
    shown: dict[str, float] = {}
    for tick in pull(simulator(seed=seed), [500] * 10):
        assert tick.previous == shown.get(tick.symbol, tick.price)
        on_the_wire = tick.shown()
        assert on_the_wire["change"] == pytest.approx(tick.price - tick.previous, abs=1e-6)
        assert on_the_wire["changePercent"] == pytest.approx(100 * on_the_wire["change"] / tick.previous, abs=1e-3)
        shown[tick.symbol] = tick.price


def test_a_stall_is_skipped_and_counted_and_not_burst() -> None:
    source = simulator(ticks_per_s=100)
    pull(source, [])

    batch = source.next_batch(T0 + 10_000)

    assert (len(batch.ticks), batch.skipped) == (50, 950)


def test_a_clock_set_back_gives_no_ticks_and_no_harm() -> None:
    source = simulator(ticks_per_s=100)
    pull(source, [])

    assert source.next_batch(T0 - 60_000).ticks == []
    assert len(source.next_batch(T0 - 59_900).ticks) == 10


def test_a_successor_goes_on_from_the_last_prices_and_does_not_repeat_the_path() -> None:
    first = simulator()
    before = pull(first, [500] * 4)
    last = {tick.symbol: tick.price for tick in before}
    successor = simulator()
    successor.resume(last, first.position)

    after = pull(successor, [500] * 4)

    assert [tick.previous for tick in after[:5]] == [last[tick.symbol] for tick in after[:5]]
    assert path(after) != path(before[5:])
    assert all(abs(tick.change_percent or 0) < 1 for tick in after)


@pytest.mark.parametrize("position", ["", "7", "simulator:8:100", "simulator:7:-1", "simulator:7:" + "9" * 5000])
def test_a_position_of_another_source_means_the_start(position: str) -> None:
    source = simulator(seed=7)
    source.resume({}, position)

    assert path(pull(source, [500])) == path(pull(simulator(seed=7), [500]))


def test_prices_stay_publishable_for_years() -> None:
    source = simulator(count=50, ticks_per_s=0.001)  # each tick moves its symbol by 50,000 s
    ticks = pull(source, [MAX_STEP_MS] * 20)
    source = Simulator(listing(50), seed=3, ticks_per_s=0.0005)
    source.resume({"F": 0.01, "AAPL": 1e12}, "")
    for _ in range(2_000):
        source._move()

    assert all(0.01 <= price <= 1e9 for price in source._exact.values())
    assert len(ticks) == 50


def test_the_listing_is_unique_valid_and_the_same_each_time() -> None:
    instruments = listing(MAX_SYMBOLS)

    assert len({require_id(each.symbol) for each in instruments}) == MAX_SYMBOLS
    assert instruments == listing(MAX_SYMBOLS)
    assert instruments[:50] == listing(50)
    assert all(each.price >= 1 and 0 < each.volatility < 1 for each in instruments)
