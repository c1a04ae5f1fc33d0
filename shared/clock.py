"""The two clocks: wall time for what people and other machines read, monotonic time for everything that waits."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], float]
"""A monotonic clock in seconds; injected so that tests can turn it."""

monotonic_s: Clock = time.monotonic


def now_ms() -> int:
    """Return the wall time in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def now_s() -> int:
    """Return the wall time in whole seconds since the epoch, as tokens have it (RFC 7519)."""
    return time.time_ns() // 1_000_000_000
