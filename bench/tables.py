"""`python -m bench.tables [--write] [FILE …]`: the figures of docs/performance.md, out of the results of runs.

The document has a place for each table, between `<!-- figures: NAME -->` and `<!-- end -->`. This prints what belongs
there, or writes it, so that no figure is typed. Of several files, a scenario is taken from the last that has it.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.report import Check, Row, number

Results = dict[str, Any]

DOCUMENT = Path(__file__).parents[1] / "docs" / "performance.md"
RESULTS = Path(__file__).parent / "results" / "latest.json"
PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
COLUMNS = {
    "idle": {
        "connections": "connections",
        "KiB of RSS each": "rss_kib_per_connection",
        "KiB of slab each, both ends": "slab_kib_both_ends",
        "us of CPU a connect": "cpu_us_per_connect",
    },
    "broadcast": {
        "clients": "clients",
        "us of CPU a delivery": "cpu_us_per_delivery",
        "ms until all have it, p50": "until_all_ms_p50",
        "generator busy": "generator_busy",
    },
    "burst": {
        "clients": "clients",
        "us of CPU a delivery": "cpu_us_per_delivery",
        "ms until all have all, p50": "until_all_ms_p50",
        "generator busy": "generator_busy",
    },
    "rooms": {
        "us of CPU a message": "cpu_us_per_message",
        "us in NATS": "nats_us_per_message",
        "messages/s": "messages_per_s",
    },
    "latency": {"p50 ms": "p50_ms", "p99 ms": "p99_ms", "p99.9 ms": "p999_ms", "messages/s": "messages_per_s"},
    "nats": {
        "us of CPU a message": "cpu_us_per_message",
        "messages in/s of CPU": "messages_per_s_of_cpu",
    },
    "prices": {
        "ticks in/s": "ticks_in_per_s",
        "updates out/s": "updates_out_per_s",
        "edge busy": "edge_busy",
        "us of CPU an update": "edge_us_per_update",
        "ms until all show the last": "last_value_shown_after_ms",
        "most updates of a symbol/s": "most_updates_of_a_symbol_per_s",
    },
    "reconnect": {
        "clients": "clients",
        "s until all have resumed": "all_resumed_s",
        "us of CPU a resume": "cpu_us_per_resume",
        "refused at first": "refusals",
        "generator busy": "generator_busy",
    },
    "slow": {
        "p99 ms": "p99_ms",
        "without slow ones": "p99_ms_without_slow",
        "p50 ms": "p50_ms",
        "without": "p50_ms_without_slow",
        "MiB for all slow ones": "peak_mib",
    },
    "growth": {
        "clients": "clients",
        "us of CPU a delivery": "cpu_us_per_delivery",
        "KiB of RSS each": "rss_kib_per_connection",
        "us of CPU a connect": "cpu_us_per_connect",
        "us in NATS a message": "nats_us_per_message",
    },
    "million": {
        "connections": "connections",
        "edges": "edges",
        "KiB of the edge's RSS each": "edge_rss_kib_per_connection",
        "KiB of slab each, both ends": "slab_kib_per_connection",
        "KiB of the machine each": "machine_kib_per_connection",
        "s until a broadcast has reached all": "reach_all_s",
        "cores busy at rest": "edges_busy_at_rest",
    },
}
SIZES = ((10_000, 10_000), (50_000, 50_000), (100_000, 200_000), (1_000_000, 500_000))
BUSY_AT_MOST = 0.6
EDGE_CONNECTIONS = 19_000


def main() -> int:
    """Print or write the tables of the files that are named."""
    arguments = _arguments()
    results = merge([json.loads(file.read_text()) for file in arguments.files])
    text = fill(DOCUMENT.read_text(), results)
    if arguments.write:
        DOCUMENT.write_text(text)
    else:
        print("\n".join(place[0] for place in PLACE.finditer(text)))
    return 0


def merge(runs: Sequence[Results]) -> Results:
    """Return one run's results out of several: each scenario from the last run that has it."""
    rows: dict[str, list[Row]] = {}
    for run in runs:
        found = [Row(**row) for row in run["rows"]]
        rows |= {name: [row for row in found if row.scenario == name] for name in {row.scenario for row in found}}
    checks = {check["what"]: Check(**check) for run in runs for check in run["checks"]}
    return {
        "rows": rows,
        "checks": [*checks.values()],
        "runs": [{key: run[key] for key in ("command", "machine")} for run in runs],
    }


def fill(text: str, results: Results) -> str:
    """Return a document with its places filled; one that the results say nothing of stays as it is."""

    def table(place: re.Match[str]) -> str:
        made = _made(place[2], results)
        return f"{place[1]}{made}\n{place[3]}" if made else place[0]

    return PLACE.sub(table, text)


def _made(name: str, results: Results) -> str:
    other: dict[str, Callable[[Results], str]] = {"run": _run, "goals": _goals, "sizing": _sizing}
    if name in other:
        return other[name](results)
    rows = results["rows"].get(name, [])
    return _figures(rows, COLUMNS[name]) if rows else ""


def _figures(rows: list[Row], columns: dict[str, str]) -> str:
    lines = [["server", *columns]]
    for row in rows:
        cells = [number(row.figures[figure]) if figure in row.figures else "" for figure in columns.values()]
        lines.append([f"{row.server} ({row.note})" if row.note else row.server, *cells])
    return _markdown(lines)


def _run(results: Results) -> str:
    """Say on what it was run, and which versions of everything."""
    lines = [
        f"- `{run['command']}`: {', '.join(f'{k} {v}' for k, v in run['machine'].items())}" for run in results["runs"]
    ]
    versions = sorted({row.version for rows in results["rows"].values() for row in rows})
    return "\n".join([*lines, f"- Versions: {'; '.join(versions)}"])


def _goals(results: Results) -> str:
    lines = [["what", "measured", "at most", ""]]
    for check in results["checks"]:
        lines.append([check.what, number(check.value), f"{check.bound:g}", "" if check.holds else "**not reached**"])
    return _markdown(lines) if results["checks"] else ""


def _sizing(results: Results) -> str:
    """Compute what so many connections and deliveries need, from what one of each costs."""
    try:
        idle = next(row.figures for row in results["rows"]["idle"] if row.figures["connections"] == 10_000)
        delivery_us = statistics.median(
            row.figures["cpu_us_per_delivery"]
            for row in results["rows"]["broadcast"]
            if row.server.startswith("Fanfare W")
        )
    except (KeyError, StopIteration, statistics.StatisticsError):
        return ""
    lines = [["connections", "deliveries/s", "edge processes", "cores", "GiB of RSS", "GiB in the kernel"]]
    for connections, deliveries_hz in SIZES:
        cores = deliveries_hz * delivery_us / 1e6 / BUSY_AT_MOST
        edges = max(math.ceil(connections / EDGE_CONNECTIONS), math.ceil(cores))
        rss = connections * idle["rss_kib_per_connection"] / 2**20 + edges * idle["rss_mib_before"] / 2**10
        kernel = connections * idle["slab_kib_both_ends"] / 2 / 2**20
        sizes = [f"{connections:,}", f"{deliveries_hz:,}", str(edges)]
        lines.append([*sizes, number(cores), number(rss), number(kernel)])
    return _markdown(lines)


def _markdown(lines: list[list[str]]) -> str:
    head, *rest = lines
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *rest])


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.tables", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("files", nargs="*", type=Path, default=[RESULTS])
    parser.add_argument("--write", action="store_true", help="into docs/performance.md")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
