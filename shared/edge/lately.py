"""What was heard lately of keys: it is newer than what is read of them at the same time.

A read is answered by any replica, which may be behind; and its answer comes in one burst with live changes, which are
heard before whoever waits for the answer goes on. So what was heard since LATELY_S before a read stands, not what it
found. And while a read waits for a link that broke, the broker may come back empty: what it does not find then says
nothing.
"""

from __future__ import annotations

from shared.clock import Clock

LATELY_S = 1.0
LONGEST_READ_S = 15.0
"""The broker's port gives a read up before."""


class Lately:
    """Which keys' changes were heard, and when. A key is the tokens of its name.

    Attributes:
        breaks: how often the link has broken.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._heard_at_s: dict[tuple[str, ...], float] = {}
        self.breaks = 0

    def note(self, *key: str) -> None:
        """Note that a change of `key` has been heard."""
        self._heard_at_s[key] = self._clock()

    def note_break(self) -> None:
        """Note that the link broke."""
        self.breaks += 1

    def begin_read(self) -> Reading:
        """Return what is to be asked, when a read that begins now has its answer, of each key."""
        return Reading(self, self._clock() - LATELY_S)

    def heard_since(self, since_s: float, key: tuple[str, ...]) -> bool:
        """Say whether a change of `key` was heard after `since_s`."""
        return self._heard_at_s.get(key, since_s) > since_s

    def forget_old(self) -> None:
        """Forget what was heard before any read began that is still under way. Call it now and then."""
        since_s = self._clock() - LATELY_S - LONGEST_READ_S
        self._heard_at_s = {key: at_s for key, at_s in self._heard_at_s.items() if at_s > since_s}


class Reading:
    """A read that is under way."""

    def __init__(self, lately: Lately, since_s: float) -> None:
        self._lately, self._since_s, self._breaks = lately, since_s, lately.breaks

    def is_outdated(self, *key: str, found: bool) -> bool:
        """Say whether what is known of `key` stands, and not what was read: that it was `found`, or was not."""
        interrupted = self._lately.breaks != self._breaks
        return self._lately.heard_since(self._since_s, key) or (interrupted and not found)
