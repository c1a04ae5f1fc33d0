"""`python -m bench [scenario …] [--quick] [--json FILE]`: measures Fanfare beside its peers.

Exit status 1 if anything that was sent did not arrive exactly once, or if a ratio is beyond its bound.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import httpx
import uvloop

from bench.load import BenchFailed
from bench.machine import raise_descriptor_limit
from bench.report import Report
from bench.scenarios import broadcast, burst, growth, idle, latency, nats, prices, reconnect, rooms, slow

RESULTS = Path(__file__).parent / "results"
SCENARIOS = {
    module.NAME: module.run
    for module in (idle, broadcast, burst, rooms, latency, nats, prices, reconnect, slow, growth)
}

FULL_ONLY = frozenset({growth.NAME})
"""Left out of a quick run, unless it is named: in small, it shows nothing that the others do not."""


def main() -> int:
    """Run what the command line asks for; return the process's status."""
    arguments = _arguments()
    raise_descriptor_limit()
    names = arguments.scenarios or [name for name in SCENARIOS if not (arguments.quick and name in FULL_ONLY)]
    report = Report(" ".join(["python -m bench", *sys.argv[1:]]))
    for name in names:
        began_s = time.monotonic()
        report.add(_measured(report.command, name, quick=arguments.quick))
        print(f"{name}: {time.monotonic() - began_s:.0f} s", flush=True)
    report.show()
    report.save(arguments.json)
    print(f"\nwritten to {arguments.json.parent}/{arguments.json.stem}*")
    return 0 if report.good else 1


def _measured(command: str, name: str, *, quick: bool) -> Report:
    """Return what a scenario found; others' work can spoil the ratios of a small run, so it gets a second try.

    What did not arrive is no noise, and has no second try.
    """
    report = _run(command, name, quick=quick)
    if quick and not report.void and not report.good:
        print(f"{name} again: {'; '.join(str(check) for check in report.checks if not check.holds)}", flush=True)
        report = _run(command, name, quick=quick)
    return report


def _run(command: str, name: str, *, quick: bool) -> Report:
    report = Report(command)
    with tempfile.TemporaryDirectory(prefix=f"fanfare-bench-{name}-") as directory:
        try:
            uvloop.run(SCENARIOS[name](report, Path(directory), quick=quick))
        except (BenchFailed, TimeoutError, httpx.HTTPError) as error:
            report.void.append(f"{name}: {error or 'timed out'}")
    return report


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "scenarios",
        nargs="*",
        choices=[*SCENARIOS, []],
        help=f"of {', '.join(SCENARIOS)}; default all, without {', '.join(FULL_ONLY)} if quick",
    )
    parser.add_argument("--quick", action="store_true", help="small, for CI: only the ratios mean something")
    parser.add_argument("--json", type=Path, default=RESULTS / "latest.json", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
