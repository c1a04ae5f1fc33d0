"""Rate limits. Pure: clocks are injected, and what is shared between edges is counted elsewhere."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from shared.clock import Clock, monotonic_s
from shared.errors import RateLimited


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
    """A bucket for each key, of the last `max_keys` that were used; one that was forgotten begins full again."""

    def __init__(self, rate_per_s: float, burst: float, *, max_keys: int = 10_000, clock: Clock = monotonic_s) -> None:
        self._rate_per_s, self._burst, self._max_keys, self._clock = rate_per_s, burst, max_keys, clock
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def require(self, key: str, what: str) -> None:
        """Take one token of `key`; errors as `TokenBucket.require`."""
        bucket = self._buckets.get(key)
        if bucket is None:
            bucket = TokenBucket(rate_per_s=self._rate_per_s, burst=self._burst, clock=self._clock)
            self._buckets[key] = bucket
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(key)
        bucket.require(what)


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
