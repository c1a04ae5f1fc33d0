"""Fixtures for every test: one real nats-server for the session; tests keep apart by fresh ids."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio

from shared.broker.jetstream import JetStreamBroker
from tests.support.edges import Edges, serving_keys
from tests.support.nats_server import NatsServer
from tests.support.tokens import Mint

BrokerFactory = Callable[..., Awaitable[JetStreamBroker]]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def nats_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of a nats-server with JetStream and all streams. Do not stop it: see `nats_server`."""
    async with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        yield server.url


@pytest.fixture
async def nats_server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A server of this test's own, to stop, kill and restart."""
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def broker(nats_url: str) -> AsyncIterator[BrokerFactory]:
    """Makes brokers on the session's server, each with a link of its own: `await broker()`, `await broker("chat")`."""
    made: list[JetStreamBroker] = []

    async def make(name: str = "test", url: str = nats_url) -> JetStreamBroker:
        made.append(await JetStreamBroker.connect(url, name=name))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def edges(nats_url: str, tmp_path: Path) -> AsyncIterator[Edges]:
    """Starts edges on the session's server: `await edges.chat()`, `await edges.notifications()`."""
    async with AsyncExitStack() as stack:
        mint = Mint()
        jwks_url = await stack.enter_async_context(serving_keys(mint))
        yield Edges(stack, nats_url, jwks_url, mint, tmp_path)
