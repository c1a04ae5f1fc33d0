"""Whose lease lapses is dead; unless nobody could renew one: then nothing is known until all have had time to."""

from __future__ import annotations

import asyncio

import pytest

from shared.broker.memory import MemoryBroker, MemoryServer
from shared.contracts import subjects
from shared.edge.living import EDGE_LEASE, LEASE_RENEW_S, LEASE_TTL_S, Living
from shared.errors import Unavailable
from tests.support.waiting import eventually


class ShakyBroker(MemoryBroker):
    """A broker that takes no lease when it is told to."""

    fails = False

    async def put(
        self, bucket: str, *tokens: str, value: bytes, expect: int | None = None, ttl_s: int | None = None
    ) -> int:
        if self.fails:
            raise Unavailable
        return await super().put(bucket, *tokens, value=value, expect=expect, ttl_s=ttl_s)


class Edge:
    """One edge's view of who lives, on a clock that the test turns; and another edge's lease."""

    def __init__(self) -> None:
        server = MemoryServer()
        self.now_s, self.lost = 1_000.0, list[str]()
        self.broker, self.other = ShakyBroker(server), MemoryBroker(server)
        self.living = Living(
            self.broker,
            "a",
            on_came=lambda _edge: None,
            on_lost=self.lost.append,
            on_lapsed=lambda: None,
            clock=lambda: self.now_s,
        )

    async def other_lives(self) -> None:
        await self.other.put(subjects.LEASES, EDGE_LEASE, "b", value=b"{}")

    async def other_lapses(self) -> None:
        await self.other.delete(subjects.LEASES, EDGE_LEASE, "b")


@pytest.fixture
async def edge() -> Edge:
    edge = Edge()
    await edge.living.start()
    await edge.other_lives()
    await eventually(lambda: edge.living.edges == {"a", "b"})
    return edge


async def test_an_edge_whose_lease_lapses_while_others_are_renewed_is_dead_at_once(edge: Edge) -> None:
    edge.now_s += LEASE_RENEW_S
    await edge.other_lapses()

    await eventually(lambda: edge.lost == ["b"])


async def test_where_nobody_could_renew_a_lapse_says_nothing_and_who_comes_again_was_never_gone(edge: Edge) -> None:
    edge.broker.fails = True
    edge.now_s += LEASE_TTL_S + 5
    with pytest.raises(Unavailable):
        await edge.living.renew()
    await edge.other_lapses()
    for _ in range(10):  # it is heard by then
        await asyncio.sleep(0)
    assert edge.lost == []
    edge.broker.fails = False
    await edge.living.renew()
    await edge.living.read()
    await edge.other_lives()
    edge.now_s += LEASE_TTL_S + 1
    await edge.living.renew()
    await edge.living.read()

    assert edge.lost == []
    assert edge.living.edges == {"a", "b"}


async def test_an_edge_that_does_not_come_again_after_that_is_found_dead_by_what_is_read(edge: Edge) -> None:
    edge.broker.fails = True
    edge.now_s += LEASE_TTL_S + 5
    await edge.other_lapses()
    edge.broker.fails = False
    await edge.living.renew()
    for _ in range(4):
        edge.now_s += LEASE_RENEW_S
        await edge.living.renew()
        await edge.living.read()

    assert edge.lost == ["b"]
