"""One wheel of timers for a process: deadlines, expiries and flushes without a task or a loop timer each."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from shared.clock import Clock, monotonic_s
from shared.telemetry.logs import get_logger

TICK_S = 0.02


class Timer:
    """One due call; `cancel()` makes it nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call any more; harmless when it already has been."""
        self.callback = None


class Wheel:
    """Timers by tick. Scheduling, cancelling and firing cost the same with ten timers or a hundred thousand.

    A callback runs at most two ticks late (40 ms) and never early; one that raises is logged and does not stop the
    others.
    """

    def __init__(self, clock: Clock = monotonic_s) -> None:
        self._clock = clock
        self._slots: dict[int, list[Timer]] = {}
        self._turned = self._tick_of(clock())
        self._log = get_logger()

    def after(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call `callback` once, `delay_s` from now."""
        timer = Timer(callback)
        due = max(math.ceil((self._clock() + delay_s) / TICK_S), self._turned + 1)
        self._slots.setdefault(due, []).append(timer)
        return timer

    def turn(self) -> None:
        """Fire what is due now."""
        now = self._tick_of(self._clock())
        while self._turned < now:
            self._turned += 1
            for timer in self._slots.pop(self._turned, ()):
                self._fire(timer)

    async def run(self) -> None:
        """Turn for ever; the owner keeps the task."""
        while True:
            await asyncio.sleep(TICK_S)
            self.turn()

    def _fire(self, timer: Timer) -> None:
        if timer.callback is None:
            return
        callback, timer.callback = timer.callback, None
        try:
            callback()
        except Exception:  # noqa: BLE001  # one client's timer must not stop all others'
            self._log.exception("timer_failed")

    @staticmethod
    def _tick_of(time_s: float) -> int:
        return int(time_s / TICK_S)
