"""Fixtures for every test: one real nats-server for the session; tests keep apart by fresh ids."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings

from shared.broker.jetstream import JetStreamBroker
from tests.support.edges import Edges, open_edges
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer
from tests.support.producer import Producer, connected

# A machine that does other things as well is slow now and then: that is no failure of what is tested. (The first text
# strategy of a fresh checkout builds a table of Unicode, which alone can take longer than the check allows.)
settings.register_profile("fanfare", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fanfare")

# What it asserts is shown as in a test module.
pytest.register_assert_rewrite("tests.contract.broker_contract")

# Nothing here speaks TLS, and each HTTP client would read all authorities of this machine, 30 ms: here there are none.
# In the environment, because the services that tests start are such clients as well.
os.environ.pop("SSL_CERT_FILE", None)  # noqa: TID251
os.environ["SSL_CERT_DIR"] = os.devnull  # noqa: TID251

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
async def nats_cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """Three servers of this test's own, with every lasting stream on all three."""
    async with NatsCluster(tmp_path / "nats") as cluster:
        yield cluster


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
async def edges(request: pytest.FixtureRequest, nats_url: str, tmp_path: Path) -> AsyncIterator[Edges]:
    """Starts edges on the session's server: `await edges.chat()`, `await edges.notifications()`."""
    async with open_edges(nats_url, tmp_path) as edges:
        edges.engine = getattr(request, "param", edges.engine)
        yield edges


@pytest.fixture
async def own_edges(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[Edges]:
    """Starts edges on this test's own server, which it may stop, kill and empty."""
    async with open_edges(nats_server.url, tmp_path) as edges:
        yield edges


@pytest.fixture
async def producer(nats_url: str) -> AsyncIterator[Producer]:
    """A program outside the suite that publishes with plain nats-py."""
    async with connected(nats_url) as producer:
        yield producer
