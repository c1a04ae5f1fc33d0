"""What a stream still tells of a subject's past: all of it from one place to another, or why that cannot be had.

A stream drops the oldest of a subject first, whether for its age, its size, its number or an operator's purge; no
message is deleted by itself (`deny_delete`). So a reader has lost nothing if its subject still has a message at the
reader's place or before. Where none is left, there may have been none, or it was dropped with some of what came after:
then only a stream that is whole from that place on proves that nothing is missing.
"""

from __future__ import annotations

import asyncio

from shared.broker.port import Broker, Message
from shared.edge.delivery.gap import GapReason

READ_PAGE = 200
CAUGHT_UP_POLL_S = 0.02
MAX_REPLAY = 1_000
"""A resume that has this many to read, or more, is a gap."""

RING_STEP = 4
"""A replay ends with so many recent messages at once, then its listener is live: nothing comes in between."""

COUNTS = 5


async def read_past(
    broker: Broker, stream: str, subject: str, after_seq: int, end_seq: int, *, limit: int
) -> list[Message] | GapReason:
    """Return all that came on `subject` after one place up to another, or why that cannot be had.

    Raises:
        Unavailable: the stream cannot be read.
    """
    last = await broker.last_seq(stream, subject)
    if 0 < last <= after_seq:
        return []
    messages: list[Message] = []
    reached = after_seq
    while reached < min(last, end_seq):
        page = await broker.read_after(stream, subject, reached, limit=READ_PAGE)
        # What the stream has beyond the end is still on its way here, and comes to all when it arrives.
        messages += [message for message in page.messages if message.seq <= end_seq]
        if len(messages) >= limit:
            return GapReason.TOO_MANY
        if page.messages:
            reached = page.messages[-1].seq
        else:  # this replica is behind its leader, or what there was has been dropped
            await asyncio.sleep(CAUGHT_UP_POLL_S)
            last = await broker.last_seq(stream, subject)
    # Asked after the reading, so that what is dropped meanwhile is noticed too.
    return messages if await is_complete(broker, stream, subject, after_seq) else GapReason.EXPIRED


async def is_complete(broker: Broker, stream: str, subject: str, after_seq: int) -> bool:
    """Whether the stream has dropped nothing that came on `subject` after a place; False also where it cannot tell."""
    first = await broker.first_seq(stream, subject)
    return 0 < first <= after_seq or await is_whole(broker, stream, after_seq)


async def is_whole(broker: Broker, stream: str, after_seq: int) -> bool:
    """Whether the stream holds all that was stored in it after a place; False also where it cannot tell.

    It cannot where it has dropped something before the place, and takes more than each count lasts.
    """
    state = await broker.state(stream)
    if state.first_seq > after_seq + 1:
        return False
    if not state.deleted:
        return True
    for _ in range(COUNTS):
        count = await broker.count_after(stream, after_seq)
        # Asked after the count: what is stored meanwhile may hide nothing, only pretend that something is missing.
        if count >= (await broker.state(stream)).last_seq - after_seq:
            return True
    return False
