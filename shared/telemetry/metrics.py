"""Prometheus metrics of one process, in a registry that is made in main and never at import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

PREFIX = "fanfare_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Collector = TypeVar("Collector", bound=MetricWrapperBase)


class Metrics:
    """Makes metrics by name; asked twice for one name it gives the same object, so parts need not know each other."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: dict[str, MetricWrapperBase] = {}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Return the counter `fanfare_<name>`."""
        return self._get(name, lambda full: Counter(full, help_text, labels, registry=self.registry))

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Return the gauge `fanfare_<name>`."""
        return self._get(name, lambda full: Gauge(full, help_text, labels, registry=self.registry))

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """Return the histogram `fanfare_<name>`; name it with its unit, `…_seconds` or `…_bytes`."""
        return self._get(name, lambda full: Histogram(full, help_text, labels, registry=self.registry, buckets=buckets))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _get(self, name: str, make: Callable[[str], Collector]) -> Collector:
        if name not in self._known:
            self._known[name] = make(PREFIX + name)
        return self._known[name]  # type: ignore[return-value]  # one name is always asked for with one kind
