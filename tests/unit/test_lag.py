"""A loop that is late again and again is too busy for new clients; one long pause is not."""

from __future__ import annotations

import pytest

from shared.errors import Unavailable
from shared.runtime.lag import LAG_S, LAGGING_FOR_S, LoopLag
from shared.telemetry.metrics import Metrics


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def test_readiness_ends_when_the_loop_was_late_for_long_and_returns_when_it_is_not() -> None:
    clock = Clock()
    lag = LoopLag(Metrics(), clock)

    lag.note(LAG_S)
    clock.now_s += LAGGING_FOR_S
    await lag.ready()
    clock.now_s += 0.1
    with pytest.raises(Unavailable, match="late"):
        await lag.ready()

    lag.note(LAG_S / 2)
    await lag.ready()


async def test_single_pauses_are_forgiven() -> None:
    clock = Clock()
    lag = LoopLag(Metrics(), clock)
    for _ in range(10):
        lag.note(10 * LAG_S)
        lag.note(0.0)
        clock.now_s += LAGGING_FOR_S
        await lag.ready()
