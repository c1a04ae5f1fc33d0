"""What wakes an operator up, and what they look at then, is something that the services count, and says what it is."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.programs import find_or_install, in_path

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
    assert named(alert["expr"]) or alert["expr"].startswith("up{")
    assert alert["labels"]["severity"] in {"page", "ticket"}
    assert alert["annotations"].keys() == {"summary", "description"}


def test_every_alert_fires_for_what_it_names_and_not_at_rest() -> None:
    """`increase` does not see what a process counts before its first scrape: seen in Prometheus' own words."""
    folder = ROOT / "infra" / "prometheus"
    promtool = find_or_install(in_path("promtool"), "prometheus")
    done = subprocess.run(
        [promtool, "test", "rules", "alerts_test.yaml"], cwd=folder, check=False, text=True, capture_output=True
    )
    fires = [
        sample["labels"]
        for test in yaml.safe_load((folder / "alerts_test.yaml").read_text())["tests"]
        for case in test["promql_expr_test"]
        for sample in case["exp_samples"]
    ]

    assert done.returncode == 0, done.stdout + done.stderr
    assert {alert["alert"] for alert in ALERTS} == {re.findall(r'alertname="(\w+)"', each)[0] for each in fires}


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda page: page.name)
def test_every_metric_that_the_docs_name_is_counted(page: Path) -> None:
    assert named(page.read_text()) <= exposed()


# -- the dashboard ----------------------------------------------------------------------------------------------------

DASHBOARD = json.loads((ROOT / "infra" / "grafana" / "dashboard.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: str(panel["title"]))
def test_a_panel_shows_what_is_counted_by_labels_that_it_asks_for_and_says_what_it_means(panel: dict[str, Any]) -> None:
    assert panel["description"]
    for target in panel["targets"]:
        expr, legend = target["expr"], target["legendFormat"]
        grouped = re.findall(r" by \(([^)]*)\)", expr)
        shown = {label.strip() for labels in grouped for label in labels.split(",")} if grouped else {"instance"}
        assert named(expr) <= exposed()
        assert named(expr) or "process_" in expr
        assert set(re.findall(r"{{(\w+)}}", legend)) <= shown - {"le"}


def test_every_alert_has_a_panel_to_look_at() -> None:
    shown = {
        name.removesuffix("_total") for panel in PANELS for each in panel["targets"] for name in named(each["expr"])
    }
    asked = {name.removesuffix("_total") for alert in ALERTS for name in named(alert["expr"])}

    assert asked <= shown


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    cells = [
        (x, y)
        for place in places
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]

    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(places)
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
