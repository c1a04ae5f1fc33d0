"""A real browser for tests: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, async_playwright, expect

from tests.support.programs import find_or_install, in_path

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-dev-shm-usage"]
EXPECT_TIMEOUT_MS = 15_000  # a busy machine; what does hold is seen at once


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Launch a headless Chromium; CHROMIUM names one that is not in PATH."""
    executable = find_or_install(_find, "chromium")
    expect.set_options(timeout=EXPECT_TIMEOUT_MS)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS, headless=True)
        try:
            yield browser
        finally:
            await browser.close()


def _find() -> str | None:
    named = os.environ.get("CHROMIUM")  # noqa: TID251  # of the test, not of the product
    return named or in_path("chromium", "chromium-browser", "google-chrome")()
