"""Replay: from a client's position to a topic's cursor, all or nothing, without a seam to what comes live.

Complete, or announced: a replay that cannot prove that nothing is missing says so with a Gap, and the client loads a
snapshot instead. It never skips in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from shared.broker.port import Broker
from shared.contracts.cursor import Position
from shared.edge.continuity.past import CAUGHT_UP_POLL_S, RING_STEP
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.delivery.listener import Listener, Outlet
from shared.edge.pauses import Pauses
from shared.edge.topics.recall import Encode, Recall
from shared.edge.topics.topic import Topic
from shared.edge.wire.volley import deliver_to_each
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

ASKED_EVERY = 100
PORTION_BYTES = 16 * 1024
"""Of what a client has missed, as much is one write; a client that is slow is asked before each whether it has room."""


class Recipient(NamedTuple):
    """Whom a replay is for.

    Attributes:
        outlet: where its events go.
        stays: whether it still wants them, and may have them.
    """

    listener: Listener
    outlet: Outlet
    stays: Callable[[], bool]


class Replayer:
    """Reads and delivers replays."""

    def __init__(self, broker: Broker, metrics: Metrics, tasks: TaskKeeper) -> None:
        self._broker, self._recall = broker, Recall(broker, tasks)
        self._outcomes = metrics.counter("replays", "Resumes by outcome", ["outcome"])
        self._complete = self._outcomes.labels("complete")
        self._replayed = metrics.counter("replayed_events", "Events delivered from history at a resume")

    async def replay(self, topic: Topic, to: Recipient, after: Position, encode: Encode) -> Gap | None:
        """Deliver everything after `after` up to the topic's cursor; nothing awaits between its end and the return.

        So the caller can add the listener to the topic at once, and no message falls in between. Whoever leaves
        meanwhile gets no more: they may have been put out of a private room.
        """
        if after == topic.position:  # nearly everybody: who comes is told where the topic is, and attaches there
            self._complete.inc()
            return None
        reason = await self._obstacle(topic, to, after)
        if reason is not None:
            return self._gap(topic, after.seq, reason)
        return await self._bring_up(topic, to, after, encode)

    async def _obstacle(self, topic: Topic, to: Recipient, after: Position) -> GapReason | None:
        """Return why the stream cannot tell what came after a place; None if it can."""
        if after.epoch != topic.epoch:
            return GapReason.EPOCH
        if after.seq > topic.seq and not await self._was_given_out(topic, to, after):
            return GapReason.UNKNOWN
        return None

    async def _bring_up(self, topic: Topic, to: Recipient, after: Position, encode: Encode) -> Gap | None:
        """Deliver until what is left fits one step; what comes live meanwhile pushes events out of the ring."""
        reached = after.seq
        while topic.epoch == after.epoch:
            if not to.stays():
                return None
            recent = topic.recent(reached)
            if recent is None:
                past = await self._recall.since(topic, reached, encode)
                if isinstance(past, GapReason):
                    return self._gap(topic, reached, past)
                await self._deliver(to, past.events)
                reached = past.end_seq
            elif len(recent) > RING_STEP:
                await self._deliver(to, recent[:-RING_STEP])
                reached = recent[-RING_STEP - 1].seq
            else:
                for portion in _portions(recent):
                    self._hand_over(to.outlet, portion)
                self._complete.inc()
                return None
        return self._gap(topic, reached, GapReason.EPOCH)

    async def _deliver(self, to: Recipient, events: Sequence[Event]) -> None:
        pauses = Pauses()
        for portion in _portions(events):
            if not to.stays():
                return
            self._hand_over(to.outlet, portion)
            await to.listener.writable()
            await pauses.when_due()

    def _hand_over(self, outlet: Outlet, events: Sequence[Event]) -> None:
        deliver_to_each((outlet,), events)
        self._replayed.inc(len(events))

    async def _was_given_out(self, topic: Topic, to: Recipient, place: Position) -> bool:
        """Whether `place` lies in the stream, ahead of this topic: the client comes from an edge that was faster.

        Returns once this topic has emitted what the client has seen already, so that it is not delivered twice.
        """
        if place.seq > (await self._broker.state(topic.stream)).last_seq:
            return False
        polls = 0
        while topic.epoch == place.epoch and to.stays():
            if polls % ASKED_EVERY == 0:  # again, since it may be purged meanwhile
                seen = min(place.seq, await self._broker.last_seq(topic.stream, topic.subject))
            if topic.seq >= seen:
                break
            await asyncio.sleep(CAUGHT_UP_POLL_S)  # rare and short: no waiters for it
            polls += 1
        return topic.epoch == place.epoch

    def _gap(self, topic: Topic, start: int, reason: GapReason) -> Gap:
        self._outcomes.labels(reason.value).inc()
        return Gap(topic.subject, topic.epoch, start, topic.seq, reason)


def _portions(events: Sequence[Event]) -> Iterator[list[Event]]:
    """Split `events`, in order, into what is at most PORTION_BYTES together, or a single event."""
    portion: list[Event] = []
    portion_bytes = 0
    for event in events:
        if portion and portion_bytes + len(event.body) > PORTION_BYTES:
            yield portion
            portion, portion_bytes = [], 0
        portion.append(event)
        portion_bytes += len(event.body)
    if portion:
        yield portion
