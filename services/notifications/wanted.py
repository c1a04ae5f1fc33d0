"""What a client asks for when it opens its stream, as far as it may have it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from services.notifications.prices import symbols_of
from shared.auth.principal import Principal
from shared.contracts.cursor import Position
from shared.contracts.events import LogLevel
from shared.contracts.ids import require_id
from shared.errors import BadInput


class Wanted(NamedTuple):
    """What a client asked for when it opened its stream.

    Attributes:
        place: where it was; None for now. `readable` is False if it sent something that is no cursor.
        rate_hz: at most so many price flushes a second.
        logs: the lowest level of log records to be told; None for none.
    """

    topics: tuple[str, ...]
    symbols: frozenset[str]
    rate_hz: float
    named: bool
    place: Position | None
    readable: bool
    logs: LogLevel | None = None


LONGEST_IN_LIST = 64 + 1
"""Characters of one id in a list, with its comma."""


def check_topics(principal: Principal, topics: Sequence[str], limit: int) -> tuple[str, ...]:
    """Return the topics, each named alone or with others between commas, if `principal` may follow them all.

    Raises:
        BadInput: there are too many; also BadId.
        Forbidden: one needs a scope that is missing.
    """
    if sum(map(len, topics)) > limit * LONGEST_IN_LIST:
        raise BadInput(f"a stream follows at most {limit} topics")
    named = _names(tuple(topics), limit)
    for topic in named:
        if not principal.may_follow(topic):
            principal.require(f"topic:{topic}")
    return named


def parse_cursor(text: str | None) -> tuple[Position | None, bool]:
    """Return a client's place, and whether it was readable; it comes from outside, so it may be anything."""
    if not text:
        return None, True
    try:
        return Position.parse(text), True
    except BadInput:
        return None, False


@lru_cache(maxsize=1024)
def _names(texts: tuple[str, ...], limit: int) -> tuple[str, ...]:
    """Return the names in values such as `a,b`, in order and once each; one object for all who follow the same.

    What is refused is not kept: else anybody could fill this process with what they may not follow.

    Raises:
        BadInput: there are too many; also BadId.
    """
    named = symbols_of(texts)
    if len(named) > limit:
        raise BadInput(f"a stream follows at most {limit} topics")
    return tuple(require_id(name, "topic") for name in named)
