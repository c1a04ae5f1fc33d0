"""What the broker's adapter counts: everything that was dropped, refused, retried or lost."""

from __future__ import annotations

from enum import StrEnum

from prometheus_client import Counter

from shared.telemetry.metrics import Metrics


class BrokerEvent(StrEnum):
    """The values of the label `event` of `fanfare_broker_events_total`."""

    PUBLISH_DROPPED = "publish_dropped"
    HANDLER_FAILED = "handler_failed"
    REQUEST_REFUSED = "request_refused"
    RETRIED = "retried"
    DISCONNECTED = "disconnected"
    RECONNECTED = "reconnected"
    PERMISSION_REFUSED = "permission_refused"
    CLOSED = "closed"


class BrokerMetrics:
    """Counts what a process's link met, by the link's name; without `metrics` it counts nothing."""

    def __init__(self, metrics: Metrics | None = None, link: str = "main") -> None:
        self._link = link
        self._events: Counter | None = None
        if metrics is not None:
            self._events = metrics.counter("broker_events_total", "What the broker's links met.", ("link", "event"))
            for event in BrokerEvent:
                self._events.labels(link, event.value)  # 0 from the start: a query sees the first as an increase

    def count(self, event: BrokerEvent) -> None:
        """Count one event."""
        if self._events is not None:
            self._events.labels(self._link, event.value).inc()
