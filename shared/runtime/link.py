"""A service's link to NATS: named after its process, asked by readiness, and the end of the process with its own."""

from __future__ import annotations

from shared.broker.jetstream import JetStreamBroker
from shared.broker.metrics import BrokerMetrics
from shared.broker.port import Broker
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.logs import publish_logs
from shared.runtime.settings import ServiceSettings
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

MAIN = "main"


async def connect_broker(
    name: str,
    settings: ServiceSettings,
    lifecycle: Lifecycle,
    metrics: Metrics,
    tasks: TaskKeeper,
    *,
    link: str = MAIN,
) -> Broker:
    """Connect; readiness asks the server, and a link that cannot come back ends the process. The main one tells logs.

    Args:
        tasks: must be closed before the link is, or its end is taken for a failure.
        link: its name, where a process has several.
    """
    suffix = "" if link == MAIN else f".{link}"
    broker = await JetStreamBroker.connect(
        settings.nats_url, name=f"{name}@{settings.instance}{suffix}", metrics=BrokerMetrics(metrics, link)
    )
    lifecycle.add_check(f"{name}.broker{suffix}", broker.check)

    async def end_when_closed() -> None:
        await broker.closed()
        lifecycle.fail(f"the {link} link to NATS is closed for good")

    tasks.spawn(end_when_closed(), "broker-closed")
    if link == MAIN and lifecycle.live_logs is not None:
        logs, lifecycle.live_logs = lifecycle.live_logs, None  # of the services in one process, the first tells them
        tasks.keep(lambda: publish_logs(broker, logs, metrics), "live-logs")
    return broker
