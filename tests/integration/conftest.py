"""Edges that the tests of a module share, on one loop: two of the chat, by each way that a connection can be held.

Modules that use these run on one loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`. Their tests keep apart
by fresh rooms and users.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from shared.broker.jetstream import JetStreamBroker
from tests.support.edges import Edges, LocalEdge, open_edges
from tests.support.tokens import Mint


@dataclass
class Pair:
    """Two edges of the chat, and a link of the tests' own to their broker."""

    a: LocalEdge
    b: LocalEdge
    broker: JetStreamBroker
    mint: Mint


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["epoll", "asgi"])
async def pair(
    request: pytest.FixtureRequest, nats_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Pair]:
    """Two edges for all tests of a module."""
    async with open_edges(nats_url, tmp_path_factory.mktemp("pair")) as edges:
        broker = await JetStreamBroker.connect(nats_url, name="tests")
        engine = request.param
        yield Pair(await edges.chat(edge_engine=engine), await edges.chat(edge_engine=engine), broker, edges.mint)
        await broker.close()


@pytest_asyncio.fixture(loop_scope="module")
async def more_edges(nats_url: str, tmp_path: Path) -> AsyncIterator[Edges]:
    """Starts edges for one test, on the module's loop."""
    async with open_edges(nats_url, tmp_path) as edges:
        yield edges
