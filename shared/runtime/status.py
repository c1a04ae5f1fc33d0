"""A service's own status on the bus, every few seconds, for dashboards: `status.<component>.<instance>`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.events import SystemStatus
from shared.runtime.lifecycle import Lifecycle

EVERY_S = 5.0

Figures = Callable[[], Mapping[str, float | int | str]]


async def publish_status(broker: Broker, component: str, instance: str, lifecycle: Lifecycle, figures: Figures) -> None:
    """Say how this process is, until cancelled: up, degraded with what is not ready, or draining."""
    subject = subjects.status(component, instance)
    while True:
        missing = await lifecycle.readiness()
        state = "draining" if lifecycle.draining else "degraded" if missing else "up"
        status = SystemStatus(
            component=component,
            instance=instance,
            status=state,
            metrics={**figures(), **({"notReady": ", ".join(missing)} if missing else {})},
            timestamp=now_ms(),
        )
        await broker.publish(subject, status.to_json())
        await asyncio.sleep(EVERY_S)
