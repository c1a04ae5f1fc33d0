"""Work on behalf of some holds the loop for a turn, and begins nothing that would hold it longer."""

from __future__ import annotations

import pytest

from shared.edge.pauses import TURN_S, Turn


class Hand:
    """A clock that goes on when it is told to."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(
    ("pieces", "begun"),
    [
        ([0.1] * 20, 10),
        ([0.3] * 9, 3),
        ([0.6, 0.1], 1),
        ([2.0, 0.1], 1),
        ([0.1, 0.5, 0.1, 0.1], 2),
        ([0.4, 0.1, 0.1], 3),
        ([0.5, 0.1, 0.1], 2),
    ],
)
def test_another_piece_is_begun_if_one_like_the_longest_so_far_fits(pieces: list[float], begun: int) -> None:
    hand, began = Hand(), 0
    turn = Turn(hand)
    for share in pieces:
        if not turn.has_time():
            break
        began += 1
        hand.now_s += share * TURN_S * 0.999

    assert began == begun


def test_there_is_time_for_the_first_however_late_it_is() -> None:
    hand = Hand()
    turn = Turn(hand)
    hand.now_s += 10 * TURN_S

    assert turn.has_time()
