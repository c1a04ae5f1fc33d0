"""The other services on three NATS nodes, one of which is killed: a revocation ends sessions, and prices go on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.auth.settings import AuthSettings
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.close_codes import CloseCode
from shared.contracts.ids import new_id
from tests.support.auth_service import RunningAuth, running_auth
from tests.support.clients import chat_client, stream_client
from tests.support.edges import Edges, open_edges
from tests.support.nats_cluster import NatsCluster
from tests.support.tokens import Mint
from tests.support.waiting import eventually

MAX_PAUSE_S = 15.0


@pytest.fixture
async def auth(nats_cluster: NatsCluster, tmp_path: Path) -> AsyncIterator[RunningAuth]:
    settings = AuthSettings(port=0, database_url=f"sqlite:///{tmp_path}/auth.db", nats_url=nats_cluster.url)
    async with running_auth(settings) as running:
        yield running


async def test_a_session_that_is_revoked_while_no_node_leads_the_revocations_ends_on_every_edge(
    auth: RunningAuth, nats_cluster: NatsCluster, tmp_path: Path
) -> None:
    token = (await auth.new_user())["access_token"]
    holder = {"authorization": f"Bearer {token}"}
    async with AsyncExitStack() as stack:
        edges = Edges(stack, nats_cluster.url, f"{auth.url}/.well-known/jwks.json", Mint(), tmp_path)
        here, there = await edges.chat(), await edges.chat()
        streams = await edges.notifications()
        async with (
            chat_client(here, headers=holder) as one,
            chat_client(there, headers=holder) as other,
            stream_client(streams, "whoever the header says", headers=holder) as stream,
        ):
            for client in (one, other):
                await client.inbox.next("connected")
            await nats_cluster.nodes[await nats_cluster.leader(subjects.REVOKED)].kill()
            assert (await auth.post("logout", token=token)).status_code == 204
            async with asyncio.timeout(MAX_PAUSE_S):
                for client in (one, other):
                    await client.socket.wait_closed()
                    assert client.socket.close_code == CloseCode.SESSION_REVOKED
                await stream.inbox.until(lambda inbox: "session_revoked" in str(inbox.frames[-1]))
                await stream.ended()
        for edge in (here, there):
            async with chat_client(edge, headers=holder) as again:
                assert await again.closed() == CloseCode.SESSION_REVOKED


async def test_prices_go_on_when_the_node_is_killed_that_leads_the_feeds_lease(
    nats_cluster: NatsCluster, tmp_path: Path
) -> None:
    async with open_edges(nats_cluster.url, tmp_path) as edges:
        await edges.process("price_feed", PRICE_RATE="40", PRICE_SYMBOLS="2")
        edge = await edges.notifications()
        user = new_id("u")
        symbols: list[str] = []

        async def is_listed() -> bool:
            listing = (await edge.http.get("/api/stocks", headers=edge.headers(user))).json()["symbols"]
            symbols[:] = [tick["symbol"] for tick in listing]
            return bool(symbols)

        await eventually(is_listed)
        async with stream_client(edge, user, symbols=symbols[0]) as client:
            shown = (await client.next("price_update"))["timestamp"]
            lease = subjects.bucket_stream(subjects.LEASES)
            killed_s = time.monotonic()
            await nats_cluster.nodes[await nats_cluster.leader(lease)].kill()
            async with asyncio.timeout(MAX_PAUSE_S):
                await nats_cluster.leader(lease)
            elected_ms = now_ms()
            async with asyncio.timeout(MAX_PAUSE_S):
                while shown < elected_ms + 1_000:
                    shown = (await client.next("price_update"))["timestamp"]

            assert time.monotonic() - killed_s < MAX_PAUSE_S
            updates = [frame["timestamp"] for frame in client.inbox.of_type("price_update")]
            assert updates == sorted(updates)
