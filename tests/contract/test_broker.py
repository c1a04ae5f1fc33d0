"""Both adapters keep the port's contract; `tests/cluster` holds JetStream to it on three nodes as well."""

from __future__ import annotations

import pytest

from shared.broker.jetstream import JetStreamBroker
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Broker
from tests.contract.broker_contract import BrokerContract, Connect


class TestMemory(BrokerContract):
    """The adapter that needs no server."""

    @pytest.fixture
    def link(self) -> Connect:
        """Links to one server."""
        server = MemoryServer()

        async def connect() -> Broker:
            return MemoryBroker(server)

        return connect


class TestJetStream(BrokerContract):
    """The adapter of the product, on one node."""

    @pytest.fixture
    def link(self, nats_url: str) -> Connect:
        """Links to the session's server."""
        return lambda: JetStreamBroker.connect(nats_url, name="test")
