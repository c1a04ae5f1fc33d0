"""How late the event loop runs what is due: the first sign of an edge with too much to do."""

from __future__ import annotations

import asyncio
from typing import NoReturn

from shared.clock import Clock, monotonic_s
from shared.errors import Unavailable
from shared.telemetry.metrics import Metrics

PROBE_S = 0.25
LAG_S = 0.5
LAGGING_FOR_S = 5.0


class LoopLag:
    """Measures the loop it runs on. One long pause is a pause; late every time for seconds is too much to do."""

    def __init__(self, metrics: Metrics, clock: Clock = monotonic_s) -> None:
        self._clock = clock
        self._lag = metrics.histogram("loop_lag_seconds", "How late the event loop runs what is due")
        self._since_s: float | None = None

    async def run(self) -> NoReturn:
        """Probe for ever; the owner keeps the task."""
        while True:
            due_s = self._clock() + PROBE_S
            await asyncio.sleep(PROBE_S)
            self.note(self._clock() - due_s)

    def note(self, late_s: float) -> None:
        """Take one measurement."""
        self._lag.observe(max(0.0, late_s))
        if late_s < LAG_S:
            self._since_s = None
        elif self._since_s is None:
            self._since_s = self._clock()

    async def ready(self) -> None:
        """Pass while the loop keeps up: a readiness check.

        Raises:
            Unavailable: it has been late by LAG_S or more for LAGGING_FOR_S.
        """
        if self._since_s is not None and self._clock() - self._since_s > LAGGING_FOR_S:
            raise Unavailable(f"the event loop is late by more than {LAG_S:g} s")
