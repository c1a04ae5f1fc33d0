"""The writer: while this process holds the lease, it alone publishes what the source gives; all others stand by."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import NoReturn

from pydantic import ValidationError

from services.price_feed.source import PriceSource
from shared.broker.lease import FENCE_HEADER, Lease
from shared.broker.port import Broker, Message
from shared.contracts import subjects
from shared.contracts.events import PriceTick, SystemStatus
from shared.errors import NotFound, Unavailable
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

NAME = "price_feed"
"""Name of the service, its component on the status page, and its lease."""

POSITION_HEADER = "Fanfare-Position"
"""Header with the source's position after the batch that a tick belongs to: where a successor goes on."""

PULL_EVERY_S = 0.05
STATUS_EVERY_S = 1.0
RETRY_S = 0.5


class PriceFeed:
    """One process's part in the feed: it waits for the lease, goes on where the writer before it stopped, publishes.

    Ticks are ephemeral (the stream PRICES keeps the last of each symbol without an ack). While the broker is away or
    the lease is in doubt nothing is sent and nothing is kept for later: a tick that comes late is worse than none.
    """

    def __init__(
        self,
        *,
        broker: Broker,
        lease: Lease,
        source: PriceSource,
        instance: str,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._broker, self._lease, self._source = broker, lease, source
        self._instance, self._now_ms = instance, now_ms
        self._published = metrics.counter("price_ticks", "Price ticks published.")
        self._dropped = metrics.counter("price_ticks_dropped", "Ticks due as the lease or the link had gone.")
        self._skipped = metrics.counter("price_ticks_skipped", "Ticks that a stall made too old to send.")
        metrics.gauge("price_leader", "1 while this process is the writer.").set_function(self._leads)
        self._fence = 0
        self._sent = 0
        self._log = get_logger()

    async def run(self) -> NoReturn:
        """Take part until cancelled; then release the lease and say that this instance is down."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._lease.run(self._lead))
                group.create_task(self._tell_status())
        finally:
            await self._publish_status("down", ticks_per_s=0.0)
        raise AssertionError("both tasks run until cancelled")

    # -- as the writer --------------------------------------------------------------------------------------------

    async def _lead(self, fence: int) -> NoReturn:
        self._fence = fence
        self._log.info("price_feed_leads", fence=fence)
        try:
            await self._resume()
            while True:
                await self._publish_due(fence)
                await asyncio.sleep(PULL_EVERY_S)
        finally:
            self._fence = 0
            self._log.info("price_feed_stands_by", fence=fence)

    async def _resume(self) -> None:
        stored = await self._read_stored([subjects.price(symbol) for symbol in self._source.symbols])
        last = {tick.symbol: tick.price for tick in map(_tick_of, stored) if tick is not None}
        positions = [(message.seq, message.headers.get(POSITION_HEADER, "")) for message in stored]
        self._source.resume(last, max(positions, default=(0, ""))[1])

    async def _read_stored(self, wanted: Sequence[str]) -> list[Message]:
        while True:
            try:
                return await self._broker.read_last(subjects.PRICES, wanted)
            except (Unavailable, NotFound) as error:
                self._log.warning("price_feed_waits_for_stored_prices", reason=str(error))
                await asyncio.sleep(RETRY_S)

    async def _publish_due(self, fence: int) -> None:
        if not self._may_publish():
            return  # unpulled, the source sees a stall and skips what falls due meanwhile
        batch = self._source.next_batch(self._now_ms())
        self._skipped.inc(batch.skipped)
        headers = {FENCE_HEADER: str(fence), POSITION_HEADER: self._source.position}
        for tick in batch.ticks:
            payload = tick.to_json()
            if not self._may_publish():  # nothing may come between this and the publish: see shared.broker.lease
                self._dropped.inc()
                continue
            await self._broker.publish(subjects.price(tick.symbol), payload, headers)
            self._published.inc()
            self._sent += 1

    def _may_publish(self) -> bool:
        return self._broker.usable() and self._lease.held()

    # -- what it tells of itself ----------------------------------------------------------------------------------

    async def _tell_status(self) -> NoReturn:
        while True:
            sent_before = self._sent
            await asyncio.sleep(STATUS_EVERY_S)
            ticks_per_s = (self._sent - sent_before) / STATUS_EVERY_S
            await self._publish_status("up" if self._leads() else "standby", ticks_per_s=ticks_per_s)

    async def _publish_status(self, status: str, *, ticks_per_s: float) -> None:
        beat = SystemStatus.model_validate(
            {
                "component": NAME,
                "instance": self._instance,
                "status": status,
                "metrics": {"ticksPerSecond": ticks_per_s, "leader": int(self._leads()), "fence": self._fence},
                "timestamp": self._now_ms(),
            }
        )
        await self._broker.publish(subjects.status(NAME, self._instance), beat.to_json())

    def _leads(self) -> bool:
        return self._fence > 0 and self._lease.held()


def _tick_of(message: Message) -> PriceTick | None:
    """Return the stored tick; None if another producer left something else there, which edges refuse anyway."""
    try:
        return PriceTick.model_validate_json(message.data)
    except ValidationError:
        return None
