"""Requests share one timer: each fails when its own time is over, and nobody is looked for when nobody waits."""

from __future__ import annotations

import asyncio

import pytest

from shared.broker.jetstream_inbox import LOOK_S, Inbox, NoAnswer, NoResponders
from tests.support.waiting import eventually

PATIENCE_S = 30.0


def answer(inbox: Inbox, address: str, data: bytes, raw: bytes | None = None) -> None:
    inbox.receive(address.encode(), b"", data, raw)


async def test_each_request_fails_when_its_own_time_is_over_and_no_earlier() -> None:
    inbox, loop = Inbox("_INBOX_t"), asyncio.get_running_loop()
    began_s = loop.time()
    patient, hasty = inbox.expect(None, PATIENCE_S), inbox.expect(None, 1.5 * LOOK_S)

    with pytest.raises(NoAnswer, match=r"no answer within 0\.15 s"):
        await hasty.all
    assert loop.time() - began_s >= 1.5 * LOOK_S
    assert not patient.all.done()
    patient.all.cancel()


async def test_an_answer_in_time_is_returned_and_one_that_comes_after_it_dropped() -> None:
    inbox = Inbox("_INBOX_t")
    expected = inbox.expect(None, PATIENCE_S)
    for data in (b"first", b"second"):
        answer(inbox, inbox.address(expected), data)
    inbox.forget(expected)
    answer(inbox, inbox.address(expected), b"third")

    assert [reply.data for reply in await expected.all] == [b"first"]


async def test_who_asks_nobody_is_told_so() -> None:
    inbox = Inbox("_INBOX_t")
    expected = inbox.expect(None, PATIENCE_S)
    answer(inbox, inbox.address(expected), b"", b"NATS/1.0 503\r\n\r\n")

    with pytest.raises(NoResponders):
        await expected.all


async def test_the_timer_rests_when_nobody_waits_and_begins_again() -> None:
    inbox = Inbox("_INBOX_t")
    for _ in range(2):
        expected = inbox.expect(None, PATIENCE_S)
        assert inbox._looking
        inbox.forget(expected)
        await eventually(lambda: not inbox._looking)

    with pytest.raises(NoAnswer):
        await inbox.expect(None, 0.0).all
