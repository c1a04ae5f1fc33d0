"""What a client may ask of a stream, and that asking for too much leaves nothing behind."""

from __future__ import annotations

import pytest

from services.notifications import wanted
from services.notifications.wanted import check_topics
from shared.auth.principal import Principal
from shared.errors import BadInput

ANYBODY = Principal("u", "U", "s", frozenset({"topic:*"}), 2_000_000_000, 0)


def test_topics_are_named_alone_or_in_lists_and_count_once() -> None:
    assert check_topics(ANYBODY, ["a,b", "c", "b"], 3) == ("a", "b", "c")


@pytest.mark.parametrize("topics", [[f"{n:05d}" for n in range(4)], [",".join(f"{n:05d}" for n in range(10_000))]])
def test_too_many_topics_are_refused_and_nothing_is_kept_of_them(topics: list[str]) -> None:
    kept = wanted._names.cache_info().currsize
    with pytest.raises(BadInput, match="at most 3 topics"):
        check_topics(ANYBODY, topics, 3)

    assert wanted._names.cache_info().currsize == kept


def test_a_long_list_of_one_name_is_not_kept_either() -> None:
    kept = wanted._names.cache_info().currsize
    with pytest.raises(BadInput):
        check_topics(ANYBODY, [",".join("a" * 10_000)], 3)

    assert wanted._names.cache_info().currsize == kept
