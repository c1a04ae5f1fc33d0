"""Rate limits by a clock that the test turns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import RateLimited
from shared.limits import Buckets, TokenBucket, WindowCount


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_a_bucket_lets_its_burst_through_at_once_and_its_rate_after() -> None:
    hand = Hand()
    bucket = TokenBucket(rate_per_s=2, burst=3, clock=hand)

    assert [bucket.take() for _ in range(4)] == [True, True, True, False]
    hand.now_s = 0.5
    assert [bucket.take() for _ in range(2)] == [True, False]
    hand.now_s = 100
    assert [bucket.take() for _ in range(4)] == [True, True, True, False]


def test_a_refusal_takes_no_tokens() -> None:
    hand = Hand()
    bucket = TokenBucket(rate_per_s=1, burst=3, clock=hand)

    assert not bucket.take(4)
    assert bucket.take(3)


def test_a_refusal_says_when_there_is_a_token_again() -> None:
    hand = Hand()
    bucket = TokenBucket(rate_per_s=2, burst=1, clock=hand)
    bucket.require("calls")
    with pytest.raises(RateLimited) as refused:
        bucket.require("calls")

    assert 500 <= refused.value.retry_after_ms <= 502
    hand.now_s = refused.value.retry_after_ms / 1000
    bucket.require("calls")


def test_each_key_has_its_own_bucket_and_a_refusal_says_when_there_is_a_token_again() -> None:
    hand = Hand()
    buckets = Buckets(rate_per_s=2, burst=3, clock=hand)

    assert [buckets.take("a") for _ in range(4)] == [0, 0, 0, 0.5]
    assert buckets.wait_s("b") == 0
    with pytest.raises(RateLimited) as refused:
        buckets.require("a", "calls")
    assert 500 <= refused.value.retry_after_ms <= 502
    hand.now_s = refused.value.retry_after_ms / 1000
    buckets.require("a", "calls")


def test_of_a_full_table_who_took_least_is_forgotten_and_counted_and_who_took_most_waits_on() -> None:
    forgotten: list[int] = []
    buckets = Buckets(rate_per_s=0.001, burst=3, max_keys=10, clock=Hand(), count_forgotten=forgotten.append)
    for _ in range(3):
        buckets.require("greedy", "calls")
    for number in range(1_000):
        buckets.require(f"other {number}", "calls")

        assert len(buckets) <= 10

    assert buckets.wait_s("greedy") > 0
    assert sum(forgotten) + len(buckets) == 1_001


def test_of_those_whose_buckets_are_full_again_nothing_stays() -> None:
    hand = Hand()
    buckets = Buckets(rate_per_s=1, burst=3, clock=hand)
    for number in range(20_000):
        hand.now_s += 0.1
        buckets.require(f"address {number}", "arrivals")

        assert len(buckets) <= 257


@given(steps=st.lists(st.tuples(st.floats(0, 5), st.sampled_from("ab")), max_size=80))
def test_no_key_gets_more_than_burst_and_rate_allow_and_each_gets_one_after_the_wait_it_is_told(
    steps: list[tuple[float, str]],
) -> None:
    hand = Hand()
    buckets, taken = Buckets(rate_per_s=3, burst=5, clock=hand), {"a": 0, "b": 0}
    for wait_s, key in steps:
        hand.now_s += wait_s
        if told_s := buckets.take(key):
            hand.now_s += told_s
            assert buckets.take(key) == 0
        taken[key] += 1

        assert taken[key] <= 5 + 3 * hand.now_s + 1e-4


@given(steps=st.lists(st.tuples(st.floats(0, 5), st.integers(1, 20)), max_size=50))
def test_a_bucket_never_lets_more_through_than_burst_and_rate_allow(steps: list[tuple[float, int]]) -> None:
    hand = Hand()
    bucket = TokenBucket(rate_per_s=3, burst=5, clock=hand)
    taken = 0
    for wait_s, tries in steps:
        hand.now_s += wait_s
        taken += sum(bucket.take() for _ in range(tries))

        assert taken <= 5 + 3 * hand.now_s + 1e-6


def test_the_window_before_counts_less_and_less() -> None:
    window = WindowCount(60)

    assert window.window(59_999) == 0
    assert window.window(60_000) == 1
    assert window.estimate(60_000, 1, 100) == 101
    assert window.estimate(90_000, 1, 100) == 51
    assert window.estimate(119_999, 1, 0) == 1


Uses = st.integers(0, 1_000)


@given(
    now_ms=st.integers(0, 10**12), window_s=st.integers(1, 120), limit=st.integers(1, 200), current=Uses, previous=Uses
)
def test_after_the_time_that_a_refusal_names_one_more_use_is_within_the_limit(
    now_ms: int, window_s: int, limit: int, current: int, previous: int
) -> None:
    window = WindowCount(window_s)
    then_ms = now_ms + window.retry_after_ms(now_ms, current, previous, limit)
    passed = window.window(then_ms) - window.window(now_ms)
    counts = {0: (current, previous), 1: (0, current)}.get(passed, (0, 0))

    assert window.estimate(then_ms, counts[0] + 1, counts[1]) <= limit
    assert passed <= 2


def test_a_full_window_is_not_told_to_come_back_at_its_mere_end() -> None:
    assert WindowCount(60).retry_after_ms(30_000, 101, 0, 100) > 30_000


def test_what_costs_more_takes_more_tokens_and_a_refusal_none() -> None:
    hand = Hand()
    buckets = Buckets(2.0, 10.0, clock=hand)

    assert buckets.take("ann", 8) == 0
    assert buckets.take("ann", 3) == pytest.approx(0.5)
    assert buckets.take("ann", 2) == 0
    assert buckets.take("bob", 10) == 0
    hand.now_s = 1.0
    assert buckets.take("ann", 3) == pytest.approx(0.5)
    assert buckets.take("ann", 2) == 0
    with pytest.raises(RateLimited) as refused:
        buckets.require("ann", "bytes", 4)
    assert refused.value.retry_after_ms == pytest.approx(2000, abs=2)
