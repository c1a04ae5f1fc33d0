"""The checker of the fault suite: it passes what keeps the promises, and names each way to break one."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.checker import REVOKED_WITHIN_S, Verdict, check
from tests.faults.record import ANY_EPOCH, Op, Record

ROOM = "room"


class History:
    """Records, a second apart."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        for client in ("ann", "bob"):
            self.add(Op.OPEN, client)
            self.add(Op.ENTER, client, epoch="e", seq=10)

    def add(self, op: Op, client: str, *, after_s: float = 1.0, **facts: Any) -> History:
        at_ns = int(self.records[-1].at_ns + after_s * 1e9) if self.records else 1
        self.records.append(Record(at_ns, op, client, **({"room": ROOM} | facts)))
        return self

    def stored(self, *seqs: int, epoch: str = "e") -> History:
        for seq in seqs:
            self.add(Op.ACK, "ann", id=f"{epoch}{seq}", epoch=epoch, seq=seq, own_id=f"own-{epoch}{seq}")
        return self

    def got(self, client: str, *seqs: int, epoch: str = "e", **facts: Any) -> History:
        for seq in seqs:
            self.add(Op.GOT, client, id=f"{epoch}{seq}", epoch=epoch, seq=seq, **facts)
        return self

    def verdict(self) -> Verdict:
        return check(self.records)


def blamed(verdict: Verdict) -> dict[str, int]:
    counts = {kind: getattr(verdict, kind) for kind in ("lost", "doubled", "disordered", "leaked")}
    return {kind: count for kind, count in counts.items() if count}


def test_who_gets_all_in_order_over_two_connections_is_content() -> None:
    history = History().stored(11, 12, 13).got("ann", 11, 12, 13).got("bob", 11)
    history.add(Op.CLOSE, "bob").add(Op.OPEN, "bob", connection=2).got("bob", 12, 13, replayed=True)

    verdict = history.verdict()

    assert verdict.clean
    assert (verdict.acked, verdict.live, verdict.replayed, verdict.announced) == (3, 4, 2, 0)


def test_what_was_stored_before_a_client_came_is_not_owed_to_it() -> None:
    assert blamed(History().stored(9, 10, 11).got("ann", 11).got("bob", 11).verdict()) == {}


@pytest.mark.parametrize("bob", [(11, 13), (11, 12), ()], ids=["in-the-middle", "the-last", "all"])
def test_a_message_that_somebody_did_not_get_is_lost(bob: tuple[int, ...]) -> None:
    assert blamed(History().stored(11, 12, 13).got("ann", 11, 12, 13).got("bob", *bob).verdict()) == {
        "lost": 3 - len(bob)
    }


def test_a_message_that_was_seen_but_never_acked_is_owed_to_all() -> None:
    assert blamed(History().got("ann", 11).verdict()) == {"lost": 1}


def test_a_gap_announces_its_range_and_no_more() -> None:
    history = History().stored(11, 12, 13).got("ann", 11, 12, 13)
    history.add(Op.GAP, "bob", epoch=ANY_EPOCH, start=10, seq=12)

    verdict = history.verdict()

    assert verdict.announced == 2
    assert blamed(verdict) == {"lost": 1}


def test_a_resync_announces_what_was_stored_before_it_and_no_more() -> None:
    history = History().stored(11).got("ann", 11).add(Op.RESYNC, "bob").stored(1, 2, epoch="f")
    history.got("ann", 1, 2, epoch="f").got("bob", 2, epoch="f")

    verdict = history.verdict()

    assert verdict.announced == 1
    assert blamed(verdict) == {"lost": 1}


def test_a_resync_does_not_make_up_for_what_was_skipped_before() -> None:
    history = History().stored(11, 12).got("ann", 11, 12).got("bob", 12).add(Op.RESYNC, "bob")
    assert blamed(history.verdict()) == {"lost": 1}


