"""The one place that builds subjects; every token passes the id grammar (ADR 0004).

A stream that republishes puts `live.` before the subject of what it stored. Edges listen there,
and only the NATS server itself may publish there.
"""

from __future__ import annotations

from functools import lru_cache

from shared.contracts.ids import is_id, require_id

LIVE = "live."
KEYS = "$KV."
LIVE_KEYS = LIVE + "kv."

# Streams: what lasts, and for how long, stands in `streams.py`.
CHAT = "CHAT"
NOTIFY = "NOTIFY"
PRICES = "PRICES"
STATUS = "STATUS"
REVOKED = "REVOKED"
DEADLETTER = "DEADLETTER"
COUNTERS = "COUNTERS"
CANARY = "CANARY"
LEFT = "LEFT"

# Buckets of keys.
LEASES = "leases"
OWNERS = "owners"
MARKERS = "markers"
PRESENCE = "presence"
ROOMS = "rooms"
TICKETS = "tickets"
WATCHLISTS = "watchlists"

# Patterns that a service subscribes to as a whole.
ALL_NOTIFY = "notify.*.*"
NOTIFY_CANARIES = "notify.canary."
ALL_PRICES = "prices.*"
ALL_STATUS = "status.*.*"
ALL_LOGS = "logs.*.*"
FEED_STATUS = "status.price_feed.*"
ALL_REVOKED = "live.auth.revoked.*"
STORED_REVOKED = "auth.revoked.*"
ALL_TYPING = "eph.chat.room.*.typing"
ALL_READ = "eph.chat.user.*.read"
ALL_PRESENCE_GONE = "presence.gone.>"
ALL_PRESENCE_LEFT = "presence.left.>"


def live(subject: str) -> str:
    """Return where the stored messages of `subject` are republished."""
    return LIVE + subject


def stored(live_subject: str) -> str:
    """Return the stored subject that `live_subject` repeats."""
    return live_subject.removeprefix(LIVE)


@lru_cache(maxsize=4096)  # asked for three times for each message
def chat_message(room: str) -> str:
    """Stored messages of one room (stream CHAT)."""
    return f"chat.room.{require_id(room, 'room')}.msg"


def typing(room: str) -> str:
    """Typing notices of one room; at most once, never stored."""
    return f"eph.chat.room.{require_id(room, 'room')}.typing"


def relay(room: str) -> str:
    """What is relayed in one room; at most once, never stored."""
    return f"eph.chat.room.{require_id(room, 'room')}.relay"


def read(user: str) -> str:
    """Where an edge tells the others how far one user has read a room; at most once, never stored."""
    return f"eph.chat.user.{require_id(user, 'user')}.read"


def presence_gone(room: str, user: str) -> str:
    """Where an edge says that a user has left a room (stream LEFT); what is said twice is stored once.

    What is stored the server repeats, for backends, under `ALL_PRESENCE_LEFT`.
    """
    return f"presence.gone.{require_id(room, 'room')}.{require_id(user, 'user')}"


def rosters_of(edge: str) -> str:
    """Pattern of all rosters that one edge keeps."""
    return f"{KEYS}{PRESENCE}.*.{require_id(edge, 'edge')}"


def notify_user(user: str) -> str:
    """Notifications of one user (stream NOTIFY)."""
    return f"notify.user.{require_id(user, 'user')}"


def notify_topic(topic: str) -> str:
    """Notifications of one topic (stream NOTIFY)."""
    return f"notify.topic.{require_id(topic, 'topic')}"


def topic_of(subject: str) -> str | None:
    """Return the topic whose notifications `subject` carries; None if they are a user's."""
    kind, name = tokens_after(subject, 1)
    return name if kind == "topic" else None


def price(symbol: str) -> str:
    """Ticks of one symbol (stream PRICES keeps the last)."""
    return f"prices.{require_id(symbol, 'symbol')}"


def status(component: str, instance: str) -> str:
    """Status of one running part (stream STATUS keeps the last)."""
    return f"status.{require_id(component, 'component')}.{require_id(instance, 'instance')}"


def log(component: str, instance: str) -> str:
    """Log records of one running part; at most once, never stored."""
    return f"logs.{require_id(component, 'component')}.{require_id(instance, 'instance')}"


def revoked(user: str) -> str:
    """Revocations of one user's sessions (stream REVOKED)."""
    return f"auth.revoked.{require_id(user, 'user')}"


def deadletter(subject: str) -> str:
    """Where a payload goes that was published to `subject` and does not validate.

    The server lets producers publish to `prices.*` and the like; what is no id in a subject becomes `_` here.
    """
    return f"deadletter.{'.'.join(token if is_id(token) else '_' for token in subject.split('.'))}"


def session_command(edge: str, session: str) -> str:
    """Commands to one live session; its edge answers."""
    return f"edge.session.{require_id(edge, 'edge')}.{require_id(session, 'session')}.cmd"


def session_commands(edge: str) -> str:
    """Pattern of all commands to the sessions of one edge."""
    return f"edge.session.{require_id(edge, 'edge')}.*.cmd"


def canary(edge: str) -> str:
    """What one edge says to itself, through the broker (stream CANARY)."""
    return f"edge.canary.{require_id(edge, 'edge')}"


def notify_canary(edge: str) -> str:
    """The same (stream CANARY too) where an edge has one subscription to all notifications: it comes by that."""
    return f"{NOTIFY_CANARIES}{require_id(edge, 'edge')}"


def leader_elected(stream: str) -> str:
    """Where the server says that `stream` has a new leader (NATS: JetStream advisories)."""
    return f"$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED.{require_id(stream, 'stream')}"


def counter(kind: str, owner: str, window: int) -> str:
    """A counter shared by all edges, one for each window of time (stream COUNTERS)."""
    return f"count.{require_id(kind, 'kind')}.{require_id(owner, 'owner')}.{window:d}"


def bucket_stream(bucket: str) -> str:
    """Return the name of the stream behind a bucket of keys."""
    return f"KV_{require_id(bucket, 'bucket')}"


def bucket_key(bucket: str, *tokens: str) -> str:
    """Subject of one key; `tokens` are joined by dots, each an id."""
    joined = ".".join(require_id(token, "key") for token in tokens)
    return f"{KEYS}{require_id(bucket, 'bucket')}.{joined}"


def bucket_keys(bucket: str, *tokens: str) -> str:
    """Pattern of all keys below `tokens` of a bucket, as `read_last` takes it."""
    joined = "".join(require_id(token, "key") + "." for token in tokens)
    return f"{KEYS}{require_id(bucket, 'bucket')}.{joined}>"


def bucket_changes(bucket: str, *tokens: str) -> str:
    """Pattern of the republished changes below `tokens` of a bucket."""
    joined = "".join(require_id(token, "key") + "." for token in tokens)
    return f"{LIVE_KEYS}{require_id(bucket, 'bucket')}.{joined}>"


def tokens_after(subject: str, count: int) -> list[str]:
    """Return the tokens of `subject` after its first `count`."""
    return subject.split(".")[count:]
