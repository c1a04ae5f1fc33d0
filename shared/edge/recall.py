"""Recall: what a topic's ring does not hold, read from the stream once for all who ask for it at a time.

The clients of an edge that died come to another within seconds, with the same few cursors, and nobody has listened
there before: its ring begins now. So the first of them reads what all have missed, the others wait for that, and the
ring takes it in for those who come after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from shared.broker.port import Broker, Message
from shared.edge.event import Event
from shared.edge.gap import GapReason
from shared.edge.topic import Topic
from shared.tasks import TaskKeeper

READ_PAGE = 200
CAUGHT_UP_POLL_S = 0.02
MAX_REPLAY = 1_000
"""A resume that has this many to read, or more, is a gap. No stream keeps fewer of one subject (`max_per_subject`), so
a subject that its own limit has trimmed behind a client's back is a gap too, and never a hole."""

Encode = Callable[[Topic, Message], Event | None]


@dataclass(frozen=True, slots=True)
class Past:
    """All valid events of a topic after the place that was asked for, up to `end_seq`."""

    events: list[Event]
    end_seq: int


class Recall:
    """Reads the past of topics."""

    def __init__(self, broker: Broker, tasks: TaskKeeper) -> None:
        self._broker, self._tasks = broker, tasks
        self._reading: dict[tuple[Topic, str, int], asyncio.Task[Past | GapReason]] = {}

    async def since(self, topic: Topic, after_seq: int, encode: Encode) -> Past | GapReason:
        """Return what came after `after_seq`, at least up to where the ring begins; or why that cannot be had.

        Raises:
            Unavailable: the stream cannot be read.
        """
        key = (topic, topic.epoch, after_seq)
        if (reading := self._reading.get(key)) is None:
            reading = self._tasks.spawn(self._read(topic, after_seq, encode), f"recall {topic.subject}")
            self._reading[key] = reading
            reading.add_done_callback(lambda _done: self._reading.pop(key))
        return await asyncio.shield(reading)  # whoever began it may go; the others wait still

    async def _read(self, topic: Topic, after_seq: int, encode: Encode) -> Past | GapReason:
        epoch = topic.epoch
        past = await self._collect(topic, after_seq, encode)
        if isinstance(past, GapReason):
            return past
        # Asked after the reading, so that what expires meanwhile is noticed too.
        if not await self._complete_since(topic, after_seq):
            return GapReason.EXPIRED
        if topic.epoch != epoch:
            return GapReason.EPOCH
        topic.recall(past.events, after_seq, past.end_seq)
        return past

    async def _collect(self, topic: Topic, after_seq: int, encode: Encode) -> Past | GapReason:
        """Read until the ring takes over."""
        epoch, reached, count = topic.epoch, after_seq, 0
        events: list[Event] = []
        while reached < topic.floor:
            page = await self._broker.read_after(topic.stream, topic.subject, reached, limit=READ_PAGE)
            if topic.epoch != epoch:
                return GapReason.EPOCH
            # What the stream has beyond the topic is still on its way here, and comes to all listeners when it arrives.
            messages = [message for message in page.messages if message.seq <= topic.seq]
            events += [event for message in messages if (event := encode(topic, message)) is not None]
            count += len(messages)
            if page.messages:
                reached = min(page.messages[-1].seq, topic.seq)
            elif not page.more:
                reached = await self._caught_up(topic, reached)
            if count + len(topic.recent(reached) or ()) >= MAX_REPLAY:
                return GapReason.TOO_MANY
        return Past(events, reached)

    async def _caught_up(self, topic: Topic, after_seq: int) -> int:
        """A replica had nothing more, yet the ring begins later: it is behind, or there is nothing in between."""
        await asyncio.sleep(CAUGHT_UP_POLL_S)
        last = await self._broker.last_seq(topic.stream, topic.subject)
        return topic.seq if last <= after_seq else after_seq

    async def _complete_since(self, topic: Topic, seq: int) -> bool:
        """Whether the stream still holds all that came after `seq` on this subject, as far as age and size go."""
        state = await self._broker.state(topic.stream)
        if state.first_seq <= seq + 1:
            return True
        oldest = await self._broker.read_after(topic.stream, topic.subject, 0, limit=1)
        return bool(oldest.messages) and oldest.messages[0].seq <= seq
