"""One suite and one browser for all tests of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import chromium
from tests.support.suite import Suite, running_suite


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def suite(nats_url: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """The suite in a process of its own."""
    async with running_suite(nats_url, tmp_path_factory.mktemp("suite")) as suite:
        yield suite


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser; each window of a test is a context of its own, with cookies of its own."""
    async with chromium() as browser:
        yield browser
