"""What the log of a service must never hold, whatever clients did to it."""

from __future__ import annotations

import json
import re
from pathlib import Path

_BAD = re.compile(
    r"Traceback|(?:task|connection|request|handler|timer)_failed|Exception in|eyJ[\w-]{8,}\."  # the last: a JWT
)


def assert_clean(log: Path) -> None:
    """Pass if every line is JSON, and none shows a failure of ours or a credential."""
    lines = log.read_text().splitlines()
    for line in lines:
        json.loads(line)

    assert lines
    assert [line for line in lines if _BAD.search(line)] == []
