"""A service's own log on the bus, for whoever looks at it live: `logs.<component>.<instance>` (ADR 23)."""

from __future__ import annotations

import asyncio

from shared.broker.port import Broker
from shared.contracts import subjects
from shared.telemetry.live_logs import LiveLogs
from shared.telemetry.metrics import Metrics

EVERY_S = 0.2
MAX_AT_ONCE = 10
"""50 records a second: what is above that waits, and what finds no room there is dropped (`LiveLogs`)."""


async def publish_logs(broker: Broker, logs: LiveLogs, metrics: Metrics) -> None:
    """Publish what waits, as long as the link is up, until cancelled; and then at once all that is left.

    It begins with a record of its own. Where the right to publish is missing, that shows when a process starts (it is
    not ready), and not with the first warning of a bad night.
    """
    subject = subjects.log(logs.component, logs.instance)
    dropped = metrics.counter("live_logs_dropped", "Log records that were not told live: too many at once")
    logs.put("info", "live_logs_begin", {"from": logs.level})
    try:
        while True:
            dropped.inc(logs.newly_dropped())
            for record in logs.take(MAX_AT_ONCE) if broker.usable() else ():
                await broker.publish(subject, record)
            await asyncio.sleep(EVERY_S)
    finally:
        for record in logs.take():
            await broker.publish(subject, record)
