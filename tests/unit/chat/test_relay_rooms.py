"""An edge listens to a room's relay from before somebody is told to be there until nobody has been for a while."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.chat import relay as module
from services.chat.relay import Relay
from shared.broker.memory import MemoryBroker, MemorySubscription
from shared.broker.port import Handler
from shared.clock import monotonic_s
from shared.contracts import subjects
from shared.edge.continuity.canary import encode_canary
from shared.edge.deadletters import DeadLetters
from shared.edge.timers import Wheel
from shared.edge.topics.hub import Hub
from shared.errors import Unavailable
from shared.telemetry.metrics import Metrics
from tests.support.waiting import POLL_S, eventually

LINGER_S = 10 * POLL_S


class ShakyBroker(MemoryBroker):
    """A broker that does not answer when it is told to, and counts how often it is asked."""

    fails = False
    subscribed = 0

    async def subscribe(self, pattern: str, handler: Handler) -> MemorySubscription:
        self.subscribed += 1
        if self.fails:
            raise Unavailable
        return await super().subscribe(pattern, handler)


class Edge:
    """A relay that looks often who is there."""

    def __init__(self) -> None:
        self.broker, self.metrics = ShakyBroker(), Metrics()
        hub = Hub(
            self.broker,
            encoders={subjects.CANARY: encode_canary},
            deadletters=DeadLetters(self.broker, self.metrics),
            metrics=self.metrics,
            on_gap=lambda _topic, _gap: None,
        )
        self.relay = Relay(self.broker, hub, Wheel(), self.metrics)

    @property
    def rooms(self) -> float | None:
        return self.metrics.registry.get_sample_value("fanfare_relay_rooms")


@pytest.fixture
async def edge(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edge]:
    monkeypatch.setattr(module, "LINGER_S", LINGER_S)
    edge = Edge()
    await edge.relay.start()
    yield edge
    await edge.relay.close()


async def test_a_room_that_could_not_be_followed_is_tried_again_by_whoever_comes_next(edge: Edge) -> None:
    edge.broker.fails = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            await edge.relay.follow("r")
    edge.broker.fails = False
    await edge.relay.follow("r")

    assert edge.rooms == 1


async def test_a_room_that_somebody_enters_again_and_again_is_not_left_in_between(edge: Edge) -> None:
    began_s = monotonic_s()

    async def come() -> bool:
        await edge.relay.follow("r")
        assert edge.rooms == 1
        return monotonic_s() > began_s + 5 * LINGER_S

    await eventually(come)
    assert edge.broker.subscribed == 1
    await eventually(lambda: edge.rooms == 0)
