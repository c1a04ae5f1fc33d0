"""Builds the price feed: broker, lease, source and writer, behind the calls that every service answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from services.price_feed.feed import NAME, PriceFeed
from services.price_feed.listing import listing
from services.price_feed.replay import Replay
from services.price_feed.settings import PriceFeedSettings
from services.price_feed.simulator import Simulator
from services.price_feed.source import PriceSource
from shared.broker.lease import Lease
from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.errors import BadInput
from shared.runtime.app import ServiceApp, build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.link import connect_broker
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics


def create_app(
    settings: PriceFeedSettings, *, lifecycle: Lifecycle | None = None, metrics: Metrics | None = None
) -> ServiceApp:
    """Return the price feed's app. It serves health and metrics only; prices leave it over the broker.

    Raises:
        BadInput: the recording cannot be replayed; the message names the setting and the line.
    """
    lifecycle, metrics = lifecycle or Lifecycle(), metrics or Metrics()
    source = make_source(settings)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[Mapping[str, Any]]:
        tasks = TaskKeeper()
        broker = await connect_broker(NAME, settings, lifecycle, metrics, tasks)
        feed = PriceFeed(
            broker=broker,
            lease=Lease(broker, NAME, settings.instance),
            source=source,
            instance=settings.instance,
            metrics=metrics,
            now_ms=now_ms,
        )
        lifecycle.add_check(f"{NAME}.streams", lambda: _require_streams(broker))
        lifecycle.on_drain(tasks.close)  # releases the lease first thing, so that a standby takes over at once
        tasks.spawn(feed.run(), "price-feed").add_done_callback(lambda task: _fail_unless_cancelled(task, lifecycle))
        try:
            yield {}
        finally:
            await tasks.close()
            await broker.close()

    return build_app(NAME, lifespan=lifespan, routers=(), settings=settings, lifecycle=lifecycle, metrics=metrics)


def make_source(settings: PriceFeedSettings) -> PriceSource:
    """Return the source that the settings ask for.

    Raises:
        BadInput: the recording cannot be replayed; the message names the setting and the line.
    """
    if settings.price_csv is not None:
        try:
            return Replay.load(settings.price_csv, speed=settings.price_csv_speed, loop=settings.price_csv_loop)
        except BadInput as error:
            raise BadInput(f"PRICE_CSV: {error}") from error
    instruments = listing(settings.price_symbols)
    return Simulator(instruments, seed=settings.price_seed, ticks_per_s=settings.price_rate)


async def _require_streams(broker: Broker) -> None:
    """Raise NotFound, with its name, for a stream that is not provisioned."""
    for stream in (subjects.PRICES, subjects.bucket_stream(subjects.LEASES)):
        await broker.state(stream)


def _fail_unless_cancelled(task: asyncio.Task[Any], lifecycle: Lifecycle) -> None:
    """End the process with its feed: a standby is better than a writer in pieces."""
    if not task.cancelled():
        lifecycle.fail("the price feed failed")
