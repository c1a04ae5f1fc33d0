"""The filler: reads from the stream what a chain lacks, until nothing waits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from shared.broker.port import Broker, Message, Page
from shared.edge.continuity.chain import Chain
from shared.edge.continuity.past import is_complete
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

FILL_PAGE = 200
FILL_BACKOFF_S = (0.02, 0.05, 0.1, 0.25, 0.5)

Emit = Callable[[list[Message]], None]
"""Takes what has come into order."""

Lose = Callable[[int], None]
"""Takes up to where the stream has dropped something behind the chain's cursor, and moves the chain there."""


class Filler:
    """One fill for a chain at a time."""

    def __init__(self, broker: Broker, metrics: Metrics, tasks: TaskKeeper) -> None:
        self._broker, self._tasks = broker, tasks
        self._log = get_logger()
        self._fills = metrics.counter("topic_fills", "Gaps filled from a stream", ["reason"])

    def start(self, chain: Chain, emit: Emit, reason: str, *, lose: Lose | None = None) -> None:
        """Begin to fill `chain`; what comes into order goes to `emit`.

        Args:
            lose: called before what follows a loss is emitted; None for a chain that sees by itself what is missing.
        """
        chain.filling = True
        self._fills.labels(reason).inc()
        self._tasks.spawn(self._fill(chain, emit, lose), f"fill {chain.subject}")

    async def _fill(self, chain: Chain, emit: Emit, lose: Lose | None) -> None:
        """Read until nothing waits; a replica that is behind is asked again, and its leader whether it is."""
        try:
            for attempt in range(1_000_000):
                page = await self._try_read(chain, lose)
                if page is not None:
                    emit(chain.fill(page))
                    if not page.more and not chain.gap_remains:
                        return
                    if page.messages:
                        continue
                    if await self._has_gone(chain):
                        if lose is not None:
                            lose(chain.first_waiting - 1)
                        emit(chain.skip())
                        continue
                await asyncio.sleep(FILL_BACKOFF_S[min(attempt, len(FILL_BACKOFF_S) - 1)] * random.uniform(0.8, 1.2))
        finally:
            chain.filling = False

    async def _try_read(self, chain: Chain, lose: Lose | None) -> Page | None:
        epoch, after_seq, lost_seq = chain.epoch, chain.seq, 0
        try:
            page = await self._broker.read_after(chain.stream, chain.subject, after_seq, limit=FILL_PAGE)
            # Asked after the reading, so that what is dropped meanwhile is noticed too.
            if lose and not await is_complete(self._broker, chain.stream, chain.subject, after_seq):
                lost_seq = await self._lost_seq(chain, page)
        except FanfareError as error:
            self._log.warning("fill_failed", subject=chain.subject, reason=str(error))
            return None
        if chain.epoch != epoch:  # what was read of a stream's earlier life has numbers that mean nothing in this one
            return None
        if lose and lost_seq > after_seq:
            lose(lost_seq)
        return page

    async def _lost_seq(self, chain: Chain, page: Page) -> int:
        """Return up to where something is missing: what is kept or heard next, or the stream's end if nothing is."""
        following = page.messages[0].seq if page.messages else chain.first_waiting
        return following - 1 if following else (await self._broker.state(chain.stream)).last_seq

    async def _has_gone(self, chain: Chain) -> bool:
        """Whether the stream has nothing after the chain any more, not even what waits: it was purged or is too old."""
        try:
            return await self._broker.last_seq(chain.stream, chain.subject) <= chain.seq
        except FanfareError:
            return False
