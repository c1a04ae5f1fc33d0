"""Reading a subject backwards: its last messages up to a place. A stream reads forward only, so look back in steps."""

from __future__ import annotations

from shared.broker.port import Broker, Message

FIRST_LOOK_BACK = 256
PAGE = 500


async def read_before(
    broker: Broker, stream: str, subject: str, *, end_seq: int, limit: int
) -> tuple[list[Message], bool]:
    """Return the last `limit` messages of `subject` up to `end_seq`, oldest first, and whether older ones remain.

    A busy stream may hold few of this subject in a long stretch, so each look goes eight times further back.
    """
    first_seq = max(1, (await broker.state(stream)).first_seq)
    look_back = max(FIRST_LOOK_BACK, 2 * limit)
    while True:
        start = max(first_seq - 1, end_seq - look_back)
        found = await _between(broker, stream, subject, start, end_seq)
        if len(found) > limit or start == first_seq - 1:
            return found[-limit:], len(found) > limit
        look_back *= 8


async def _between(broker: Broker, stream: str, subject: str, start: int, end_seq: int) -> list[Message]:
    found: list[Message] = []
    while start < end_seq:
        page = await broker.read_after(stream, subject, start, limit=PAGE)
        found += [message for message in page.messages if message.seq <= end_seq]
        if not page.messages or not page.more:
            break
        start = page.messages[-1].seq
    return found
