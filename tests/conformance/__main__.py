"""`make conformance`: the Autobahn suite against both ways that a connection can be held; exits 1 at a new failure.

The runner is a program that is called with a URL, `quick` or `full`, and a folder, and leaves Autobahn's `index.json`
there. `quick` is sections 1 to 7 and 10; `full` adds 9 (messages up to 16 MiB, hence the raised limits), 12 and 13.
Where there is no runner, test_sections.py stands in for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import get_args

from tests.conformance.echo import Engine, serving_echo
from tests.conformance.verdicts import count, new_failures

ALLOWED = Path(__file__).with_name("allowed.txt")
MAX_MESSAGE_BYTES = {"quick": 1 << 20, "full": 32 << 20}


async def main(arguments: list[str]) -> int:
    """Run the suite; return the exit status."""
    if len(arguments) not in (2, 3) or arguments[1] not in MAX_MESSAGE_BYTES:
        print("usage: python -m tests.conformance RUNNER quick|full [REPORT_DIR]", file=sys.stderr)
        return 2
    runner, cases, *rest = arguments
    reports = Path(rest[0] if rest else tempfile.mkdtemp(prefix="autobahn-")).resolve()
    failures = [failure for engine in get_args(Engine) for failure in await _run(runner, engine, cases, reports)]
    print(*failures, sep="\n")
    return int(bool(failures))


async def _run(runner: str, engine: Engine, cases: str, reports: Path) -> list[str]:
    """Return the failures of one engine that nobody has allowed."""
    async with serving_echo(engine, max_message_bytes=MAX_MESSAGE_BYTES[cases]) as echo:
        suite = await asyncio.create_subprocess_exec(
            runner, echo.ws_url, cases, str(reports / engine), stdout=asyncio.subprocess.DEVNULL
        )
        status = await suite.wait()
    index = reports / engine / "index.json"
    if not index.exists():
        return [f"{engine}: the runner ended with status {status} and left no report"]
    verdicts = json.loads(index.read_text())["server"]
    print(f"{engine}: {count(verdicts)}; the report is in {reports / engine}")
    return new_failures(verdicts, ALLOWED.read_text(), engine)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
