"""What was heard lately of keys: it is newer than what is read of them at the same time.

A read is answered by any replica, which may be behind; and its answer comes in one burst with live changes, which are
heard before whoever waits for the answer goes on. So what was heard since LATELY_S before a read stands, not what it
found.
"""

from __future__ import annotations

from collections.abc import Callable

from shared.clock import Clock

LATELY_S = 1.0


class Lately:
    """Which keys' changes were heard, and when. A key is the tokens of its name."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard_at_s: dict[tuple[str, ...], float] = {}

    def note(self, *key: str) -> None:
        """Note that a change of `key` has been heard."""
        self._heard_at_s[key] = self._clock()

    def known_from_now(self) -> Callable[..., bool]:
        """Return what says of a key, after a read that begins now, that what was heard of it is newer."""
        since_s = self._clock() - LATELY_S
        return lambda *key: self._heard_at_s.get(key, since_s) > since_s

    def forget_older_than(self, age_s: float) -> None:
        """Forget what was heard longer ago; longer than any read takes."""
        since_s = self._clock() - age_s
        self._heard_at_s = {key: at_s for key, at_s in self._heard_at_s.items() if at_s > since_s}
