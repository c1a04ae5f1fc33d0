"""Who lives: a lease for each edge, which it renews; the lease of one that has died lapses (ADR 0008)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from shared.broker.port import Broker, Message
from shared.clock import Clock
from shared.contracts import subjects
from shared.edge.lately import Lately
from shared.errors import FanfareError
from shared.telemetry.logs import get_logger

LEASE_TTL_S = 15
LEASE_RENEW_S = 5.0
LINGER_S = 5
"""How long an edge that has stopped still counts, for those who are on their way to another."""

EDGE_LEASE = "edge"


class Living:
    """The leases of all edges, as far as this one has heard and read of them.

    Args:
        on_came: called with an edge that has taken a lease.
        on_lost: called with an edge whose lease has lapsed, or was given up.
        on_lapsed: called when this edge's own had lapsed, and it has one again.

    Attributes:
        edges: those that hold a lease; this one since `start`, whatever becomes of its own.
    """

    def __init__(
        self,
        broker: Broker,
        edge: str,
        *,
        on_came: Callable[[str], None],
        on_lost: Callable[[str], None],
        on_lapsed: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._broker, self._edge, self._clock = broker, edge, clock
        self._on_came, self._on_lost, self._on_lapsed = on_came, on_lost, on_lapsed
        self.edges: set[str] = set()
        self._lately = Lately(clock)
        self._renewed_at_s = self._trusted_from_s = 0.0
        self._log = get_logger()

    async def start(self) -> None:
        """Take the lease, and follow everyone's."""
        self._broker.on_disconnect(self._lately.note_break)
        await self.renew()
        self.edges.add(self._edge)
        await self._broker.subscribe(subjects.bucket_changes(subjects.LEASES, EDGE_LEASE), self._changed)
        await self.read()

    async def give_up(self, *, linger: bool) -> None:
        """Live no more: at once, or in LINGER_S."""
        try:
            if linger:
                await self._broker.put(subjects.LEASES, EDGE_LEASE, self._edge, value=b"{}", ttl_s=LINGER_S)
            else:
                await self._broker.delete(subjects.LEASES, EDGE_LEASE, self._edge)
        except FanfareError as error:
            self._log.warning("lease_not_given_up", reason=str(error))

    async def renew_for_ever(self) -> None:
        """Keep the lease; the owner keeps the task."""
        while True:
            await asyncio.sleep(LEASE_RENEW_S * random.uniform(0.8, 1.0))
            try:
                await self.renew()
            except FanfareError as error:
                self._log.warning("lease_not_renewed", reason=str(error))

    async def renew(self) -> None:
        """Hold the lease for LEASE_TTL_S from now. Raises Unavailable."""
        await self._broker.put(subjects.LEASES, EDGE_LEASE, self._edge, value=b"{}", ttl_s=LEASE_TTL_S)
        lapsed = self._clock() - self._renewed_at_s > LEASE_TTL_S
        if lapsed and self._renewed_at_s:
            self._trusted_from_s = self._clock() + LEASE_TTL_S
        self._renewed_at_s = self._clock()
        if lapsed:
            self._on_lapsed()

    async def read(self) -> None:
        """Read all leases: changes are heard at most once. Raises Unavailable."""
        self._lately.forget_old()
        pattern, reading = subjects.bucket_keys(subjects.LEASES, EDGE_LEASE), self._lately.begin_read()
        keys = await self._broker.read_last(subjects.bucket_stream(subjects.LEASES), [pattern])
        read = {subjects.tokens_after(key.subject, 3)[0] for key in keys if not key.gone} | {self._edge}
        for edge in self.edges ^ read:
            if edge not in read and not self._lapses_prove_death():
                continue
            if not reading.is_outdated(edge, found=edge in read):
                self._note(edge, lives=edge in read)

    # -- private ------------------------------------------------------------------------------------------------------

    def _changed(self, message: Message) -> None:
        edge = subjects.tokens_after(message.subject, 4)[0]
        if message.gone and not self._lapses_prove_death():
            return  # what is read later says it, if it is so
        self._lately.note(edge)
        if edge != self._edge:
            self._note(edge, lives=not message.gone)

    def _lapses_prove_death(self) -> bool:
        """Whether an edge without a lease is no more; not where this edge cannot renew its own, or could not lately.

        A cluster without a majority takes no lease, and lets all lapse as soon as it has one again.
        """
        now_s = self._clock()
        return now_s - self._renewed_at_s <= LEASE_TTL_S - LEASE_RENEW_S and now_s >= self._trusted_from_s

    def _note(self, edge: str, *, lives: bool) -> None:
        if lives == (edge in self.edges):
            return
        if lives:
            self.edges.add(edge)
            self._on_came(edge)
        else:
            self.edges.discard(edge)
            self._on_lost(edge)
