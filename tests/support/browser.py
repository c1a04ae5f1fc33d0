"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright, expect

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
EXPECT_TIMEOUT_MS = 15_000  # a busy machine; what does hold is seen at once


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Launch a headless Chromium; CHROMIUM names one that is not in PATH."""
    executable = _find() or _install()
    expect.set_options(timeout=EXPECT_TIMEOUT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


def _find() -> str | None:
    named = os.environ.get("CHROMIUM")  # noqa: TID251  # of the test, not of the product
    return named or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def _install() -> str:
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-y", "--no-install-recommends", "chromium"], check=True)
    found = _find()
    if found is None:
        raise RuntimeError("this test needs Chromium: install it (Debian: chromium) or name it in CHROMIUM")
    return found
