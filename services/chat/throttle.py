"""At most 100 messages of a user in 60 s, over all edges (requirement W7).

How exact it is: nobody sends a message that a counter, which all edges share, has not counted before. So no number of
edges lets more through. To spare a chatterer the round trip, an edge that has let some messages of a user through
counts a few of the next in advance: never more than it has let through, nor more than a fifth of what the limit leaves.
What it counted in advance and the user did not send counts all the same until the window is over: who moves between
edges may be refused that much earlier, at the most half of the limit, and who stays at one is not.

The window slides by estimate (`shared.limits.WindowCount`): never more than the limit within a fixed window of 60 s,
and across a boundary off by at most what was counted in the part of the last window that still counts. Attempts that
are refused count too: who hammers waits longer. When the counter cannot be asked, messages pass: they could not be
stored then either, and the failure is counted.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from math import ceil

from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.errors import FanfareError, RateLimited
from shared.limits import WindowCount
from shared.telemetry.metrics import Metrics

MAX_REMEMBERED_USERS = 50_000
IN_ADVANCE = 0.2
"""Part of what the limit leaves that may be counted in advance."""

KIND = "chat"


@dataclass(slots=True)
class _Share:
    """A user in one window, as this edge knows them.

    Attributes:
        previous: what all edges counted in the window before, which is final; None until asked.
        current: what all edges had counted in this one when this edge asked last.
        passed: messages that this edge has let through.
        permits: what it has counted in advance.
    """

    window: int
    previous: int | None = None
    current: int = 0
    passed: int = 0
    permits: int = 0


class MessageThrottle:
    """Counts a user's messages and refuses those over the limit."""

    def __init__(self, broker: Broker, *, limit: int, window_s: int, metrics: Metrics) -> None:
        self._broker, self._limit, self._window = broker, limit, WindowCount(window_s)
        self._shares: OrderedDict[str, _Share] = OrderedDict()
        outcomes = metrics.counter("rate_limit", "Messages checked against the rate limit", ["outcome"])
        self._outcome = cache(outcomes.labels)

    async def admit(self, user: str) -> None:
        """Count one message of `user`.

        Raises:
            RateLimited: it is one too many.
        """
        now = now_ms()
        share = self._share(user, self._window.window(now))
        if not share.permits:
            try:
                await self._count(user, share, now)
            except FanfareError:
                self._outcome("unknown").inc()
                return
        if not share.permits:
            self._outcome("refused").inc()
            raise RateLimited(
                f"at most {self._limit} messages in {self._window.window_s} s",
                retry_after_ms=self._window.retry_after_ms(now, share.current, share.previous or 0, self._limit),
            )
        share.permits -= 1
        share.passed += 1
        self._outcome("admitted").inc()

    # -- private ------------------------------------------------------------------------------------------------------

    def _share(self, user: str, window: int) -> _Share:
        share = self._shares.get(user)
        if share is None or share.window != window:
            share = self._shares[user] = _Share(window)
            if len(self._shares) > MAX_REMEMBERED_USERS:
                self._shares.popitem(last=False)
        self._shares.move_to_end(user)
        return share

    async def _count(self, user: str, share: _Share, now: int) -> None:
        """Count one message or more; what the limit has room for becomes permits."""
        if share.previous is None:
            share.previous = await self._broker.count(subjects.counter(KIND, user, share.window - 1), 0)
        left = self._limit - self._window.estimate(now, share.current, share.previous)
        wanted = max(1, min(share.passed, int(left * IN_ADVANCE)))
        share.current = await self._broker.count(subjects.counter(KIND, user, share.window), wanted)
        over = ceil(self._window.estimate(now, share.current, share.previous) - self._limit)
        share.permits += wanted - min(wanted, max(0, over))
