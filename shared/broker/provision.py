"""Make the streams and buckets of `shared.contracts.streams` in NATS: `python -m shared.broker.provision`.

Safe to run at any time, by any number of jobs: what exists is changed where it differs and keeps its messages.

Environment: NATS_URL (with a user that may manage streams), NATS_REPLICAS (1, or 3 in a cluster of three).
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.broker.jetstream_admin import JetStreamAdmin, Outcome
from shared.contracts import subjects
from shared.contracts.streams import BUCKETS, MAX_MESSAGE_BYTES, STREAMS, BucketSpec, StreamSpec
from shared.errors import FanfareError, Unavailable

WAIT_S = 30.0
RETRY_S = 0.5

Report = Callable[[str, str], None]


class ProvisionSettings(BaseSettings):
    """What the job reads from its environment."""

    model_config = SettingsConfigDict(extra="ignore", env_ignore_empty=True)

    nats_url: str = "nats://127.0.0.1:4222"
    nats_replicas: int = Field(1, ge=1, le=5)


async def provision(
    nats_url: str, *, replicas: int = 1, wait_s: float = WAIT_S, report: Report = lambda _name, _outcome: None
) -> None:
    """Create or update every stream and bucket.

    Args:
        replicas: copies of every stream (ADR 14).
        wait_s: how long to wait for a server that has JetStream ready.
        report: told each stream's name and what was done.

    Raises:
        Unavailable: no server in time.
        FanfareError: a change is refused; the message names the stream.
    """
    until_s = time.monotonic() + wait_s
    admin = await JetStreamAdmin.connect(nats_url, timeout_s=wait_s)
    try:
        for config in configs(replicas):
            report(config["name"], await _ensure(admin, config, until_s))
    finally:
        await admin.close()


def configs(replicas: int = 1) -> list[dict[str, Any]]:
    """Return the JetStream configuration of every stream and bucket."""
    return [
        *(stream_config(spec, replicas) for spec in STREAMS),
        *(bucket_config(spec, replicas) for spec in BUCKETS),
    ]


def stream_config(spec: StreamSpec, replicas: int) -> dict[str, Any]:
    """Return the configuration of one stream."""
    config = _config(spec.name, spec.subjects, spec, replicas) | {
        "max_msgs_per_subject": spec.max_per_subject,
        "max_msg_size": spec.max_message_bytes,
        "duplicate_window": _ns(spec.dedupe_window_s),
    }
    if spec.republish:
        config["republish"] = {"src": ">", "dest": f"{subjects.LIVE}>"}
    if spec.republish_as is not None:
        config["republish"] = dict(zip(("src", "dest"), spec.republish_as, strict=True))
    if spec.counter:
        config["allow_msg_counter"] = True
    return config


def bucket_config(spec: BucketSpec, replicas: int) -> dict[str, Any]:
    """Return the configuration of the stream behind a bucket."""
    keys = subjects.bucket_keys(spec.name)
    return _config(subjects.bucket_stream(spec.name), (keys,), spec, replicas) | {
        "max_msgs_per_subject": 1,
        "max_msg_size": MAX_MESSAGE_BYTES,
        "discard": "old" if spec.forgets_oldest else "new",
        "duplicate_window": _ns(120),
        "allow_msg_ttl": True,
        "subject_delete_marker_ttl": _ns(spec.marker_ttl_s),
        "republish": {"src": keys, "dest": subjects.bucket_changes(spec.name)},
    }


def main() -> int:
    """Provision, and say what was done, one line for each stream."""
    settings = ProvisionSettings()
    try:
        asyncio.run(provision(settings.nats_url, replicas=settings.nats_replicas, report=_print))
    except FanfareError as error:
        sys.stderr.write(f"provision: {error}\n")
        return 1
    return 0


# -- private ----------------------------------------------------------------------------------------------------------


def _config(name: str, patterns: tuple[str, ...], spec: StreamSpec | BucketSpec, replicas: int) -> dict[str, Any]:
    return {
        "name": name,
        "subjects": list(patterns),
        "retention": "limits",
        "discard": "old",
        # A server on its own forgets that a memory stream ever was when it restarts; a cluster remembers.
        "storage": "memory" if spec.in_memory and replicas > 1 else "file",
        "num_replicas": replicas,
        "max_bytes": spec.max_bytes,
        "max_age": _ns(spec.max_age_s),
        "allow_direct": True,
        # Nobody may punch a hole into the chain of sequences that readers rely on; purging stays with the operator.
        "deny_delete": True,
    }


def _ns(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


async def _ensure(admin: JetStreamAdmin, config: dict[str, Any], until_s: float) -> Outcome:
    """Make one stream so; a cluster that has no leader yet is asked again."""
    while True:
        try:
            return await admin.ensure_stream(config)
        except Unavailable:
            if time.monotonic() > until_s:
                raise
        await asyncio.sleep(RETRY_S)


def _print(name: str, outcome: str) -> None:
    sys.stdout.write(f"{name} {outcome}\n")


if __name__ == "__main__":
    sys.exit(main())
