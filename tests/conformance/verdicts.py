"""Autobahn's verdicts, and which failures are known: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any

GOOD = frozenset({"OK", "NON-STRICT", "INFORMATIONAL"})

Verdicts = Mapping[str, Mapping[str, Any]]
"""By case, as in the suite's `index.json`: `behavior` of the messages, `behaviorClose` of the closing handshake."""


def count(verdicts: Verdicts) -> str:
    """Return how many cases had which verdict, in one line."""
    kinds = Counter(verdict["behavior"] for verdict in verdicts.values())
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))


def new_failures(verdicts: Verdicts, allowed: str, engine: str) -> list[str]:
    """Return a line for each case that failed and is not allowed to, and for each that is and did not.

    Args:
        allowed: lines of `ENGINE CASE VERDICT`, where `*` stands for anything; `#` begins a comment.
    """
    rules = [line.split("#")[0].split() for line in allowed.splitlines()]
    mine = [(case, verdict) for name, case, verdict in filter(None, rules) if fnmatchcase(engine, name)]
    failed = {case: _failure(verdict) for case, verdict in verdicts.items() if _failure(verdict)}
    lines = [
        f"{engine} {case} {failure}"
        for case, failure in failed.items()
        if not any(fnmatchcase(case, pattern) and fnmatchcase(failure, verdict) for pattern, verdict in mine)
    ]
    for pattern, _ in mine:
        ran = [case for case in verdicts if fnmatchcase(case, pattern)]
        if ran and not failed.keys() & set(ran):
            lines.append(f"{engine} {pattern} passes now: take it off the list")
    return lines


def _failure(verdict: Mapping[str, Any]) -> str:
    """Return what was wrong, as one word; empty if nothing was."""
    bad = [verdict[part] for part in ("behavior", "behaviorClose") if verdict[part] not in GOOD]
    return bad[0].replace(" ", "-") if bad else ""
