"""The comparison of topics with their streams: what came and was not heard, and what was dropped before it was heard.

A message whose live repeat was lost shows up in the next one's chain; if nothing follows, only here. One that was lost
and then purged shows up nowhere: its subject looks as if nothing had come. So a topic is `unsure` from the moment that
its link was lost until the stream's last message of it is one that was seen, or the stream is seen to be whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

from shared.broker.port import Broker
from shared.contracts import subjects
from shared.edge.continuity.past import is_whole
from shared.edge.continuity.reconciler import RECONCILE_GRACE_S
from shared.edge.topics.topic import Topic

PAGE = 500


class Comparison:
    """Compares topics.

    Args:
        fill: reads what a topic lacks.
        lose: takes a topic, and up to where something of it is missing for good.
    """

    def __init__(self, broker: Broker, *, fill: Callable[[Topic], None], lose: Callable[[Topic, int], None]) -> None:
        self._broker, self._fill, self._lose = broker, fill, lose
        self._outages = 0

    def doubt(self, topics: Iterable[Topic]) -> None:
        """Note that messages of these may be missed from now on, and dropped before anybody asks for them."""
        self._outages += 1
        for topic in topics:
            topic.unsure = True

    async def compare(self, topics: Sequence[Topic]) -> None:
        """Compare with what the streams hold; raises Unavailable."""
        for start in range(0, len(topics), PAGE):
            by_stream: dict[str, list[Topic]] = {}
            for topic in topics[start : start + PAGE]:
                by_stream.setdefault(topic.stream, []).append(topic)
            for stream, page in by_stream.items():
                await self._compare_page(stream, page)

    async def _compare_page(self, stream: str, topics: list[Topic]) -> None:
        outages = self._outages
        last = await self._broker.read_last(stream, [topic.subject for topic in topics])
        last_seqs = {message.subject: message.seq for message in last}
        await self._look_for_losses(
            stream, [topic for topic in topics if topic.unsure and topic.subject not in last_seqs]
        )
        behind = {topic: topic.seq for topic in topics if topic.seq < last_seqs.get(topic.subject, 0)}
        if self._outages == outages:
            for topic in topics:
                topic.unsure = topic.unsure and (topic in behind or topic.filling)
        if behind:
            await asyncio.sleep(RECONCILE_GRACE_S)
            for topic, seq in behind.items():
                if topic.seq == seq and not topic.filling:
                    self._fill(topic)

    async def _look_for_losses(self, stream: str, empty: list[Topic]) -> None:
        """Find out of subjects that hold nothing whether they may have held what nobody here has heard."""
        if not empty or await is_whole(self._broker, stream, min(topic.seq for topic in empty)):
            return
        end_seq = (await self._broker.state(stream)).last_seq
        for topic in empty:
            if topic.seq < end_seq and not topic.filling:
                self._lose(topic, end_seq)


def is_compared(topic: Topic) -> bool:
    """Whether a topic is one of messages that are kept: a canary is to be heard, not read (`canary.py`)."""
    return topic.stream != subjects.CANARY
