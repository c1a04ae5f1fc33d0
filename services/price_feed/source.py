"""The port to where prices come from, and the rule for stalls that all sources share."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.contracts.events import PriceTick

MAX_STEP_MS = 500
"""The longest time between two pulls that is made up for; what is longer is a stall."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is due now.

    Attributes:
        ticks: in the order in which they are to be published.
        skipped: ticks that a stall made too old to be worth sending.
    """

    ticks: list[PriceTick]
    skipped: int = 0


class PriceSource(Protocol):
    """A source is pulled: it has no task and no clock of its own, so the writer alone decides when it moves."""

    @property
    def symbols(self) -> Sequence[str]:
        """All symbols it may give a price for."""

    @property
    def position(self) -> str:
        """Where it stands, in words of its own (printable ASCII); stored with each tick and handed to `resume`."""

    def resume(self, last: Mapping[str, float], position: str) -> None:
        """Go on from the last published prices, and from the position stored with the newest of them.

        Args:
            last: what is known; empty if nothing was ever published.
            position: as an earlier writer left it; empty, or of another source, means from the start.
        """

    def next_batch(self, now_ms: int) -> Batch:
        """Return what has become due since the last call; the first call after `resume` starts the time."""


class Pulse:
    """Measures the time between pulls, and bounds what a pull has to make up for.

    After a stall it gives one step and tells the rest: old ticks are worse than none, so nobody bursts what was missed.
    """

    def __init__(self) -> None:
        self._last_ms: int | None = None

    def restart(self) -> None:
        """Let the next pull start the time."""
        self._last_ms = None

    def step(self, now_ms: int) -> tuple[int, int]:
        """Return the milliseconds to make up for, and those lost to a stall. A clock set back counts as none."""
        passed_ms = max(0, now_ms - self._last_ms) if self._last_ms is not None else 0
        self._last_ms = now_ms
        step_ms = min(passed_ms, MAX_STEP_MS)
        return step_ms, passed_ms - step_ms


def count_at(position: str, source: str) -> int:
    """Return the count of a position `<source>:<count>`; 0 if it is of another source, or anything else."""
    name, _, count = position.rpartition(":")
    return int(count) if name == source and re.fullmatch("[0-9]{1,15}", count) else 0
