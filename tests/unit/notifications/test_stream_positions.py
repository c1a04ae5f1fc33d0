"""The cursor of a stream: however its subjects interleave, a client resumes to exactly what it has not seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.notifications.positions import Positions, parse_cursor
from shared.contracts.cursor import Position, Vector, tag

OWN = "notify.user.u"
TOPICS = {"news": "notify.topic.news", "alerts": "notify.topic.alerts", "ops": "notify.topic.ops"}
SUBJECTS = [OWN, *TOPICS.values()]

Stored = st.lists(st.sampled_from(SUBJECTS), max_size=60)
Picks = st.lists(st.integers(min_value=0, max_value=len(SUBJECTS) - 1), max_size=40)
Cuts = st.lists(Picks, min_size=1, max_size=4)


@given(stored=Stored, begin=st.integers(min_value=0, max_value=60), visits=Cuts)
def test_it_resumes_to_exactly_what_was_not_seen(stored: list[str], begin: int, visits: list[list[int]]) -> None:
    seqs = {subject: [seq for seq, name in enumerate(stored, 1) if name == subject] for subject in SUBJECTS}
    begin = min(begin, len(stored))
    unseen = {subject: [seq for seq in seqs[subject] if seq > begin] for subject in SUBJECTS}
    cursor: str | None = None
    for picks in visits:
        here = dict.fromkeys(SUBJECTS, Position("e", begin if cursor is None else len(stored)))
        positions = Positions(OWN, TOPICS)
        starts = positions.start(parse_cursor(cursor)[0], here)
        for subject, start in starts.items():
            assert [seq for seq in seqs[subject] if seq > start.seq] == unseen[subject]
        for pick in picks:
            if waiting := unseen[SUBJECTS[pick]]:
                positions.move(SUBJECTS[pick], waiting.pop(0))
        cursor = positions.cursor


def test_a_topic_that_the_cursor_does_not_name_starts_now() -> None:
    here = {OWN: Position("e", 7), "notify.topic.new": Position("e", 7)}

    starts = Positions(OWN, {"new": "notify.topic.new"}).start(Vector("e", 3), here)

    assert starts == {OWN: Position("e", 3), "notify.topic.new": Position("e", 7)}


def test_a_topic_no_longer_followed_leaves_the_cursor() -> None:
    positions = Positions(OWN, {})
    positions.start(Vector("e", 3, {tag("old"): 2}), {OWN: Position("e", 7)})

    assert positions.cursor == "e:3"


def test_two_topics_with_one_tag_lose_nothing() -> None:
    """CRC-32 gives these two words the same tag; the price is a repetition."""
    twins = {"plumless": "notify.topic.plumless", "buckeroo": "notify.topic.buckeroo"}
    assert tag("plumless") == tag("buckeroo")
    positions = Positions(OWN, twins)
    here = dict.fromkeys([OWN, *twins.values()], Position("e", 10))
    positions.start(None, here)
    positions.move(twins["plumless"], 15)
    positions.move(twins["buckeroo"], 12)

    again = Positions(OWN, twins).start(parse_cursor(positions.cursor)[0], here)

    assert {again[subject].seq for subject in twins.values()} == {12}


def test_a_stream_made_anew_half_way_never_mixes_two_lives() -> None:
    """Cut between two subjects' restarts, the client must not present an old number as one of the new life."""
    positions = Positions(OWN, TOPICS)
    positions.start(None, dict.fromkeys(SUBJECTS, Position("old", 500)))

    positions.restart(OWN, Position("new", 4))

    resumed, _ = parse_cursor(positions.cursor)
    assert resumed == Vector("new", 4, {tag(name): 0 for name in TOPICS})


def test_a_cursor_of_another_life_is_kept_apart_and_forgotten() -> None:
    positions = Positions(OWN, {})

    starts = positions.start(Vector("old", 99), {OWN: Position("new", 7)})

    assert starts[OWN] == Position("old", 99)
    assert positions.cursor == "new:7"


@given(st.text(max_size=100))
def test_whatever_a_client_sends_is_a_cursor_or_unreadable(text: str) -> None:
    cursor, readable = parse_cursor(text)

    assert readable == (cursor is not None or text == "")
