"""Log records of all running parts, live, for those who may read them and ask; followed while one does (ADR 23)."""

from __future__ import annotations

import asyncio
from typing import NoReturn, get_args

from pydantic import ValidationError

from shared.broker.port import Broker, Message, Subscription
from shared.clock import Clock, monotonic_s
from shared.contracts import subjects
from shared.contracts.events import MAX_LOG_BYTES, LogLevel, LogRecord
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event, Overflow, make_event
from shared.edge.delivery.listener import Listener
from shared.errors import Unavailable
from shared.limits import TokenBucket
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

MAX_PER_S = 200
"""From all parts together: what a person can follow many times over, and what costs an edge a hundredth of a core."""

RETRY_S = 1.0
TYPE = "log"
_LEVELS: tuple[LogLevel, ...] = get_args(LogLevel)


class LogBoard:
    """Follows `logs.*.*` as long as it has listeners; each gets the records at or above its level.

    Policy above MAX_PER_S: the newest are dropped unread, counted, and told as an event `dropped` before the next.
    """

    def __init__(
        self, broker: Broker, deadletters: DeadLetters, metrics: Metrics, *, clock: Clock = monotonic_s
    ) -> None:
        self._broker, self._deadletters, self._log = broker, deadletters, get_logger()
        self._wanted: dict[Listener, int] = {}
        self._stirred = asyncio.Event()
        self._subscription: Subscription | None = None
        self._bucket = TokenBucket(rate_per_s=MAX_PER_S, burst=MAX_PER_S, clock=clock)
        self._dropped = metrics.counter("logs_dropped", "Log records that no stream was told: too many at once")
        self._untold = 0

    def add(self, listener: Listener, level: LogLevel) -> None:
        """Tell `listener` of records at or above `level`, as soon as the broker knows that they are wanted."""
        self._wanted[listener] = _LEVELS.index(level)
        self._stirred.set()

    def remove(self, listener: Listener) -> None:
        """Tell it no more; harmless for one that is not told."""
        if self._wanted.pop(listener, None) is not None:
            self._stirred.set()

    async def run(self) -> NoReturn:
        """Listen on the bus while somebody wants it, until cancelled."""
        while True:
            self._stirred.clear()
            if self._wanted and self._subscription is None:
                self._subscription = await self._subscribe()
            elif not self._wanted and self._subscription is not None:
                await self._subscription.close()
                self._subscription, self._untold = None, 0  # of those, nobody is left to be told
            await self._stirred.wait()

    # -- private ------------------------------------------------------------------------------------------------------

    async def _subscribe(self) -> Subscription:
        while True:
            try:
                return await self._broker.subscribe(subjects.ALL_LOGS, self._receive)
            except Unavailable as error:
                self._log.warning("logs_not_followed", reason=str(error))
                await asyncio.sleep(RETRY_S)

    def _receive(self, message: Message) -> None:
        if not self._bucket.take():
            self._dropped.inc()
            self._untold += 1
            return
        record = self._read(message)
        if record is None:
            return
        if self._untold:
            self._tell(make_event("dropped", {"kind": TYPE, "count": self._untold}), len(_LEVELS))
            self._untold = 0
        self._tell(Event(TYPE, record.to_json(), overflow=Overflow.DROP), _LEVELS.index(record.level))

    def _read(self, message: Message) -> LogRecord | None:
        if len(message.data) > MAX_LOG_BYTES:
            self._deadletters.send(message.subject, message.data, f"not a log record: over {MAX_LOG_BYTES} bytes")
            return None
        try:
            record = LogRecord.model_validate_json(message.data)
        except ValidationError as error:
            self._deadletters.send(message.subject, message.data, f"not a log record: {error.errors()[0]['msg']}")
            return None
        if [record.component, record.instance] != subjects.tokens_after(message.subject, 1):
            self._deadletters.send(message.subject, message.data, "not a log record: the names are not the subject's")
            return None
        return record

    def _tell(self, event: Event, level: int) -> None:
        for listener, wanted in self._wanted.items():
            if level >= wanted:
                listener.deliver(event)
