"""The price feed dies, or there are two of it: what a client is shown is fresh, or says that it is not."""

from __future__ import annotations

import signal
import time
from itertools import pairwise

import pytest

from shared.contracts.ids import new_id
from tests.faults.trial import Row, add_to_table
from tests.support.clients import Frame, StreamClient, stream_client
from tests.support.edges import EdgeProcess, Edges

SYMBOL = "AAPL"
FEED = {"PRICE_RATE": "100", "PRICE_SYMBOLS": "10"}
STALE_WITHIN_S = 4.0
BACK_WITHIN_S = 8.0


@pytest.mark.timeout(90)
async def test_prices_are_called_stale_when_their_feed_dies_and_fresh_again_when_another_has_come(
    own_edges: Edges,
) -> None:
    edge, feed = await own_edges.notifications(), await start_feed(own_edges)
    async with stream_client(edge, new_id("u"), symbols=SYMBOL) as client:
        await client.next("price_update", is_fresh)
        await feed.kill()
        killed_s = time.monotonic()
        await client.next("price_update", lambda frame: bool(frame.get("stale")))
        stale_s = time.monotonic() - killed_s
        await start_feed(own_edges)
        started_s = time.monotonic()
        await client.next("price_update", is_fresh)
        back_s = time.monotonic() - started_s
        conclude("price feed killed, none in its place", client, back_s, f"called stale after {stale_s:.1f} s")

    assert stale_s < STALE_WITHIN_S
    assert back_s < BACK_WITHIN_S


@pytest.mark.timeout(90)
async def test_two_feeds_of_which_the_first_freezes_and_wakes_show_one_row_of_prices(own_edges: Edges) -> None:
    edge, first = await own_edges.notifications(), await start_feed(own_edges)
    await start_feed(own_edges)
    async with stream_client(edge, new_id("u"), symbols=SYMBOL) as client:
        await client.next("price_update", is_fresh)
        first.signal(signal.SIGSTOP)
        frozen_s = time.monotonic()
        await client.next("price_update", lambda frame: bool(frame.get("stale")))
        await client.next("price_update", is_fresh)
        back_s = time.monotonic() - frozen_s
        first.signal(signal.SIGCONT)
        woken = len(client.inbox.frames)
        await client.inbox.until(lambda inbox: len(inbox.frames) > woken + 20)
        conclude("two price feeds, the writer frozen, then woken", client, back_s, "no price older than one before")

    assert back_s < BACK_WITHIN_S
    times = [frame["timestamp"] for frame in client.inbox.of_type("price_update")]
    assert all(earlier <= later for earlier, later in pairwise(times))


async def start_feed(edges: Edges) -> EdgeProcess:
    """Start a price feed; it writes if no other does."""
    return await edges.process("price_feed", **FEED)


def is_fresh(frame: Frame) -> bool:
    """Whether an update is of a living feed."""
    return not frame.get("stale")


def conclude(fault: str, client: StreamClient, recovery_s: float, remarks: str) -> None:
    """Put a row into the table: prices are not acked, and only the newest counts."""
    shown = len(client.inbox.of_type("price_update"))
    add_to_table(Row(fault, 1, 0, shown, 0, 0, 0, 0, 0, 0, round(recovery_s, 1), remarks))
