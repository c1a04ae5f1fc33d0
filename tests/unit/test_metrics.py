"""A tally reads as a counter does, and one name is one metric."""

from __future__ import annotations

import pytest

from shared.broker.metrics import BrokerEvent, BrokerMetrics
from shared.edge.sessions import SessionLimits, Sessions
from shared.telemetry.metrics import Metrics


def test_a_tally_is_scraped_as_a_counter_with_its_label() -> None:
    metrics = Metrics()
    tally, counter = metrics.tally("told", "Told", "kind"), metrics.counter("counted", "Counted", ["kind"])
    for kind, amount in (("a", 2), ("b", 1), ("a", 3)):
        tally.add(kind, amount)
        counter.labels(kind).inc(amount)

    lines = metrics.render().decode().splitlines()
    told = [line for line in lines if "told" in line]
    counted = [line.replace("counted", "told").replace("Counted", "Told") for line in lines if "counted_total" in line]
    assert told == counted
    assert 'fanfare_told_total{kind="a"} 5.0' in told


def test_a_name_that_is_asked_for_twice_is_one_tally() -> None:
    metrics = Metrics()
    metrics.tally("told", "Told", "kind").add("a")
    metrics.tally("told", "Told", "kind").add("a")

    assert metrics.registry.get_sample_value("fanfare_told_total", {"kind": "a"}) == 2


def test_one_name_is_one_kind_of_metric():
    metrics = Metrics()
    metrics.tally("things", "Things", "kind")

    with pytest.raises(TypeError, match="things is a Tally"):
        metrics.counter("things", "Things", ["kind"])


def test_what_alerts_ask_an_increase_of_is_0_before_the_first() -> None:
    metrics = Metrics()
    BrokerMetrics(metrics, "prices")
    Sessions(SessionLimits(per_user=1, per_process=1), metrics, "sse")

    asked = [("broker_events", {"link": "prices", "event": event.value}) for event in BrokerEvent]
    asked.append(("sessions_refused", {"transport": "sse", "cap": "process"}))
    assert [metrics.registry.get_sample_value(f"fanfare_{name}_total", labels) for name, labels in asked] == [0] * 9
