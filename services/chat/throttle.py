"""At most 100 messages of a user in 60 s, over all edges (requirement W7).

How exact it is: every attempt is one step of a counter that all edges share, so no number of edges lets more through.
The window slides by estimate (`shared.limits.WindowCount`): never more than the limit within a fixed window of 60 s,
and across a boundary off by at most what the user sent in the part of the last window that still counts. Attempts that
are refused count too: who hammers waits longer. When the counter cannot be asked, messages pass: they could not be
stored then either, and the failure is counted.
"""

from __future__ import annotations

from collections import OrderedDict

from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.errors import FanfareError, RateLimited
from shared.limits import WindowCount
from shared.telemetry.metrics import Metrics

MAX_REMEMBERED_USERS = 50_000
KIND = "chat"


class MessageThrottle:
    """Counts a user's messages and refuses those over the limit."""

    def __init__(self, broker: Broker, *, limit: int, window_s: int, metrics: Metrics) -> None:
        self._broker, self._limit, self._window = broker, limit, WindowCount(window_s)
        self._previous: OrderedDict[str, tuple[int, int]] = OrderedDict()
        self._outcomes = metrics.counter("rate_limit", "Messages checked against the rate limit", ["outcome"])

    async def admit(self, user: str) -> None:
        """Count one message of `user`.

        Raises:
            RateLimited: it is one too many.
        """
        now = now_ms()
        try:
            current, previous = await self._count(user, now)
        except FanfareError:
            self._outcomes.labels("unknown").inc()
            return
        if self._window.estimate(now, current, previous) > self._limit:
            self._outcomes.labels("refused").inc()
            raise RateLimited(
                f"at most {self._limit} messages in {self._window.window_s} s",
                retry_after_ms=self._window.retry_after_ms(now, current, previous, self._limit),
            )
        self._outcomes.labels("admitted").inc()

    async def _count(self, user: str, now: int) -> tuple[int, int]:
        """Count one more; return how many this window has, and how many the last one had."""
        window = self._window.window(now)
        current = await self._broker.count(subjects.counter(KIND, user, window))
        return current, await self._last(user, window)

    async def _last(self, user: str, window: int) -> int:
        """Return the count of the window before, which is final: asked once for each user and window."""
        known = self._previous.get(user)
        if known is None or known[0] != window:
            known = (window, await self._broker.count(subjects.counter(KIND, user, window - 1), 0))
            self._previous[user] = known
            if len(self._previous) > MAX_REMEMBERED_USERS:
                self._previous.popitem(last=False)
        self._previous.move_to_end(user)
        return known[1]
