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
from shared.edge.continuity.past import MAX_REPLAY, read_past
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import GapReason
from shared.edge.pauses import Pauses
from shared.edge.topics.topic import Topic
from shared.tasks import TaskKeeper

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
        epoch, end_seq = topic.epoch, topic.seq
        found = await read_past(self._broker, topic.stream, topic.subject, after_seq, end_seq, limit=MAX_REPLAY)
        if topic.epoch != epoch:
            return GapReason.EPOCH
        if isinstance(found, GapReason):
            return found
        events, pauses = list[Event](), Pauses()
        for message in found:
            if (event := encode(topic, message)) is not None:
                events.append(event)
            await pauses.when_due()
            if topic.epoch != epoch:
                return GapReason.EPOCH
        topic.recall(events, after_seq, end_seq)
        return Past(events, end_seq)
