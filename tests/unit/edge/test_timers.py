"""The wheel: no callback runs early, none more than two ticks late while it turns."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from shared.edge.timers import TICK_S, Wheel

EARLY_BY_ROUNDING_S = 1e-9
MAX_DELAY_S = 2.0
Delays = st.lists(st.floats(min_value=-1, max_value=MAX_DELAY_S), max_size=10)
Steps = st.lists(st.floats(min_value=TICK_S / 4, max_value=TICK_S), min_size=1, max_size=20)


class Hand:
    """A clock that a test turns."""

    def __init__(self, now_s: float = 0.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


@given(start_s=st.floats(min_value=0, max_value=1e6), delays=Delays, steps=Steps)
def test_a_timer_fires_once_never_early_and_at_most_two_ticks_late(
    start_s: float, delays: list[float], steps: list[float]
) -> None:
    hand = Hand(start_s)
    wheel = Wheel(hand)
    fired: dict[int, list[float]] = {number: [] for number in range(len(delays))}
    for number, delay_s in enumerate(delays):
        wheel.after(delay_s, lambda number=number: fired[number].append(hand.now_s))  # type: ignore[misc]
    turns = itertools.cycle(steps)
    while hand.now_s < start_s + MAX_DELAY_S + 3 * TICK_S:
        hand.now_s += next(turns)
        wheel.turn()

    for number, delay_s in enumerate(delays):
        due_s = start_s + max(0.0, delay_s)
        assert len(fired[number]) == 1
        assert due_s - EARLY_BY_ROUNDING_S <= fired[number][0] <= due_s + 2 * TICK_S + EARLY_BY_ROUNDING_S


def test_a_loop_that_stood_still_fires_all_that_is_due_in_order() -> None:
    hand = Hand()
    wheel = Wheel(hand)
    fired: list[int] = []
    for number, delay_s in enumerate((5.0, 1.0, 3.0)):
        wheel.after(delay_s, lambda number=number: fired.append(number))  # type: ignore[misc]

    hand.now_s = 60
    wheel.turn()

    assert fired == [1, 2, 0]


def test_a_cancelled_timer_never_fires_even_when_cancelled_by_one_of_the_same_tick() -> None:
    hand = Hand()
    wheel = Wheel(hand)
    fired: list[str] = []
    before = wheel.after(1.0, lambda: fired.append("before"))

    def cancel_the_next() -> None:
        fired.append("first")
        second.cancel()

    first = wheel.after(1.0, cancel_the_next)
    second = wheel.after(1.0, lambda: fired.append("second"))

    before.cancel()
    hand.now_s = 2
    wheel.turn()
    first.cancel()

    assert fired == ["first"]


def test_a_callback_may_set_the_next_timer_and_waits_its_time() -> None:
    hand = Hand()
    wheel = Wheel(hand)
    fired: list[float] = []

    def again() -> None:
        fired.append(hand.now_s)
        wheel.after(0.0, again)

    wheel.after(0.0, again)
    for _ in range(3):
        hand.now_s += TICK_S
        wheel.turn()

    assert len(fired) == 3


def test_one_that_raises_does_not_stop_the_others() -> None:
    hand = Hand()
    wheel = Wheel(hand)
    fired: list[str] = []
    wheel.after(1.0, lambda: 1 / 0)  # type: ignore[arg-type]
    wheel.after(1.0, lambda: fired.append("next"))

    hand.now_s = 2
    wheel.turn()

    assert fired == ["next"]
