"""Rate limits. Pure: clocks are injected, and what is shared between edges is counted elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from heapq import nlargest
from operator import itemgetter

from shared.clock import Clock, monotonic_s
from shared.errors import RateLimited

SWEPT_FROM = 256
_ROUNDING_S = 1e-6


class TokenBucket:
    """Lets `rate_per_s` through on average and `burst` at once."""

    __slots__ = ("_burst", "_clock", "_rate_per_s", "_tokens", "_updated_s")

    def __init__(self, *, rate_per_s: float, burst: float, clock: Clock = monotonic_s) -> None:
        self._rate_per_s, self._burst, self._clock = rate_per_s, burst, clock
        self._tokens, self._updated_s = burst, clock()

    def take(self, tokens: float = 1.0) -> bool:
        """Take tokens if there are enough; False takes none."""
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._updated_s) * self._rate_per_s)
        self._updated_s = now
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def require(self, what: str) -> None:
        """Take one token for `what`.

        Raises:
            RateLimited: there is none; it says when there will be.
        """
        if not self.take():
            wait_s = (1.0 - self._tokens) / self._rate_per_s
            raise RateLimited(f"too many {what}", retry_after_ms=int(wait_s * 1000) + 1)


class Buckets:
    """A token bucket for each key: lets `rate_per_s` through on average and `burst` at once.

    Of each it keeps one number, when it is full again, and of a full one nothing (the Generic Cell Rate Algorithm of
    ITU-T I.371). Policy when more than half of `max_keys` are not full: those that lack least are forgotten first, and
    begin full. So nobody gets their tokens back by coming under many names.

    Args:
        count_forgotten: told how many were forgotten.
    """

    def __init__(
        self,
        rate_per_s: float,
        burst: float,
        *,
        max_keys: int = 10_000,
        clock: Clock = monotonic_s,
        count_forgotten: Callable[[int], None] = lambda _number: None,
    ) -> None:
        self._token_s, self._burst_s = 1.0 / rate_per_s, burst / rate_per_s
        self._max_keys, self._clock, self._count_forgotten = max_keys, clock, count_forgotten
        self._full_at_s: dict[str, float] = {}
        self._swept_from = min(SWEPT_FROM, max_keys)

    def __len__(self) -> int:
        return len(self._full_at_s)

    def wait_s(self, key: str) -> float:
        """Return how long until `key` has a token; 0 if it has one."""
        return self._wait_s(self._full_at_s.get(key, 0.0), self._clock())

    def take(self, key: str, tokens: int = 1) -> float:
        """Take tokens of `key` and return 0; or take none, and return how long until there are as many."""
        now, full_at_s = self._clock(), self._full_at_s.get(key, 0.0)
        if wait_s := self._wait_s(full_at_s, now, tokens):
            return wait_s
        self._full_at_s[key] = max(now, full_at_s) + tokens * self._token_s
        if len(self._full_at_s) > self._swept_from:
            self._sweep(now)
        return 0.0

    def require(self, key: str, what: str, tokens: int = 1) -> None:
        """Take tokens of `key`; errors as `TokenBucket.require`."""
        if wait_s := self.take(key, tokens):
            raise RateLimited(f"too many {what}", retry_after_ms=int(wait_s * 1000) + 1)

    def _wait_s(self, full_at_s: float, now: float, tokens: int = 1) -> float:
        wait_s = max(0.0, full_at_s - now) + tokens * self._token_s - self._burst_s
        return wait_s if wait_s > _ROUNDING_S else 0.0

    def _sweep(self, now: float) -> None:
        """Drop what is full. It is done when the table has doubled since, so it costs each arrival next to nothing."""
        left = {key: at_s for key, at_s in self._full_at_s.items() if at_s > now}
        if (over := len(left) - self._max_keys // 2) > 0:
            left = dict(nlargest(len(left) - over, left.items(), key=itemgetter(1)))
            self._count_forgotten(over)
        self._full_at_s = left
        self._swept_from = min(self._max_keys, max(SWEPT_FROM, 2 * len(left)))


@dataclass(frozen=True, slots=True)
class WindowCount:
    """Uses counted in two neighbouring windows of fixed length, which estimate a sliding one.

    The estimate takes the uses of the last window as spread evenly. It is exact when the last window is empty; else it
    is off by at most what was used in the part of the last window that the sliding one still covers.
    """

    window_s: int

    def window(self, now_ms: int) -> int:
        """Return the number of the current window."""
        return now_ms // (self.window_s * 1000)

    def estimate(self, now_ms: int, current: int, previous: int) -> float:
        """Return how many uses the last `window_s` seconds held, the current one included."""
        elapsed = (now_ms % (self.window_s * 1000)) / (self.window_s * 1000)
        return current + previous * (1.0 - elapsed)

    def retry_after_ms(self, now_ms: int, current: int, previous: int, limit: int) -> int:
        """Return how long until one more use makes no more than `limit`, if none comes before."""
        length = self.window_s * 1000
        elapsed = now_ms % length
        if current < limit:
            return max(0, self._room_at_ms(previous, limit - current) - elapsed)
        return length - elapsed + self._room_at_ms(current, limit)

    def _room_at_ms(self, last: int, room: int) -> int:
        """Return how far into a window one more use fits into `room`, beside what still counts of the `last` one."""
        if last < room:
            return 0
        return -(-self.window_s * 1000 * (last - room + 1) // last) + 1
