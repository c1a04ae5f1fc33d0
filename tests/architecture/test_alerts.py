"""What wakes an operator up is something that the services count, and the alert says what to do."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ALERTS: list[dict[str, Any]] = [
    rule
    for group in yaml.safe_load((ROOT / "infra" / "prometheus" / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SUFFIXES = {
    "counter": ["_total"],
    "tally": ["_total"],
    "gauge": [""],
    "histogram": ["", "_bucket", "_sum", "_count"],
}


@cache
def exposed() -> set[str]:
    """Return the names of all metrics, as a scrape has them."""
    made = re.compile(r"\.(counter|tally|gauge|histogram)\(\s*\"([a-z_]+)\"")
    sources = [path.read_text() for folder in ("shared", "services") for path in (ROOT / folder).rglob("*.py")]
    return {
        f"fanfare_{name.removesuffix('_total')}{suffix}"
        for source in sources
        for kind, name in made.findall(source)
        for suffix in SUFFIXES[kind]
    }


def named(text: str) -> set[str]:
    return set(re.findall(r"fanfare_[a-z_]+", text))


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: str(alert["alert"]))
def test_an_alert_asks_for_what_is_counted_and_says_what_it_means(alert: dict[str, Any]) -> None:
    assert named(alert["expr"]) <= exposed()
    assert named(alert["expr"])
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"].keys() == {"summary", "description"}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_metric_that_the_docs_name_is_counted(page: Path) -> None:
    assert named(page.read_text()) <= exposed()
