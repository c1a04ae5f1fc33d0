"""The reconciler: compares an edge with the broker every few seconds, and at once when told to."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from shared.clock import Clock
from shared.errors import FanfareError, Unavailable
from shared.telemetry.logs import get_logger

RECONCILE_EVERY_S = 2.0
RECONCILE_GRACE_S = 0.2
"""What was stored this very moment is still on its way here: this is the time it is given."""

RETRY_AFTER_S = 0.5
STALE_AFTER_S = 10.0

Compare = Callable[[bool], Awaitable[None]]
"""Compares; with everything if the argument is True: something may have been missed."""


class Reconciler:
    """Calls `compare` for ever."""

    def __init__(self, compare: Compare, clock: Clock) -> None:
        self._compare, self._clock = compare, clock
        self._wake = asyncio.Event()
        self._log = get_logger()
        self._done_at_s = clock()

    def wake(self) -> None:
        """Compare everything soon: the link was lost, or something contradicts what is known."""
        self._wake.set()

    async def ready(self) -> None:
        """Pass while what clients are told is compared with the broker: a readiness check.

        Raises:
            Unavailable: it could not be for STALE_AFTER_S; other edges know more.
        """
        if self._clock() - self._done_at_s > STALE_AFTER_S:
            raise Unavailable(f"not compared with the broker for {STALE_AFTER_S:g} s")

    async def run(self) -> None:
        """Compare for ever; the owner keeps the task."""
        while True:
            try:
                async with asyncio.timeout(RECONCILE_EVERY_S * random.uniform(0.75, 1.25)):
                    await self._wake.wait()
            except TimeoutError:
                pass
            everything = self._wake.is_set()
            self._wake.clear()
            try:
                await self._compare(everything)
                self._done_at_s = self._clock()
            except FanfareError as error:
                self._log.warning("reconcile_failed", reason=str(error))
                if everything:
                    self._wake.set()
                    await asyncio.sleep(RETRY_AFTER_S)
