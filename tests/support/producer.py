"""A producer that knows nothing of the suite but its subjects: plain nats-py, JSON, `publish`."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import nats
from nats.aio.client import Client
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

from shared.clock import now_ms


class Producer:
    """One connection."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.js: JetStreamContext = client.jetstream()

    async def publish(self, subject: str, payload: bytes | dict[str, Any]) -> None:
        """Publish as `nats pub` does: no ack, no id; the server has it when this returns."""
        await self.client.publish(subject, payload if isinstance(payload, bytes) else json.dumps(payload).encode())
        await self.client.flush()

    async def store(self, subject: str, payload: bytes | dict[str, Any]) -> int:
        """Publish and wait for the stream's ack; return the sequence."""
        data = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
        return (await self.js.publish(subject, data)).seq

    async def notify(self, subject: str, *titles: str) -> list[str]:
        """Store notifications, and return their titles."""
        for title in titles:
            await self.store(subject, {"title": title})
        return list(titles)

    async def tick(self, symbol: str, price: float, **more: Any) -> None:
        """Publish a price."""
        await self.publish(f"prices.{symbol}", {"symbol": symbol, "price": price, "timestamp": now_ms(), **more})

    async def beat(self, component: str, instance: str = "one", status: str = "up", **metrics: Any) -> None:
        """Publish a status."""
        data = {"component": component, "instance": instance, "status": status, "metrics": metrics}
        await self.publish(f"status.{component}.{instance}", data | {"timestamp": now_ms()})

    async def log(self, component: str, event: str, level: str = "warning", **more: Any) -> None:
        """Publish a log record."""
        data = {"component": component, "instance": "one", "level": level, "event": event, "timestamp": now_ms()}
        await self.publish(f"logs.{component}.one", data | more)

    async def listens(self, subject: str) -> bool:
        """Say whether anybody listens to `subject`: whoever does will not answer, nobody is told of at once."""
        try:
            await self.client.request(subject, b"{}", timeout=0.2)
        except NoRespondersError:
            return False
        except nats.errors.TimeoutError:
            return True
        return True

    async def dead_letters(self, subject: str) -> list[RawStreamMsg]:
        """Return what was kept of the dead letters of `subject`."""
        found: list[RawStreamMsg] = []
        with suppress(NotFoundError):
            while True:
                after = (found[-1].seq or 0) + 1 if found else 1
                found.append(await self.js.get_msg("DEADLETTER", seq=after, subject=f"deadletter.{subject}", next=True))
        return found


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Producer]:
    """Yield a producer connected to `url`."""
    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
    try:
        yield Producer(client)
    finally:
        await client.close()
