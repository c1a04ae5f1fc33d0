"""The message limit over edges that share a broker, by a clock that the test turns."""

from __future__ import annotations

import pytest

from services.chat import throttle as throttle_module
from services.chat.throttle import MessageThrottle
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.errors import RateLimited
from shared.telemetry.metrics import Metrics

WINDOW_S = 60
START_MS = 1_000 * WINDOW_S * 1_000


class Hand:
    """The wall clock of all edges."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def hand(monkeypatch: pytest.MonkeyPatch) -> Hand:
    hand = Hand()
    monkeypatch.setattr(throttle_module, "now_ms", hand)
    return hand


class CountingBroker(MemoryBroker):
    """Counts how often a counter is asked."""

    calls = 0

    async def count(self, subject: str, by: int = 1) -> int:
        self.calls += 1
        return await super().count(subject, by)


def throttle(server: MemoryServer, limit: int = 100) -> MessageThrottle:
    return MessageThrottle(MemoryBroker(server), limit=limit, window_s=WINDOW_S, metrics=Metrics())


async def admitted(edges: list[MessageThrottle], tries: int, user: str = "u") -> int:
    """Return how many of `tries` messages pass, sent to the edges in turn."""
    passed = 0
    for number in range(tries):
        try:
            await edges[number % len(edges)].admit(user)
            passed += 1
        except RateLimited:
            continue
    return passed


async def test_w7_no_number_of_edges_lets_more_than_the_limit_through(hand: Hand) -> None:
    server = MemoryServer()
    edges = [throttle(server) for _ in range(5)]

    assert await admitted(edges, 150) == 100


async def test_a_chatterer_costs_few_round_trips_and_loses_no_message(hand: Hand) -> None:
    server = MemoryServer()
    edge, counted = throttle(server), CountingBroker(server)
    edge._broker = counted

    assert await admitted([edge], 100) == 100
    assert counted.calls <= 33
    with pytest.raises(RateLimited):
        await edge.admit("u")


async def test_who_moves_from_edge_to_edge_may_still_send_half_the_limit(hand: Hand) -> None:
    server = MemoryServer()
    passed = 0
    for stay in (3, 1, 7, 2, 5, 20, 1, 40, 3, 60):
        passed += await admitted([throttle(server)], stay)

    assert 50 <= passed <= 100


async def test_users_do_not_share_a_limit(hand: Hand) -> None:
    edge = throttle(MemoryServer())

    assert await admitted([edge], 100, "a") == await admitted([edge], 100, "b") == 100


async def test_the_window_slides_and_does_not_jump(hand: Hand) -> None:
    edge = throttle(MemoryServer())
    hand.now_ms = START_MS + 59_000
    assert await admitted([edge], 100) == 100

    hand.now_ms = START_MS + 60_000
    assert await admitted([edge], 5) == 0
    hand.now_ms = START_MS + 90_000
    # Half of the last window still counts, and so do the five that were refused in this one.
    assert await admitted([edge], 100) == 45


async def test_whoever_waits_as_told_is_admitted(hand: Hand) -> None:
    edge = throttle(MemoryServer(), limit=10)
    hand.now_ms = START_MS + 20_000
    assert await admitted([edge], 10) == 10
    for _ in range(5):
        with pytest.raises(RateLimited) as refused:
            await edge.admit("u")
        hand.now_ms += refused.value.retry_after_ms

        await edge.admit("u")


async def test_a_quiet_minute_forgets_everything(hand: Hand) -> None:
    edge = throttle(MemoryServer())
    assert await admitted([edge], 200) == 100
    hand.now_ms += 2 * WINDOW_S * 1_000

    assert await admitted([edge], 200) == 100


async def test_when_the_count_is_unknown_messages_pass_and_that_is_counted(hand: Hand) -> None:
    server, metrics = MemoryServer(), Metrics()
    edge = MessageThrottle(MemoryBroker(server), limit=1, window_s=WINDOW_S, metrics=metrics)
    server.stop()

    assert await admitted([edge], 3) == 3
    assert metrics.registry.get_sample_value("fanfare_rate_limit_total", {"outcome": "unknown"}) == 3


async def test_what_is_remembered_of_users_is_bounded(hand: Hand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle_module, "MAX_REMEMBERED_USERS", 10)
    edge = throttle(MemoryServer())
    for number in range(50):
        await edge.admit(f"user-{number}")

    assert len(edge._shares) == 10