def test_a_message_that_comes_twice_is_doubled_also_on_another_connection() -> None:
    history = History().stored(11).got("ann", 11).got("bob", 11).add(Op.CLOSE, "bob").add(Op.OPEN, "bob", connection=2)
    assert blamed(history.got("bob", 11, replayed=True).verdict()) == {"doubled": 1}


def test_a_repetition_that_is_stored_again_is_doubled() -> None:
    history = History().stored(11).got("ann", 11, 12).got("bob", 11, 12)
    history.add(Op.ACK, "ann", id="e12", epoch="e", seq=12, own_id="own-e11")

    assert blamed(history.verdict()) == {"doubled": 1}


def test_an_older_message_after_a_newer_one_is_out_of_order() -> None:
    assert blamed(History().stored(11, 12).got("ann", 11, 12).got("bob", 12, 11).verdict()) == {"disordered": 1}


def test_one_number_for_two_messages_is_out_of_order() -> None:
    history = History().got("ann", 11).add(Op.GOT, "bob", id="another", epoch="e", seq=11)
    assert blamed(history.verdict()) == {"disordered": 1}


def test_numbers_may_begin_anew_in_another_epoch() -> None:
    history = History().stored(11).got("ann", 11).got("bob", 11).stored(1, epoch="f")
    assert blamed(history.got("ann", 1, epoch="f").got("bob", 1, epoch="f").verdict()) == {}


def test_a_notification_has_the_place_that_its_producer_was_told() -> None:
    history = History()
    for follower in ("fay", "gus"):
        history.add(Op.ENTER, follower, room="topic", epoch=ANY_EPOCH)
    for seq in (5, 6):
        history.add(Op.ACK, "producer", room="topic", id=f"n{seq}", seq=seq, own_id=f"n{seq}")
    for follower, notices in (("fay", ("n6", "n5")), ("gus", ("n5", "n5"))):
        for notice in notices:
            history.add(Op.GOT, follower, room="topic", id=notice)

    assert blamed(history.verdict()) == {"disordered": 1, "doubled": 1, "lost": 1}


def test_who_has_left_is_owed_nothing_and_must_get_nothing() -> None:
    history = History().stored(11, 12).got("ann", 11, 12).got("bob", 11).add(Op.LEAVE, "bob")
    assert blamed(history.verdict()) == {}
    assert blamed(history.got("bob", 12).verdict()) == {"leaked": 1}


def test_a_private_rooms_message_to_somebody_else_is_leaked() -> None:
    history = History().add(Op.ADMIT, "ann").stored(11).got("ann", 11).got("bob", 11)
    assert blamed(history.verdict()) == {"leaked": 1}


def test_who_is_expelled_may_get_for_a_moment_what_was_on_its_way() -> None:
    history = History().add(Op.ADMIT, "ann").add(Op.ADMIT, "bob").add(Op.EXPEL, "bob").stored(11).got("ann", 11)
    on_its_way = Record(history.records[-3].at_ns + 1, Op.GOT, "bob", ROOM, "e11", "e", 11)
    assert check([*history.records[:-2], on_its_way, *history.records[-2:]]).leaked == 0
    assert blamed(history.got("bob", 11).verdict()) == {"leaked": 1}


def test_a_revoked_session_has_its_time_to_end_and_no_more() -> None:
    history = History().add(Op.REVOKE, "bob").add(Op.CLOSE, "bob", after_s=REVOKED_WITHIN_S / 2)
    assert blamed(history.verdict()) == {}
    assert blamed(history.add(Op.OPEN, "bob", after_s=REVOKED_WITHIN_S).verdict())["leaked"] >= 1


@pytest.mark.parametrize("after", ["open", "closed-late", "got"])
def test_a_revoked_session_that_lives_on_is_a_leak(after: str) -> None:
    history = History().stored(11).got("ann", 11).add(Op.REVOKE, "bob")
    if after == "closed-late":
        history.add(Op.CLOSE, "bob", after_s=REVOKED_WITHIN_S * 2)
    if after == "got":
        history.got("bob", 11, connection=1).add(Op.LEAVE, "bob").add(Op.CLOSE, "bob", after_s=0)
    assert history.verdict().leaked
