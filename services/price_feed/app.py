"""Builds the price feed: broker, lease, source and writer, behind the calls that every service answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from services.price_feed.feed import COMPONENT, PriceFeed
from services.price_feed.listing import listing
from services.price_feed.replay import Replay
from services.price_feed.settings import PriceFeedSettings
from services.price_feed.simulator import Simulator
from services.price_feed.source import PriceSource
from shared.broker.jetstream import JetStreamBroker
from shared.broker.lease import Lease
from shared.broker.port import Broker
from shared.clock import now_ms
from shared.runtime.app import build_app
from shared.runtime.lifecycle import Lifecycle
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics


def create_app(
    settings: PriceFeedSettings, *, lifecycle: Lifecycle | None = None, metrics: Metrics | None = None
) -> FastAPI:
    """Return the price feed's app. It serves health and metrics only; prices leave it over the broker.

    Raises:
        BadInput: the recording cannot be replayed; the message names the line.
    """
    lifecycle, metrics = lifecycle or Lifecycle(), metrics or Metrics()
    source = make_source(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        broker = await JetStreamBroker.connect(settings.nats_url, name=f"{COMPONENT}@{settings.instance}")
        tasks = TaskKeeper()
        lifecycle.add_check("nats", broker.check)
        lifecycle.on_drain(tasks.close)  # hands over before the sockets close, so a standby need not wait for the lease
        feed = PriceFeed(
            broker=broker,
            lease=Lease(broker, COMPONENT, settings.instance),
            source=source,
            instance=settings.instance,
            metrics=metrics,
            now_ms=now_ms,
        )
        tasks.spawn(_run(feed, lifecycle), "price feed")
        tasks.spawn(_watch(broker, lifecycle), "broker watch")
        try:
            yield {}
        finally:
            await tasks.close()
            await broker.close()

    return build_app(COMPONENT, lifespan=lifespan, routers=(), settings=settings, lifecycle=lifecycle, metrics=metrics)


def make_source(settings: PriceFeedSettings) -> PriceSource:
    """Return the source that the settings ask for.

    Raises:
        BadInput: the recording cannot be replayed; the message names the line.
    """
    if settings.price_csv is not None:
        return Replay.load(settings.price_csv, speed=settings.price_csv_speed, loop=settings.price_csv_loop)
    instruments = listing(settings.price_symbols)
    return Simulator(instruments, seed=settings.price_seed, ticks_per_s=settings.price_rate)


async def _run(feed: PriceFeed, lifecycle: Lifecycle) -> None:
    """Run the feed; should it ever fail, so does the process: a standby is better than a writer in pieces."""
    try:
        await feed.run()
    finally:
        if not lifecycle.draining:
            lifecycle.fail("the price feed ended")


async def _watch(broker: Broker, lifecycle: Lifecycle) -> None:
    await broker.closed()
    lifecycle.fail("the link to the broker is closed for good")
