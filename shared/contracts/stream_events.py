"""What `/api/stream` tells browsers: the fields of each Server-Sent Event, by its type, which stands beside them.

For tools and for the tests, as `server_frames.py`.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import MISSING, Field, FiniteFloat

from shared.contracts.events import LogLevel, Milliseconds, Payload, Price, SystemStatus
from shared.contracts.ids import Id
from shared.contracts.server_frames import Count, Cursor, Dropped, LastError, TokenExpiring


class StreamConnected(Payload):
    """`connected`: the first event. `stream` names it in a POST; `cursor` is where it begins."""

    timestamp: Milliseconds
    user_id: Id
    stream: str
    cursor: Cursor
    topics: list[Id]
    heartbeat_ms: Milliseconds


class ShownNotification(Payload):
    """`notification`: what a producer published, completed; without `topic` it is for this user alone."""

    id: Id
    title: str
    body: str
    topic: Id | MISSING = MISSING
    created_at: Milliseconds
    data: dict[str, Any] | MISSING = MISSING


class ShownPrice(Payload):
    """`price_update`, and each symbol of `snapshot`: the newest price; `stale` if the feed is not heard."""

    symbol: Id
    price: Price
    previous: Price | MISSING = MISSING
    change: FiniteFloat | MISSING = MISSING
    change_percent: FiniteFloat | MISSING = MISSING
    timestamp: Milliseconds
    stale: Literal[True] | MISSING = MISSING


class Snapshot(Payload):
    """`snapshot`: the newest prices of symbols that this stream begins to follow."""

    symbols: list[ShownPrice]


class ShownStatus(SystemStatus):
    """`system_status`: how a running part is, for those who may read it."""

    metrics: dict[str, FiniteFloat | int | str]


class ShownLog(Payload):
    """`log`: a log record of a running part, for those who may read it and ask; told once, and never again.

    `truncated`: something of it was cut away. `dropped`: so many records of that part before it were not told.
    """

    component: Id
    instance: Id
    level: LogLevel
    event: str
    fields: dict[str, bool | int | FiniteFloat | str]
    timestamp: Milliseconds
    truncated: Literal[True] | MISSING = MISSING
    dropped: Count | MISSING = MISSING


class TopicGap(Payload):
    """`gap`: events of a topic (null: the user's own) between two places may be missing."""

    topic: Id | None
    first: Annotated[Count, Field(alias="from")]
    last: Annotated[Count, Field(alias="to")]
    reason: Literal["expired", "too_many"]


class TopicResync(Payload):
    """`resync`: the place that the client named means nothing (any more) for a topic (null: the user's own)."""

    topic: Id | None
    reason: Literal["epoch_changed", "unknown_position"]


class StreamReconnect(Payload):
    """`reconnect`: open the stream elsewhere after a time; without a cursor, with the one that the client has."""

    after_ms: Milliseconds
    cursor: Cursor | None


STREAM_EVENTS: Final[dict[str, type[Payload]]] = {
    "connected": StreamConnected,
    "notification": ShownNotification,
    "price_update": ShownPrice,
    "snapshot": Snapshot,
    "system_status": ShownStatus,
    "log": ShownLog,
    "gap": TopicGap,
    "resync": TopicResync,
    "reconnect": StreamReconnect,
    "dropped": Dropped,
    "token_expiring": TokenExpiring,
    "error": LastError,
}
