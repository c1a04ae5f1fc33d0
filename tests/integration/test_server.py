"""What the process of a service sets up around its app."""

from __future__ import annotations

import asyncio
import json
import sys

from tests.support.edges import ROOT

SERVED = """
import asyncio, gc, json, os, signal
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import ServiceSettings

async def app(scope, receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    while not gc.get_freeze_count():
        await asyncio.sleep(0.01)
    print(json.dumps(gc.get_threshold()), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    await receive()
    await send({"type": "lifespan.shutdown.complete"})

run("test", app, ServiceSettings(port=0), Lifecycle())
"""

CANNOT_START = """
from contextlib import asynccontextmanager
from shared.errors import Unavailable
from shared.runtime.app import build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import ServiceSettings
from shared.telemetry.metrics import Metrics

@asynccontextmanager
async def lifespan(app):
    lifecycle.fail("something before it")
    raise %s
    yield {}

settings, lifecycle = ServiceSettings(port=0), Lifecycle()
app = build_app("test", lifespan=lifespan, routers=[], settings=settings, lifecycle=lifecycle, metrics=Metrics())
run("test", app, settings, lifecycle)
"""

TASK_FAILS = """
import asyncio, json, logging, os, signal
from contextlib import asynccontextmanager
from shared.runtime.app import build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.server import run
from shared.runtime.settings import ServiceSettings
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

def counted():
    return metrics.registry.get_sample_value("fanfare_errors_logged_total")

async def fail():
    counts.append(counted())
    get_logger().warning("not_an_error")
    raise ZeroDivisionError("a fault")

@asynccontextmanager
async def lifespan(app):
    tasks = TaskKeeper()
    await asyncio.wait({tasks.spawn(fail(), "organ")})
    await asyncio.sleep(0)
    counts.append(counted())
    logging.getLogger("a.library").error("failed too")
    print(json.dumps([*counts, counted()]), flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    yield {}

counts, metrics, settings, lifecycle = [], Metrics(), ServiceSettings(port=0), Lifecycle()
app = build_app("test", lifespan=lifespan, routers=[], settings=settings, lifecycle=lifecycle, metrics=metrics)
run("test", app, settings, lifecycle)
"""


async def test_a_process_that_serves_keeps_the_collector_off_what_stays() -> None:
    status, output = await _outcome(SERVED)
    assert status == 0, output
    youngest, _, oldest = json.loads(output.splitlines()[0])

    assert youngest >= 10_000
    assert oldest >= 100


async def test_errors_in_the_log_are_counted_from_0_and_nothing_below_them() -> None:
    status, output = await _outcome(TASK_FAILS)

    assert status == 0, output
    assert [0, 1, 2] in [json.loads(line) for line in output.splitlines()]


async def test_a_process_that_cannot_start_says_why_in_a_line_that_can_be_searched_for() -> None:
    status, output = await _outcome(CANNOT_START % 'Unavailable("no NATS server answered")')
    said = [json.loads(line) for line in output.splitlines()]

    assert status != 0
    assert [line["reason"] for line in said if line["event"] == "process_failed"] == [
        "something before it",
        "cannot start: no NATS server answered",
    ]
    assert "Traceback" not in output


async def test_a_fault_of_the_code_at_the_start_keeps_its_traceback() -> None:
    status, output = await _outcome(CANNOT_START % 'ZeroDivisionError("a fault")')

    assert status != 0
    assert "Traceback" in output
    assert "a fault" in output


async def _outcome(code: str) -> tuple[int, str]:
    """Run `code` as a process of its own; return its status and all that it wrote, its logs last."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, (output + errors).decode()
