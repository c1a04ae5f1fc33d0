"""Dead letters: what a producer published that does not validate, kept with the reason, and shown to no client."""

from __future__ import annotations

import hashlib

from shared.broker.port import Broker
from shared.contracts import subjects
from shared.errors import FanfareError
from shared.limits import TokenBucket
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

MAX_PER_S = 20
REASON_HEADER = "Fanfare-Reason"
MAX_REASON_CHARS = 256


class DeadLetters:
    """Keeps dead letters, at most MAX_PER_S a second: a broken producer must not fill the store; all are counted."""

    def __init__(self, broker: Broker, metrics: Metrics) -> None:
        self._broker = broker
        self._tasks = TaskKeeper()
        self._bucket = TokenBucket(rate_per_s=MAX_PER_S, burst=MAX_PER_S)
        self._log = get_logger()
        self._counted = metrics.counter("dead_letters", "Payloads that did not validate", ["kind", "kept"])

    def send(self, subject: str, data: bytes, reason: str, *, key: str = "") -> None:
        """Keep a payload; every edge that met it sends it, and `key` (or its hash) makes it one."""
        kept = self._bucket.take()
        self._counted.labels(subject.partition(".")[0], "yes" if kept else "no").inc()
        if kept:
            msg_id = f"dead-{key or hashlib.sha256(subject.encode() + data).hexdigest()[:32]}"
            self._tasks.spawn(self._append(subject, data, reason[:MAX_REASON_CHARS], msg_id), "dead-letter")

    async def close(self) -> None:
        """Give up what is still on its way."""
        await self._tasks.close()

    async def _append(self, subject: str, data: bytes, reason: str, msg_id: str) -> None:
        one_line = reason.replace("\r", " ").replace("\n", " ").encode("ascii", "replace").decode()
        try:
            await self._broker.append(
                subjects.deadletter(subject), data, msg_id=msg_id, headers={REASON_HEADER: one_line}
            )
        except FanfareError as error:
            self._log.warning("dead_letter_lost", subject=subject, reason=str(error))
