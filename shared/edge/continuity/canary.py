"""The canary: an edge that does not hear itself through the broker is deaf to everybody.

Once a second the edge has the broker store a word of its own, and listens for it as a client does: by the live repeat,
its one link, the hub and the fan-out. A link that answers pings can still be deaf: a server may have lost an interest,
or a cluster a route. Deaf for DEAF_AFTER_S, the edge makes its link anew, with another server where there is one; deaf
for as long again, it is not ready. It tries again, ever more rarely: a new link costs half a second. Its clients go on
meanwhile: the hub reads what it does not hear (ADR 0003).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn, Protocol

from pydantic_core import to_json

from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s, now_ms
from shared.contracts.cursor import Position
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap
from shared.errors import FanfareError, Unavailable
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

EVERY_S = 1.0
DEAF_AFTER_S = 5.0
UNREADY_AFTER_S = 2 * DEAF_AFTER_S
MAX_PATIENCE_S = 60.0


def encode_canary(message: Message, _epoch: str) -> Event:
    """Return the event of a canary; it reaches no client."""
    return Event("canary", message.data)


class Ears(Protocol):
    """What a canary is heard by: the hub or the line hub, as clients have it."""

    async def hear(self, subject: str, canary: Canary) -> None:
        """Hand `canary` what comes on `subject` from now on; nothing changes if that is so already."""


class Canary:
    """One edge's word to itself. It is a listener like any client's session."""

    user_id = ""

    def __init__(
        self, broker: Broker, ears: Ears, subject: str, service: str, metrics: Metrics, clock: Clock = monotonic_s
    ) -> None:
        self._broker, self._ears, self._subject, self._clock = broker, ears, subject, clock
        self._heard_at_s = self._renewed_at_s = clock()
        self._patience_s = DEAF_AFTER_S
        self._renewals = metrics.counter("edge_links_renewed", "Links to NATS made anew because the edge was deaf")
        deaf = metrics.gauge("edge_deaf_seconds", "For how long the edge has not heard itself", ["service"])
        deaf.labels(service).set_function(self.deaf_s)
        self._log = get_logger()

    def deaf_s(self) -> float:
        """Return for how long it has heard nothing of itself; up to EVERY_S is nothing to worry about."""
        return self._clock() - self._heard_at_s

    async def ready(self) -> None:
        """Pass while the edge hears itself: a readiness check.

        Raises:
            Unavailable: it has been deaf for UNREADY_AFTER_S.
        """
        if self.deaf_s() > UNREADY_AFTER_S:
            raise Unavailable(f"this edge has not heard itself for {self.deaf_s():.0f} s")

    async def run(self) -> NoReturn:
        """Speak and listen for ever; the owner keeps the task."""
        while True:
            try:
                await self._speak()
            except FanfareError as error:
                self._log.warning("canary_failed", reason=str(error))
            if min(self.deaf_s(), self._clock() - self._renewed_at_s) > self._patience_s:
                await self._renew_link()
            await asyncio.sleep(EVERY_S)

    @property
    def outlet(self) -> Canary:
        """It hears by itself."""
        return self

    def deliver(self, _event: Event) -> None:
        """Hear it."""
        self._heard_at_s, self._patience_s = self._clock(), DEAF_AFTER_S

    async def writable(self) -> None:
        """Take as much as there is."""

    def missed(self, _gaps: Sequence[Gap], _place: Position) -> None:
        """Nothing: what was not heard in time says all."""

    # -- private ------------------------------------------------------------------------------------------------------

    async def _speak(self) -> None:
        await self._ears.hear(self._subject, self)
        await self._broker.publish(self._subject, to_json({"timestamp": now_ms()}))

    async def _renew_link(self) -> None:
        self._log.error("edge_deaf", seconds=round(self.deaf_s(), 1))
        self._renewals.inc()
        self._renewed_at_s, self._patience_s = self._clock(), min(2 * self._patience_s, MAX_PATIENCE_S)
        await self._broker.renew()
