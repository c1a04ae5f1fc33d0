"""Prometheus metrics of one process, in a registry that is made in main and never at import."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

PREFIX = "fanfare_"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LATENCY_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

Kind = TypeVar("Kind", bound=Collector)


class Tally(Collector):
    """A counter with one label, for what is counted with each message and on one thread.

    It takes no lock and looks up no child: a fifth of a Counter's time, and two of those were 2 % of a chat message.
    """

    def __init__(self, name: str, help_text: str, label: str, registry: CollectorRegistry) -> None:
        self._name, self._help, self._label = name, help_text, label
        self._counts: defaultdict[str, int] = defaultdict(int)
        registry.register(self)

    def add(self, value: str, amount: int = 1) -> None:
        """Count `amount` more of those whose label is `value`."""
        self._counts[value] += amount

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield what has been counted."""
        family = CounterMetricFamily(self._name, self._help, labels=[self._label])
        for value, count in self._counts.items():
            family.add_metric([value], count)
        yield family


class Metrics:
    """Makes metrics by name; asked twice for one name it gives the same object, so parts need not know each other."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._known: dict[str, Collector] = {}
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def counter(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Counter:
        """Return the counter `fanfare_<name>`."""
        return self._get(Counter, name, lambda full: Counter(full, help_text, labels, registry=self.registry))

    def tally(self, name: str, help_text: str, label: str) -> Tally:
        """Return the counter `fanfare_<name>` with one label, for what is counted with each message."""
        return self._get(Tally, name, lambda full: Tally(full, help_text, label, self.registry))

    def gauge(self, name: str, help_text: str, labels: Sequence[str] = ()) -> Gauge:
        """Return the gauge `fanfare_<name>`."""
        return self._get(Gauge, name, lambda full: Gauge(full, help_text, labels, registry=self.registry))

    def histogram(
        self, name: str, help_text: str, labels: Sequence[str] = (), buckets: Sequence[float] = LATENCY_BUCKETS_S
    ) -> Histogram:
        """Return the histogram `fanfare_<name>`; name it with its unit, `…_seconds` or `…_bytes`."""
        return self._get(
            Histogram, name, lambda full: Histogram(full, help_text, labels, registry=self.registry, buckets=buckets)
        )

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _get(self, kind: type[Kind], name: str, make: Callable[[str], Kind]) -> Kind:
        if name not in self._known:
            self._known[name] = make(PREFIX + name)
        known = self._known[name]
        if not isinstance(known, kind):
            raise TypeError(f"the metric {name} is a {type(known).__name__}, and asked for as a {kind.__name__}")
        return known
