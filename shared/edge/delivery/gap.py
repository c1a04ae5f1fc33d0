"""A gap: what a replay says that cannot prove that nothing is missing; the client loads a snapshot instead."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class GapReason(StrEnum):
    """Why a replay was not complete."""

    EPOCH = "epoch_changed"
    UNKNOWN = "unknown_position"
    EXPIRED = "expired"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of `subject` after `start` may be missing; what follows `end` of `epoch` is delivered."""

    subject: str
    epoch: str
    start: int
    end: int
    reason: GapReason

    @property
    def starts_over(self) -> bool:
        """Whether the client's position means nothing any more: it must load everything anew (`resync`)."""
        return self.reason in (GapReason.EPOCH, GapReason.UNKNOWN)
