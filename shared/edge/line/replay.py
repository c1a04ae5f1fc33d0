"""Replay on a line: from a client's place to the line's cursor, its subjects together in the stream's order.

The place is one number for all subjects, so what is delivered must be in order over all of them: a client that is cut
off in the middle resumes from there. Complete, or announced, as `replay.py` has it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Protocol

from shared.broker.port import Broker, Message
from shared.contracts.cursor import Position
from shared.edge.continuity.past import CAUGHT_UP_POLL_S, MAX_REPLAY, RING_STEP, read_past
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.delivery.listener import Listener, Outlet
from shared.edge.line.line import Kept, Line
from shared.edge.pauses import Pauses
from shared.telemetry.metrics import Metrics


class LineListener(Listener, Protocol):
    """A listener that can also be told what it has missed."""

    @property
    def outlet(self) -> Outlet:
        """Where events go once it is up to date: itself, or the connection to which it would hand them as they are."""

    def missed(self, gaps: Sequence[Gap], place: Position) -> None:
        """Announce all of `gaps`; everything else up to `place` has been delivered."""


class LineReplayer:
    """Reads and delivers replays."""

    def __init__(self, broker: Broker, metrics: Metrics, line: Line, event_of: Callable[[Kept], Event | None]) -> None:
        self._broker, self._line, self._event_of = broker, line, event_of
        self._outcomes = metrics.counter("replays", "Resumes by outcome", ["outcome"])
        self._replayed = metrics.counter("replayed_events", "Events delivered from history at a resume")

    async def replay(self, listener: LineListener, subjects: Collection[str], after: Position) -> None:
        """Deliver or announce everything after `after`; nothing awaits between its end and the return.

        So the caller can let the listener join at once, and no message falls in between.
        """
        reason = await self._obstacle(after)
        if reason is not None:
            self._start_over(listener, subjects, after, reason)
        elif not await self._bring_up(listener, subjects, after):
            self._start_over(listener, subjects, after, GapReason.EPOCH)

    async def _obstacle(self, after: Position) -> GapReason | None:
        """Return why nothing can be said about what came after a place; None if something can."""
        if after.epoch != self._line.epoch:
            return GapReason.EPOCH
        if after.seq <= self._line.seq:
            return None
        # The client comes from an edge that was faster, and must not get twice what it has; or it made the place up.
        if after.seq > (await self._broker.state(self._line.stream)).last_seq:
            return GapReason.UNKNOWN
        while self._line.seq < after.seq and self._line.epoch == after.epoch:  # noqa: ASYNC110  # rare and short
            await asyncio.sleep(CAUGHT_UP_POLL_S)
        return None

    async def _bring_up(self, listener: LineListener, subjects: Collection[str], after: Position) -> bool:
        """Deliver until what is left fits one step, while more comes live; False if the stream was made anew."""
        reached = after.seq
        while self._line.epoch == after.epoch:
            recent = self._line.recent(reached)
            if recent is None:
                reached = await self._from_stream(listener, subjects, Position(after.epoch, reached))
                continue
            mine = [kept for kept in recent if kept.message.subject in subjects]
            if len(mine) > RING_STEP:
                await self._deliver(listener, mine[:-RING_STEP])
                reached = mine[-RING_STEP - 1].message.seq
            else:
                for kept in mine:
                    self._hand_over(listener, kept)
                self._outcomes.labels("complete").inc()
                return True
        return False

    # -- from the stream ----------------------------------------------------------------------------------------------

    async def _from_stream(self, listener: LineListener, subjects: Collection[str], after: Position) -> int:
        """Deliver what the stream holds after a place, up to where the line is now, and return where that is."""
        stream, end = self._line.stream, self._line.seq
        found: list[Message] = []
        gaps: list[Gap] = []
        for subject in subjects:
            past = await read_past(self._broker, stream, subject, after.seq, end, limit=MAX_REPLAY - len(found))
            if isinstance(past, GapReason):
                gaps.append(Gap(subject, after.epoch, after.seq, end, past))
                self._outcomes.labels(past.value).inc()
            else:
                found += past
        if self._line.epoch != after.epoch:
            return after.seq
        found.sort(key=lambda message: message.seq)
        if gaps:
            # Before all that would move the client's place beyond them.
            listener.missed(gaps, Position(after.epoch, found[0].seq - 1 if found else end))
        await self._deliver(listener, map(Kept, found))
        return end

    # -- private ------------------------------------------------------------------------------------------------------

    async def _deliver(self, listener: LineListener, found: Iterable[Kept]) -> None:
        """Hand over all of `found`; no more once the stream was made anew, since its places are others then."""
        epoch, pauses = self._line.epoch, Pauses()
        for kept in found:
            self._hand_over(listener, kept)
            await listener.writable()
            await pauses.when_due()
            if self._line.epoch != epoch:
                return

    def _hand_over(self, listener: LineListener, kept: Kept) -> None:
        if (event := self._event_of(kept)) is not None:
            listener.deliver(event)
            self._replayed.inc()

    def _start_over(
        self, listener: LineListener, subjects: Collection[str], after: Position, reason: GapReason
    ) -> None:
        self._outcomes.labels(reason.value).inc()
        place = self._line.position
        listener.missed([Gap(subject, place.epoch, after.seq, place.seq, reason) for subject in subjects], place)
