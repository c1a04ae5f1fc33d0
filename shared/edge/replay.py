"""Replay: from a client's position to a topic's cursor, all or nothing, without a seam to what comes live.

Complete, or announced: a replay that cannot prove that nothing is missing says so with a Gap, and the client loads a
snapshot instead. It never skips in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from shared.broker.port import Broker, Message
from shared.contracts.cursor import Position
from shared.edge.event import Event
from shared.edge.listener import Listener
from shared.edge.topic import Topic
from shared.telemetry.metrics import Metrics

REPLAY_PAGE = 200
MAX_REPLAY = 1_000

Encode = Callable[[Topic, Message], Event | None]


class GapReason(StrEnum):
    """Why a replay was not complete."""

    EPOCH = "epoch_changed"
    UNKNOWN = "unknown_position"
    EXPIRED = "expired"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of `subject` after `start` may be missing; what follows `end` is delivered."""

    subject: str
    start: int
    end: int
    reason: GapReason

    @property
    def starts_over(self) -> bool:
        """Whether the client's position means nothing any more: it must load everything anew (`resync`)."""
        return self.reason in (GapReason.EPOCH, GapReason.UNKNOWN)


class Replayer:
    """Reads and delivers replays."""

    def __init__(self, broker: Broker, metrics: Metrics) -> None:
        self._broker = broker
        self._outcomes = metrics.counter("replays", "Resumes by outcome", ["outcome"])
        self._replayed = metrics.counter("replayed_events", "Events delivered from history at a resume")

    async def replay(self, topic: Topic, listener: Listener, after: Position, encode: Encode) -> Gap | None:
        """Deliver everything after `after` up to the topic's cursor; nothing awaits between its end and the return.

        So the caller can add the listener to the topic at once, and no message falls in between.
        """
        if after.epoch != topic.epoch:
            return self._gap(topic, after.seq, GapReason.EPOCH)
        if after.seq > topic.seq:
            return self._gap(topic, after.seq, GapReason.UNKNOWN)
        reached = after.seq
        if topic.recent(reached) is None and not await self._complete_since(topic, reached):
            return self._gap(topic, reached, GapReason.EXPIRED)
        # Live messages push events out of the ring while we read: read on until the ring takes over.
        while (recent := topic.recent(reached)) is None:
            history = await self._collect(topic, reached)
            if history is None:
                return self._gap(topic, reached, GapReason.TOO_MANY)
            messages, reached = history
            await self._deliver(topic, listener, messages, encode)
        for event in recent:
            listener.deliver(event)
        self._replayed.inc(len(recent))
        self._outcomes.labels("complete").inc()
        return None

    async def _collect(self, topic: Topic, after_seq: int) -> tuple[list[Message], int] | None:
        """Read until the ring takes over; None if that is too much: nothing of it has been delivered then."""
        messages: list[Message] = []
        while topic.recent(after_seq) is None:
            page = await self._broker.read_after(topic.stream, topic.subject, after_seq, limit=REPLAY_PAGE)
            messages += page.messages
            if len(messages) > MAX_REPLAY:
                return None
            if page.messages:
                after_seq = page.messages[-1].seq
            elif not page.more:
                after_seq = await self._caught_up(topic, after_seq)
        return messages, after_seq

    async def _deliver(self, topic: Topic, listener: Listener, messages: list[Message], encode: Encode) -> None:
        for number, message in enumerate(messages, 1):
            if (event := encode(topic, message)) is not None:
                listener.deliver(event)
                self._replayed.inc()
            if number % REPLAY_PAGE == 0:
                await listener.writable()
                await asyncio.sleep(0)

    async def _caught_up(self, topic: Topic, after_seq: int) -> int:
        """A replica had nothing more, yet the ring begins later: it is behind, or there is nothing in between."""
        await asyncio.sleep(0.02)
        last = await self._broker.last_seq(topic.stream, topic.subject)
        return topic.seq if last <= after_seq else after_seq

    async def _complete_since(self, topic: Topic, seq: int) -> bool:
        """Whether the stream still holds all that came after `seq` on this subject."""
        state = await self._broker.state(topic.stream)
        if state.first_seq <= seq + 1:
            return True
        first = await self._broker.read_after(topic.stream, topic.subject, seq - 1, limit=1)
        if first.messages and first.messages[0].seq == seq:
            return True
        oldest = await self._broker.read_after(topic.stream, topic.subject, 0, limit=1)
        return bool(oldest.messages) and oldest.messages[0].seq <= seq

    def _gap(self, topic: Topic, start: int, reason: GapReason) -> Gap:
        self._outcomes.labels(reason.value).inc()
        return Gap(topic.subject, start, topic.seq, reason)
