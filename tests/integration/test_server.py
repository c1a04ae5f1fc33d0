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


async def test_a_process_that_serves_keeps_the_collector_off_what_stays() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", SERVED, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(20):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    youngest, _, oldest = json.loads(output)

    assert youngest >= 10_000
    assert oldest >= 100
