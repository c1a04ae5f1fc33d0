"""What is stored, for how long, and what a full store does. `broker.provision` makes it so.

Every stream that edges follow republishes to `live.<subject>`; every reader reads it by direct get, so that
no edge, room or client costs the server a consumer (ADR 0003).
"""

from __future__ import annotations

from dataclasses import dataclass

from shared.contracts import subjects

DAY_S = 86_400
MAX_MESSAGE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """One stream. Ages in seconds, sizes in bytes; 0 means no limit.

    Attributes:
        republish: what is stored is repeated on `live.<subject>`; `republish_as` names another source and destination.
    """

    name: str
    subjects: tuple[str, ...]
    max_age_s: int
    max_per_subject: int
    max_bytes: int
    max_message_bytes: int = MAX_MESSAGE_BYTES
    in_memory: bool = False
    republish: bool = False
    republish_as: tuple[str, str] | None = None
    dedupe_window_s: float = 300
    counter: bool = False


@dataclass(frozen=True, slots=True)
class BucketSpec:
    """One bucket of keys: the last value of each, with republished changes.

    A full one refuses what is new, as buckets of NATS do: rooms that were forgotten would be open to all.

    Attributes:
        forgets_oldest: a full one drops the key that was written longest ago instead.
        marker_ttl_s: how long the note that a key has gone is kept and can be read by a latecomer.
    """

    name: str
    max_bytes: int
    max_age_s: int = 0
    in_memory: bool = False
    forgets_oldest: bool = False
    marker_ttl_s: int = 60


STREAMS: tuple[StreamSpec, ...] = (
    StreamSpec(
        subjects.CHAT,
        ("chat.room.*.msg",),
        max_age_s=30 * DAY_S,
        max_per_subject=10_000,
        max_bytes=1 << 30,
        republish=True,
    ),
    StreamSpec(
        subjects.NOTIFY,
        ("notify.user.*", "notify.topic.*"),
        max_age_s=7 * DAY_S,
        max_per_subject=1_000,
        max_bytes=256 << 20,
        republish=True,
    ),
    StreamSpec(
        subjects.PRICES,
        ("prices.*",),
        max_age_s=DAY_S,
        max_per_subject=1,
        max_bytes=16 << 20,
        in_memory=True,
        dedupe_window_s=0.1,
    ),
    StreamSpec(
        subjects.STATUS,
        ("status.*.*",),
        max_age_s=60,
        max_per_subject=1,
        max_bytes=4 << 20,
        in_memory=True,
        dedupe_window_s=0.1,
    ),
    StreamSpec(
        subjects.REVOKED,
        ("auth.revoked.*",),
        max_age_s=DAY_S,
        max_per_subject=100,
        max_bytes=16 << 20,
        republish=True,
    ),
    StreamSpec(
        subjects.DEADLETTER,
        ("deadletter.>",),
        max_age_s=7 * DAY_S,
        max_per_subject=100,
        max_bytes=32 << 20,
    ),
    StreamSpec(
        subjects.COUNTERS,
        ("count.*.*.*",),
        max_age_s=300,
        max_per_subject=1,
        max_bytes=64 << 20,
        in_memory=True,
        counter=True,
    ),
    StreamSpec(
        subjects.LEFT,
        ("presence.gone.*.*",),
        max_age_s=DAY_S,
        max_per_subject=10,
        max_bytes=64 << 20,
        republish_as=(subjects.ALL_PRESENCE_GONE, subjects.ALL_PRESENCE_LEFT),
        dedupe_window_s=2,  # its ids are room and user: what is said of them within this is one departure
    ),
    StreamSpec(
        subjects.CANARY,
        ("edge.canary.*", "notify.canary.*"),
        max_age_s=60,
        max_per_subject=1,
        max_bytes=1 << 20,
        in_memory=True,
        republish=True,
        dedupe_window_s=0.1,
    ),
)

BUCKETS: tuple[BucketSpec, ...] = (
    BucketSpec(subjects.LEASES, max_bytes=1 << 20, in_memory=True),
    BucketSpec(subjects.MARKERS, max_bytes=128 << 20, forgets_oldest=True),  # whoever has marked nothing for longest
    BucketSpec(subjects.OWNERS, max_bytes=32 << 20),
    BucketSpec(subjects.PRESENCE, max_bytes=64 << 20, in_memory=True),
    BucketSpec(subjects.ROOMS, max_bytes=64 << 20),
    BucketSpec(subjects.TICKETS, max_bytes=16 << 20, max_age_s=120, in_memory=True),
    BucketSpec(subjects.WATCHLISTS, max_bytes=64 << 20),
)
