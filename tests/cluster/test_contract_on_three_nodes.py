"""Three nodes keep the port's whole contract, though streams are led by other nodes than the one that a link is to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from shared.broker.jetstream import JetStreamBroker
from tests.contract.broker_contract import BrokerContract, Connect
from tests.support.nats_cluster import NatsCluster


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def node_url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """The address of one node of a cluster."""
    async with NatsCluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster.nodes["node-1"].url


class TestThreeNodes(BrokerContract):
    """The adapter of the product, on a cluster."""

    @pytest.fixture
    def link(self, node_url: str) -> Connect:
        """Links to one node; as the port says, the others learn of an interest a moment later."""
        return lambda: JetStreamBroker.connect(node_url, name="test")
