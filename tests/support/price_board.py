"""A price board on a broker in memory, with clocks that a test turns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from pydantic_core import from_json, to_json

from services.notifications.prices import PriceBoard, PriceFlow
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.clock import now_ms
from shared.contracts import subjects
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event
from shared.edge.timers import TICK_S, Wheel
from shared.telemetry.metrics import Metrics

STALE_AFTER_S = 2.0


@dataclass(eq=False)
class Screen:
    """A listener that keeps what it is shown, and when."""

    now: Hand
    shown: list[tuple[float, Event]] = field(default_factory=list)
    user_id: str = "u"

    def deliver(self, event: Event) -> None:
        self.shown.append((self.now(), event))

    @property
    def outlet(self) -> Screen:
        return self

    @property
    def batches(self) -> list[list[Event]]:
        """Return the prices by the moments at which they were shown, but for the snapshots."""
        shown = [(when, event) for when, event in self.shown if event.type == "price_update"]
        return [[event for _, event in together] for _, together in groupby(shown, key=lambda each: each[0])]

    async def writable(self) -> None:
        """It always is."""

    def data(self, type_: str = "price_update") -> list[dict[str, Any]]:
        return [from_json(event.body) for _, event in self.shown if event.type == type_]

    def latest(self, symbol: str) -> dict[str, Any]:
        return [data for data in self.data() if data["symbol"] == symbol][-1]


class Hand:
    """A clock that a test turns."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


class Feed:
    """The board, and what a test does around it."""

    def __init__(self) -> None:
        self.server = MemoryServer()
        self.broker = MemoryBroker(self.server)
        self.metrics = Metrics()
        self.hand = Hand()
        self.wheel = Wheel(self.hand)
        self.deadletters = DeadLetters(self.broker, self.metrics)
        self.board = PriceBoard(
            self.broker, self.deadletters, self.wheel, self.metrics, stale_after_s=STALE_AFTER_S, clock=self.hand
        )

    async def tick(self, symbol: str, price: float, **more: Any) -> None:
        """Publish a tick, and let it arrive."""
        await self.publish(symbol, to_json({"symbol": symbol, "price": price, "timestamp": now_ms(), **more}))

    async def publish(self, symbol: str, payload: bytes) -> None:
        """Publish anything as a tick, and let it arrive."""
        await self.broker.publish(f"prices.{symbol}", payload)
        await settle()

    async def beat(self, status: str) -> None:
        """Publish a feed's heartbeat, and let it arrive."""
        data = {"component": "price_feed", "instance": "one", "status": status, "timestamp": now_ms()}
        await self.broker.publish(subjects.status("price_feed", "one"), to_json(data))
        await settle()

    async def pass_time(self, seconds: float) -> None:
        """Turn the clock and the wheel with it; the loop comes round at each tick."""
        until_s = self.hand.now_s + seconds
        while self.hand.now_s < until_s:
            self.hand.now_s += TICK_S
            self.wheel.turn()
            await asyncio.sleep(0)

    def screen(self, *symbols: str, rate_hz: float = 10.0) -> tuple[Screen, PriceFlow]:
        """A client that watches `symbols`."""
        screen = Screen(self.hand)
        flow = PriceFlow(self.board, screen, rate_hz=rate_hz)
        flow.set_symbols(frozenset(symbols))
        return screen, flow

    async def dead(self) -> dict[str, str]:
        """Return the dead letters: payload and reason."""
        await settle()
        state = self.server.stream(subjects.DEADLETTER)
        messages = [message for kept in state.by_subject.values() for message in kept]
        return {message.data.decode(): message.headers["Fanfare-Reason"] for message in messages}

    def count(self, name: str, **labels: str) -> float:
        """Return the value of a counter."""
        return self.metrics.registry.get_sample_value(f"fanfare_{name}_total", labels) or 0.0


async def settle() -> None:
    """Let what was sent arrive, and what that started begin and end."""
    for _ in range(20):
        await asyncio.sleep(0)
