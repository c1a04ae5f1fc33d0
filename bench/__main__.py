"""`python -m bench [scenario …] [--quick] [--json FILE]`: measures Fanfare beside its peers.

`python -m bench broadcast --beside "FastAPI on uvicorn" --times 9` is for one ratio, which differs from run to run by a
tenth: only the groups with that peer are measured, nine times, and their medians must keep the bounds.

Exit status 1 if anything that was sent did not arrive exactly once, or if a ratio is beyond its bound.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import httpx
import uvloop

from bench.load import BenchFailed
from bench.machine import raise_descriptor_limit
from bench.report import Report
from bench.scenarios import broadcast, burst, growth, idle, latency, nats, prices, reconnect, rooms, slow

Scenario = Callable[..., Coroutine[Any, Any, None]]

RESULTS = Path(__file__).parent / "results"
SCENARIOS: dict[str, Scenario] = {
    module.NAME: module.run
    for module in (idle, broadcast, burst, rooms, latency, nats, prices, reconnect, slow, growth)
}
COMPARISONS = {module.NAME: module.COMPARISON for module in (broadcast, burst)}

FULL_ONLY = frozenset({growth.NAME})
"""Left out of a quick run, unless it is named: in small, it shows nothing that the others do not."""


def main() -> int:
    """Run what the command line asks for; return the process's status."""
    arguments = arguments_of(sys.argv[1:])
    raise_descriptor_limit()
    report = Report(shlex.join(["python", "-m", "bench", *sys.argv[1:]]))
    for name, scenario in _chosen(arguments).items():
        for _ in range(arguments.times):
            began_s = time.monotonic()
            report.add(_measured(report.command, name, scenario, quick=arguments.quick))
            print(f"{name}: {time.monotonic() - began_s:.0f} s", flush=True)
    if not report.rows:
        report.void.append("nothing could be measured")
    if arguments.times > 1:
        report.judge_by_medians()
    report.show()
    report.save(arguments.json)
    print(f"\nwritten to {arguments.json.parent}/{arguments.json.stem}*")
    return 0 if report.good else 1


def _chosen(arguments: argparse.Namespace) -> dict[str, Scenario]:
    """Return the scenarios that are asked for, by name; of one that compares, the groups with the peer asked for."""
    if arguments.beside:
        return {name: COMPARISONS[name].beside(arguments.beside).run for name in arguments.scenarios or COMPARISONS}
    names = arguments.scenarios or [name for name in SCENARIOS if not (arguments.quick and name in FULL_ONLY)]
    return {name: SCENARIOS[name] for name in names}


def _measured(command: str, name: str, scenario: Scenario, *, quick: bool) -> Report:
    """Return what a scenario found; others' work can spoil the ratios of a small run, so it gets a second try.

    What did not arrive is no noise, and has no second try.
    """
    report = _run(command, name, scenario, quick=quick)
    if quick and not report.void and not report.good:
        print(f"{name} again: {'; '.join(str(check) for check in report.checks if not check.holds)}", flush=True)
        report = _run(command, name, scenario, quick=quick)
    return report


def _run(command: str, name: str, scenario: Scenario, *, quick: bool) -> Report:
    report = Report(command)
    with tempfile.TemporaryDirectory(prefix=f"fanfare-bench-{name}-") as directory:
        try:
            uvloop.run(scenario(report, Path(directory), quick=quick))
        except (BenchFailed, TimeoutError, httpx.HTTPError) as error:
            report.void.append(f"{name}: {error or 'timed out'}")
    return report


def arguments_of(words: Sequence[str]) -> argparse.Namespace:
    """Return what the words of a command line ask for; leave with status 2 if they make no sense."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "scenarios",
        nargs="*",
        choices=[*SCENARIOS, []],
        help=f"of {', '.join(SCENARIOS)}; default all, without {', '.join(FULL_ONLY)} if quick",
    )
    parser.add_argument("--quick", action="store_true", help="small, for CI: only the ratios mean something")
    parser.add_argument("--beside", metavar="PEER", help=f"only its groups, of {', '.join(COMPARISONS)}")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="measure so often, and judge by the medians")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", metavar="FILE")
    arguments = parser.parse_args(words)
    _refuse_what_cannot_be(parser, arguments)
    return arguments


def _refuse_what_cannot_be(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    if arguments.times < 1:
        parser.error("--times must be 1 or more")
    if not arguments.beside:
        return
    for name in arguments.scenarios or COMPARISONS:
        if name not in COMPARISONS:
            parser.error(f"--beside is for {' and '.join(COMPARISONS)}, not for {name}")
        if arguments.beside not in (peers := COMPARISONS[name].peers(quick=arguments.quick)):
            parser.error(f"{arguments.beside} is not in {name}; it has {', '.join(peers)}")


if __name__ == "__main__":
    sys.exit(main())
