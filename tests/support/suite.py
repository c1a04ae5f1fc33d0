"""The product as `make run` starts it: one process, all services, the built page."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from tests.support.edges import ROOT, free_port, until_ready

PAGE = ROOT / "services" / "web" / "dist" / "index.html"


@dataclass
class Suite:
    """A running suite.

    Attributes:
        url: where the page is.
        nats_url: where producers publish.
    """

    url: str
    nats_url: str


@asynccontextmanager
async def running_suite(nats_url: str, tmp_path: Path) -> AsyncIterator[Suite]:
    """Run `python -m services` on the server at `nats_url` until the block ends."""
    if not PAGE.is_file():
        raise RuntimeError("the page is not built: run `make page` (it needs Node.js 20)")
    port, log = free_port(), tmp_path / "suite.log"
    variables = {"PORT": str(port), "NATS_URL": nats_url, "FANFARE_DATA": str(tmp_path / "data"), "DRAIN_S": "0.2"}
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "services",
            cwd=ROOT,
            env=os.environ | variables,  # noqa: TID251  # the child needs PATH and HOME as well
            stdout=output,
            stderr=output,
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
            await until_ready(http)
        yield Suite(f"http://127.0.0.1:{port}", nats_url)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
