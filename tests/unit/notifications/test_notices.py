"""Notifications: what a producer may send, what becomes of the rest, and what the edge adds."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.notifications.notices import Notices, encode_notice
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Message
from shared.contracts import subjects
from shared.contracts.events import Notification
from shared.edge.deadletters import DeadLetters
from shared.edge.line.hub import LineHub
from shared.errors import BadInput
from shared.telemetry.metrics import Metrics

USER = "live.notify.user.u"

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


def encoded(data: bytes, subject: str = USER) -> dict[str, Any]:
    """Return what a client would read; strict JSON only."""
    event = encode_notice(Message(subject, data, {}, seq=7, time_ms=1234), "e")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads(event.body, parse_constant=refuse)
    return found


def test_a_title_is_enough_the_edge_knows_the_rest() -> None:
    assert encoded(b'{"title":"hi"}') == {"id": "e-7", "title": "hi", "body": "", "createdAt": 1234}


def test_the_topic_is_the_subjects_whatever_the_producer_says() -> None:
    data = b'{"title":"hi","topic":"forged"}'

    assert encoded(data, "live.notify.topic.news")["topic"] == "news"
    assert "topic" not in encoded(data)


def test_what_the_producer_gives_stays() -> None:
    given = {"id": "n1", "title": "t", "body": "b", "createdAt": 5, "data": {"a": [1, None]}}

    assert encoded(json.dumps(given).encode()) == given


@pytest.mark.parametrize("text", ["\r\n\r\ndata: forged", "\x00", "\u2028\u2029\x85", "</script>", "\U0001f600", "a\\"])
def test_hostile_text_arrives_as_it_was_and_breaks_no_line(text: str) -> None:
    for payload in (json.dumps({"title": text}), json.dumps({"title": text}, ensure_ascii=False)):
        event = encode_notice(Message(USER, payload.encode(), {}, seq=7), "e")

        assert json.loads(event.body)["title"] == text
        assert b"\r" not in event.body
        assert b"\n" not in event.body


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'"title"',
        b"{}",
        b'{"title":""}',
        b'{"title":1}',
        b'{"title":null}',
        b'{"title":"\\ud800"}',
        b'{"title":"\xed\xa0\x80"}',
        b'{"title":"hi","id":"a b"}',
        b'{"title":"hi","id":"a\\n"}',
        b'{"title":"hi","createdAt":-1}',
        b'{"title":"hi","createdAt":1e300}',
        b'{"title":"hi","data":[]}',
        b'{"title":"hi","data":' + b'{"a":' * 5000 + b"1" + b"}" * 5001,
        b'{"title":"' + b"x" * 257 + b'"}',
        b'{"title":"hi","body":"' + b"x" * (1 << 20) + b'"}',
    ],
)
def test_what_is_no_notification_is_refused_with_a_short_reason(data: bytes) -> None:
    with pytest.raises(BadInput) as refused:
        encoded(data)

    assert "not a notification" in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e999"])
def test_numbers_that_json_has_not_become_null(number: bytes) -> None:
    """Python's JSON writes them; a browser's JSON.parse would fail on the whole event."""
    assert encoded(b'{"title":"hi","data":{"x":' + number + b"}}")["data"] == {"x": None}


@given(data=st.dictionaries(TEXT, JSON, max_size=4))
def test_any_data_arrives_as_it_was(data: dict[str, Any]) -> None:
    assert encoded(json.dumps({"title": "t", "data": data}).encode())["data"] == data


# -- over HTTP --------------------------------------------------------------------------------------------------------


@pytest.fixture
async def store() -> AsyncIterator[Notices]:
    broker, metrics = MemoryBroker(MemoryServer()), Metrics()
    deadletters = DeadLetters(broker, metrics)
    line = LineHub(
        broker, subjects.NOTIFY, subjects.ALL_NOTIFY, encode=encode_notice, deadletters=deadletters, metrics=metrics
    )
    await line.start()
    yield Notices(broker, line)
    await line.close()


async def test_given_an_id_a_repetition_is_stored_once(store: Notices) -> None:
    notice = Notification(id="n1", title="hi")
    first, again = await store.publish("notify.user.u", notice), await store.publish("notify.user.u", notice)
    other = await store.publish("notify.user.v", notice)

    assert again == first | {"duplicate": True}
    assert other["duplicate"] is False
    assert len((await store.history(subjects.notify_user("u"), after=None, limit=9))["notifications"]) == 1


async def test_history_pages_forward_without_a_hole_and_skips_what_is_not_valid(store: Notices) -> None:
    for number in range(7):
        await store.publish("notify.user.u", Notification(title=f"t{number}"))
        await store._broker.append("notify.user.u", b"broken", msg_id=f"b{number}")
        await store.publish("notify.user.v", Notification(title="somebody else's"))
    titles, after, more = [], 0, True
    while more:
        page = await store.history(subjects.notify_user("u"), after=after, limit=3)
        titles += [each["title"] for each in page["notifications"]]
        after, more = int(page["cursor"].partition(":")[2]), page["more"]

    assert titles == [f"t{number}" for number in range(7)]


async def test_history_without_a_cursor_is_the_last_page(store: Notices) -> None:
    for number in range(7):
        await store.publish("notify.user.u", Notification(title=f"t{number}"))
    page = await store.history(subjects.notify_user("u"), after=None, limit=3)

    assert [each["title"] for each in page["notifications"]] == ["t4", "t5", "t6"]
    assert page["more"] is True
