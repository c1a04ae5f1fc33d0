"""What a holder may do."""

from __future__ import annotations

import pytest

from shared.auth.principal import Principal
from shared.auth.revocations import revokes
from shared.contracts.events import Revocation
from shared.errors import Forbidden


def holder(*scopes: str, user: str = "u1", session: str = "s1", issued_at_s: int = 1000) -> Principal:
    return Principal(user, "Ann", session, frozenset(scopes), 2000, issued_at_s)


def test_a_scope_that_is_there_passes_and_one_that_is_not_is_named() -> None:
    holder("chat").require("chat")
    with pytest.raises(Forbidden, match="notify:write"):
        holder("chat").require("notify:write")


@pytest.mark.parametrize(
    ("scopes", "topic", "may"),
    [
        (["topic:*"], "news", True),
        (["topic:news"], "news", True),
        (["topic:news"], "sports", False),
        (["topic:new"], "news", False),
        (["chat"], "news", False),
        ([], "*", False),
    ],
)
def test_topics_are_followed_by_scope(scopes: list[str], topic: str, may: bool) -> None:
    assert holder(*scopes).may_follow(topic) is may


@pytest.mark.parametrize(
    ("now_s", "in_s"),
    [
        (1000, 970.0),  # the warning's time ahead
        (1950, 25.0),  # less is left than twice that: halfway
        (1998, 1.0),
        (2003, 0.0),  # in the leeway behind its end
    ],
)
def test_a_holder_is_warned_ahead_of_the_end_and_not_again_at_once(now_s: int, in_s: float) -> None:
    assert holder().warn_in_s(now_s, warning_s=30.0) == in_s


@pytest.mark.parametrize(
    ("revocation", "ends"),
    [
        (Revocation(user_id="u1", session="s1", before=0), True),
        (Revocation(user_id="u1", session="s2", before=9_999_999), False),
        (Revocation(user_id="u1", before=1_000_999), True),
        (Revocation(user_id="u1", before=1_000_000), True),
        (Revocation(user_id="u1", before=999_999), False),
        (Revocation(user_id="u2", before=9_999_999), False),
        (Revocation(user_id="u2", session="s1", before=9_999_999), False),
    ],
)
def test_a_revocation_ends_the_sessions_it_names(revocation: Revocation, ends: bool) -> None:
    assert revokes(revocation, holder()) is ends
