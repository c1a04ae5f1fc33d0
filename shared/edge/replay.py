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
RING_STEP = 4
CAUGHT_UP_POLL_S = 0.02
MAX_REPLAY = 1_000
"""A resume that has this many to read, or more, is a gap. No stream keeps fewer of one subject (`max_per_subject`), so
a subject that its own limit has trimmed behind a client's back is a gap too, and never a hole."""

Encode = Callable[[Topic, Message], Event | None]


class GapReason(StrEnum):
    """Why a replay was not complete."""

    EPOCH = "epoch_changed"
    UNKNOWN = "unknown_position"
    EXPIRED = "expired"
    TOO_MANY = "too_many"


@dataclass(frozen=True, slots=True)
class Gap:
    """Messages of `subject` after `start` may be missing; what follows `end` of `epoch` is delivered."""

    subject: str
    epoch: str
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
        self._complete = self._outcomes.labels("complete")
        self._replayed = metrics.counter("replayed_events", "Events delivered from history at a resume")

    async def replay(self, topic: Topic, listener: Listener, after: Position, encode: Encode) -> Gap | None:
        """Deliver everything after `after` up to the topic's cursor; nothing awaits between its end and the return.

        So the caller can add the listener to the topic at once, and no message falls in between.
        """
        if after == topic.position:  # nearly everybody: who comes is told where the topic is, and attaches there
            self._complete.inc()
            return None
        reason = await self._obstacle(topic, after)
        if reason is not None:
            return self._gap(topic, after.seq, reason)
        return await self._bring_up(topic, listener, after, encode)

    async def _obstacle(self, topic: Topic, after: Position) -> GapReason | None:
        """Return why the stream cannot tell what came after a place; None if it can."""
        if after.epoch != topic.epoch:
            return GapReason.EPOCH
        if after.seq > topic.seq and not await self._was_given_out(topic, after):
            return GapReason.UNKNOWN
        if topic.recent(after.seq) is None and not await self._complete_since(topic, after.seq):
            return GapReason.EXPIRED
        return None

    async def _bring_up(self, topic: Topic, listener: Listener, after: Position, encode: Encode) -> Gap | None:
        """Deliver until what is left fits one step; what comes live meanwhile pushes events out of the ring."""
        reached = after.seq
        while topic.epoch == after.epoch:
            recent = topic.recent(reached)
            if recent is None:
                history = await self._collect(topic, reached)
                if history is None:
                    return self._gap(topic, reached, GapReason.TOO_MANY)
                messages, reached = history
                await self._deliver(topic, listener, messages, encode)
            elif len(recent) > RING_STEP:
                for event in recent[:-RING_STEP]:
                    self._hand_over(listener, event)
                    await listener.writable()
                    reached = event.seq
            else:
                for event in recent:
                    self._hand_over(listener, event)
                self._complete.inc()
                return None
        return self._gap(topic, reached, GapReason.EPOCH)

    async def _collect(self, topic: Topic, after_seq: int) -> tuple[list[Message], int] | None:
        """Read until the ring takes over; None if that is too much: nothing of it has been delivered then."""
        messages: list[Message] = []
        while (recent := topic.recent(after_seq)) is None:
            page = await self._broker.read_after(topic.stream, topic.subject, after_seq, limit=REPLAY_PAGE)
            # What the stream has beyond the topic is still on its way here, and comes to all listeners when it arrives.
            messages += [message for message in page.messages if message.seq <= topic.seq]
            if len(messages) >= MAX_REPLAY:
                return None
            if page.messages:
                after_seq = min(page.messages[-1].seq, topic.seq)
            elif not page.more:
                after_seq = await self._caught_up(topic, after_seq)
        return None if len(messages) + len(recent) >= MAX_REPLAY else (messages, after_seq)

    async def _deliver(self, topic: Topic, listener: Listener, messages: list[Message], encode: Encode) -> None:
        for number, message in enumerate(messages, 1):
            if (event := encode(topic, message)) is not None:
                self._hand_over(listener, event)
                await listener.writable()
            if number % REPLAY_PAGE == 0:
                await asyncio.sleep(0)

    def _hand_over(self, listener: Listener, event: Event) -> None:
        listener.deliver(event)
        self._replayed.inc()

    async def _caught_up(self, topic: Topic, after_seq: int) -> int:
        """A replica had nothing more, yet the ring begins later: it is behind, or there is nothing in between."""
        await asyncio.sleep(CAUGHT_UP_POLL_S)
        last = await self._broker.last_seq(topic.stream, topic.subject)
        return topic.seq if last <= after_seq else after_seq

    async def _was_given_out(self, topic: Topic, place: Position) -> bool:
        """Whether `place` lies in the stream, ahead of this topic: the client comes from an edge that was faster.

        Returns once this topic has emitted what the client has seen already, so that it is not delivered twice.
        """
        if place.seq > (await self._broker.state(topic.stream)).last_seq:
            return False
        seen = min(place.seq, await self._broker.last_seq(topic.stream, topic.subject))
        while topic.seq < seen and topic.epoch == place.epoch:  # noqa: ASYNC110  # rare and short: no waiters for it
            await asyncio.sleep(CAUGHT_UP_POLL_S)
        return topic.epoch == place.epoch

    async def _complete_since(self, topic: Topic, seq: int) -> bool:
        """Whether the stream still holds all that came after `seq` on this subject, as far as age and size go."""
        state = await self._broker.state(topic.stream)
        if state.first_seq <= seq + 1:
            return True
        oldest = await self._broker.read_after(topic.stream, topic.subject, 0, limit=1)
        return bool(oldest.messages) and oldest.messages[0].seq <= seq

    def _gap(self, topic: Topic, start: int, reason: GapReason) -> Gap:
        self._outcomes.labels(reason.value).inc()
        return Gap(topic.subject, topic.epoch, start, topic.seq, reason)
