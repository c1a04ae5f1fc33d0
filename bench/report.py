"""What a run found: rows of figures, the ratios that must hold, and how both are shown and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from bench.chart import bars
from bench.machine import describe

Figures = dict[str, float]


@dataclass(frozen=True)
class Row:
    """The figures of one server in one scenario.

    Attributes:
        figures: by name, each with its unit in the name.
        note: what a reader must know to read them rightly.
    """

    scenario: str
    server: str
    version: str
    figures: Figures
    note: str = ""


@dataclass(frozen=True)
class Check:
    """A figure and the bound that it must keep."""

    what: str
    value: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the bound is kept."""
        return self.value <= self.bound

    def __str__(self) -> str:
        return f"{'holds ' if self.holds else 'BROKEN'}  {self.what}: {self.value:.2f} (at most {self.bound:g})"


@dataclass
class Report:
    """Everything of one run.

    Attributes:
        command: how it was started.
        void: scenarios that cannot be counted, and why.
    """

    command: str
    machine: dict[str, Any] = field(default_factory=describe)
    rows: list[Row] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    void: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        """Whether all was delivered and every bound kept."""
        return not self.void and all(check.holds for check in self.checks)

    def add(self, other: Report) -> None:
        """Take over what another run found."""
        self.rows += other.rows
        self.checks += other.checks
        self.void += other.void

    def judge_by_medians(self) -> None:
        """Make one check of all that have the same name: where a run was repeated, the median must keep the bound."""
        values: dict[tuple[str, float], list[float]] = {}
        for check in self.checks:
            values.setdefault((check.what, check.bound), []).append(check.value)
        self.checks = [
            Check(f"{what}, median of {', '.join(f'{value:.2f}' for value in sorted(found))}", median(found), bound)
            for (what, bound), found in values.items()
        ]

    def show(self) -> None:
        """Print the tables, the checks and what is void."""
        print(f"\n{self.command}\n{', '.join(f'{name} {value}' for name, value in self.machine.items())}")
        for scenario in self.scenarios():
            print(f"\n## {scenario}\n{table(self.of(scenario))}")
        for line in [*map(str, self.checks), *(f"VOID    {reason}" for reason in self.void)]:
            print(line)

    def save(self, file: Path) -> None:
        """Write everything as JSON, and one chart for each scenario beside it."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self) | {"good": self.good}, indent=2) + "\n")
        for scenario in self.scenarios():
            rows = self.of(scenario)
            figure = next(iter(rows[0].figures))
            chart = bars(f"{scenario}: {figure}", [(row.server, row.figures[figure]) for row in rows], self.command)
            file.with_name(f"{file.stem}-{scenario}.svg").write_text(chart)

    def scenarios(self) -> list[str]:
        """Return the names of the scenarios that have rows, in order."""
        return list(dict.fromkeys(row.scenario for row in self.rows))

    def of(self, scenario: str) -> list[Row]:
        """Return the rows of a scenario."""
        return [row for row in self.rows if row.scenario == scenario]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that `share` of the values are below, or the largest."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def table(rows: list[Row]) -> str:
    """Return rows as a Markdown table."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [["server", *names, "version"]]
    for row in rows:
        figures = [number(row.figures[name]) if name in row.figures else "" for name in names]
        lines.append([row.server, *figures, "; ".join(filter(None, [row.version, row.note]))])
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a figure with three digits that matter."""
    if value == int(value):
        return f"{value:,.0f}"
    if value and abs(value) < 100:
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return f"{value:,.0f}"
