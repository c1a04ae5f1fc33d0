"""What a stream says of itself: that it has begun, what of its past is missing, that its client should go elsewhere."""

from __future__ import annotations

import random
from collections.abc import Sequence

from services.notifications.settings import NotificationsSettings
from shared.clock import now_ms
from shared.contracts import subjects
from shared.edge.delivery.event import Event, make_event
from shared.edge.delivery.gap import Gap


def connected(user_id: str, stream: str, cursor: str, topics: Sequence[str], settings: NotificationsSettings) -> Event:
    """Return the first event of a stream.

    Args:
        stream: its name, for the POSTs that concern it.
        cursor: where it begins: at its client's place, or now.
    """
    data = {
        "timestamp": now_ms(),
        "userId": user_id,
        "stream": stream,
        "cursor": cursor,
        "topics": topics,
        "heartbeatMs": int(settings.heartbeat_s * 1000),
    }
    event = make_event("connected", data).at(cursor)
    # Different for each, so that clients cut at once do not return at once.
    event.retry_ms = int(settings.retry_ms * (0.5 + random.random()))
    return event


def missing(gap: Gap) -> Event:
    """Return what a client is told about a gap; `topic` is None for the user's own notifications."""
    topic = subjects.topic_of(gap.subject)
    if gap.starts_over:
        return make_event("resync", {"topic": topic, "reason": gap.reason})
    return make_event("gap", {"topic": topic, "from": gap.start, "to": gap.end, "reason": gap.reason})


def reconnect(after_ms: int, cursor: str) -> Event:
    """Return what asks a client to open its stream elsewhere; without a cursor, it has its own."""
    return make_event("reconnect", {"afterMs": after_ms, "cursor": cursor or None})
