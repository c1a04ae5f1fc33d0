"""What was heard lately of keys: it is newer than what is read of them at the same time.

A read is answered by any replica, which may be behind; and its answer comes in one burst with live changes, which are
heard before whoever waits for the answer goes on. So what was heard since LATELY_S before a read stands, not what it
found.
"""

from __future__ import annotations

from collections.abc import Callable

from shared.clock import Clock

LATELY_S = 1.0
LONGEST_READ_S = 15.0
"""The broker's port gives a read up before."""


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

    def forget_old(self) -> None:
        """Forget what was heard before any read began that is still under way. Call it now and then."""
        since_s = self._clock() - LATELY_S - LONGEST_READ_S
        self._heard_at_s = {key: at_s for key, at_s in self._heard_at_s.items() if at_s > since_s}
