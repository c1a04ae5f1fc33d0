"""One suite and one browser for all tests of the page."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.support.browser import chromium
from tests.support.nats_server import NatsServer
from tests.support.suite import Suite, running_suite


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def suite(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Suite]:
    """The suite in a process and on a nats-server of its own: its price feed holds the lease for all it knows."""
    directory = tmp_path_factory.mktemp("suite")
    async with NatsServer(directory / "nats") as server, running_suite(server.url, directory) as suite:
        yield suite


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """A browser; each window of a test is a context of its own, with cookies of its own."""
    async with chromium() as browser:
        yield browser
