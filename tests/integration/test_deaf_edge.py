"""An edge whose link lives and which hears nothing all the same: it notices, mends itself, and says so if it cannot."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shared.contracts.ids import new_id
from shared.edge.continuity import canary
from tests.support.amnesia import Amnesia
from tests.support.clients import chat_client
from tests.support.edges import Edges, LocalEdge, open_edges
from tests.support.waiting import eventually

SOON_S = 0.6


@pytest.fixture
async def proxy(nats_url: str) -> AsyncIterator[Amnesia]:
    async with Amnesia(nats_url) as proxy:
        yield proxy


@pytest.fixture
async def behind(proxy: Amnesia, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Edges]:
    """Edges behind the proxy, which lose patience ten times faster than by default."""
    assert (canary.EVERY_S, canary.DEAF_AFTER_S, canary.UNREADY_AFTER_S) == (1.0, 5.0, 10.0)
    monkeypatch.setattr(canary, "EVERY_S", 0.1)
    monkeypatch.setattr(canary, "DEAF_AFTER_S", SOON_S)
    monkeypatch.setattr(canary, "UNREADY_AFTER_S", 2 * SOON_S)
    async with open_edges(proxy.url, tmp_path) as edges:
        yield edges


def deaf_s(edge: LocalEdge, service: str) -> float:
    return edge.gauge("edge_deaf_seconds", service=service)


@pytest.mark.parametrize("service", ["chat", "notifications"])
async def test_an_edge_that_the_server_forgot_makes_its_link_anew_and_stays_ready(
    behind: Edges, proxy: Amnesia, service: str
) -> None:
    edge = await getattr(behind, service)()
    await eventually(lambda: deaf_s(edge, service) < SOON_S / 2)

    proxy.forget("live.")
    await eventually(lambda: deaf_s(edge, service) > SOON_S / 2)
    assert (await edge.http.get("/readyz")).status_code == 200

    await eventually(lambda: edge.count("edge_links_renewed") == 1)
    await eventually(lambda: deaf_s(edge, service) < SOON_S / 2)
    await eventually(lambda: ready(edge))


async def test_an_edge_that_stays_deaf_is_not_ready_and_is_again_when_it_hears(behind: Edges, proxy: Amnesia) -> None:
    edge = await behind.chat()
    room = new_id("room-")
    async with chat_client(edge, new_id("user-"), rooms=[room]) as client:
        proxy.forget("live.", persistent=True)

        async def says_that_it_is_deaf() -> bool:
            answer = await edge.http.get("/readyz")
            return answer.status_code == 503 and "heard itself" in answer.json()["reasons"].get("chat.canary", "")

        await eventually(says_that_it_is_deaf)
        await eventually(lambda: edge.count("edge_links_renewed") >= 2)
        # What its clients are sent comes all the same, late: the hub reads what it does not hear.
        await client.say("late, but there")
        await client.hears("late, but there")

        proxy.remember()
        await eventually(lambda: ready(edge), deadline_s=20)
        await client.say("in time")
        await client.hears("in time")

        heard = [frame["data"]["content"] for frame in client.inbox.of_type("chat_message")]
        assert heard == ["late, but there", "in time"]


async def test_an_edge_that_hears_itself_leaves_its_link_alone(behind: Edges) -> None:
    edge = await behind.chat()
    patience = 2 * SOON_S / canary.EVERY_S
    await eventually(lambda: edge.count("deliveries", type="canary") > patience)

    assert edge.count("edge_links_renewed") == 0


async def test_an_edge_whose_link_is_closed_for_good_ends_with_status_1(proxy: Amnesia, tmp_path: Path) -> None:
    async with open_edges(proxy.url, tmp_path) as edges:
        edge = await edges.process("chat")
        proxy.command(b"BOGUS\r\n")

        async with asyncio.timeout(15):
            assert await edge.process.wait() == 1
        assert "closed for good" in edge.log.read_text()


async def ready(edge: LocalEdge) -> bool:
    return (await edge.http.get("/readyz")).status_code == 200
