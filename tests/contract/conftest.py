"""The adapters that must keep the port's promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Broker

Connect = Callable[[], Awaitable[Broker]]


@pytest.fixture(params=["memory", "jetstream"])
def adapter_url(request: pytest.FixtureRequest) -> str:
    """The address of the server; empty for the adapter that needs none."""
    return request.getfixturevalue("nats_url") if request.param == "jetstream" else ""


@pytest.fixture
async def connect(adapter_url: str) -> AsyncIterator[Connect]:
    """Makes brokers of one kind that meet, as edges do."""
    made: list[Broker] = []
    server = MemoryServer()

    async def make() -> Broker:
        made.append(await JetStreamBroker.connect(adapter_url, name="test") if adapter_url else MemoryBroker(server))
        return made[-1]

    yield make
    for one in made:
        await one.close()


@pytest.fixture
async def broker(connect: Connect) -> Broker:
    """One of them."""
    return await connect()
