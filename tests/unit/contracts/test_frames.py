"""Frames: the article's shapes are taken as they are, whatever else is refused in words, and nothing else is raised."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.contracts.frames import (
    MAX_FRAME_BYTES,
    Authenticate,
    Join,
    Leave,
    MarkRead,
    Ping,
    SendMessage,
    TypingStatus,
    frame_id,
    parse_frame,
)
from shared.errors import BadId, BadInput, FanfareError, TooLarge
from tests.support.hostile import BAD_IDS


def frame(type_: str, data: object = None, **more: object) -> str:
    return json.dumps({"type": type_, **({} if data is None else {"data": data}), **more})


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"type":"auth","token":"t"}', Authenticate(token="t")),
        (
            '{"type":"send_message","data":{"userId":"u","content":"hi","timestamp":1700000000000}}',
            SendMessage(content="hi"),
        ),
        (
            '{"type":"typing_status","data":{"userId":"u","isTyping":true,"timestamp":1700000000000}}',
            TypingStatus(is_typing=True),
        ),
    ],
)
def test_w4_the_articles_frames_are_taken_unchanged(raw: str, expected: object) -> None:
    assert parse_frame(raw) == (expected, None)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (frame("auth", {"token": "t"}), Authenticate(token="t")),
        (frame("auth", {}, token="t"), Authenticate(token="t")),
        (
            frame("send_message", {"content": "hi", "room": "r", "clientId": "c", "unknown": 1}),
            SendMessage(content="hi", room="r", client_id="c"),
        ),
        (frame("join", {"room": "r", "cursor": "e:1"}), Join(room="r", cursor="e:1")),
        (frame("leave", {"room": "r"}), Leave(room="r")),
        (frame("mark_read", {"room": "r", "cursor": "e:1"}), MarkRead(room="r", cursor="e:1")),
        (frame("mark_read"), MarkRead()),
        (frame("ping"), Ping()),
    ],
)
def test_the_suites_own_frames_are_understood(raw: str, expected: object) -> None:
    assert parse_frame(raw) == (expected, None)


def test_w5_bytes_that_are_utf_8_json_are_a_frame_like_text() -> None:
    raw = frame("send_message", {"content": "grüße 👋"}, id="1")

    assert parse_frame(raw.encode()) == parse_frame(raw) == (SendMessage(content="grüße 👋"), "1")


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "null",
        "[]",
        "1",
        '"auth"',
        "{}",
        '{"type":1}',
        '{"type":null}',
        '{"type":"nothing"}',
        '{"type":"send_message"',
        '{"type":"send_message"}',
        '{"type":"send_message","data":null}',
        '{"type":"send_message","data":[]}',
        '{"type":"send_message","data":{"content":1}}',
        '{"type":"send_message","data":{"content":null}}',
        '{"type":"send_message","data":{"content":NaN}}',
        '{"type":"send_message","data":{"content":"\\ud800"}}',
        '{"type":"typing_status","data":{"isTyping":"perhaps"}}',
        '{"type":"ping","x":' + "1" * 5_000 + "e" + "9" * 5_000 + "}",
        "[" * 60_000,
        '{"a":' * 10_000,
        b"\xff\xfe",
        b'{"type":"ping","x":"\xc3\x28"}',
        "\ud800",
    ],
)
def test_a_malformed_frame_is_bad_input_and_leaves_the_connection_open(raw: str | bytes) -> None:
    with pytest.raises(BadInput) as refused:
        parse_frame(raw)
    assert refused.value.code in {"bad_input", "bad_id"}


@pytest.mark.parametrize("bad", BAD_IDS)
@pytest.mark.parametrize("type_", ["send_message", "typing_status", "join", "leave", "mark_read"])
def test_a_room_that_is_no_id_is_refused_by_name(type_: str, bad: str) -> None:
    with pytest.raises(BadId, match="room"):
        parse_frame(frame(type_, {"content": "hi", "isTyping": True, "room": bad}))


@pytest.mark.parametrize("bad", BAD_IDS)
def test_a_client_id_that_is_no_id_is_refused(bad: str) -> None:
    with pytest.raises(BadId):
        parse_frame(frame("send_message", {"content": "hi", "clientId": bad}))


def test_the_limit_on_a_frame_counts_bytes_and_not_characters() -> None:
    padding = MAX_FRAME_BYTES - len(frame("ping", x=""))

    assert parse_frame(frame("ping", x="a" * padding)) == (Ping(), None)
    with pytest.raises(TooLarge):
        parse_frame(frame("ping", x="a" * (padding + 1)))
    with pytest.raises(TooLarge):
        parse_frame(json.dumps({"type": "ping", "x": "é" * padding}, ensure_ascii=False))


def test_a_refusal_does_not_repeat_what_was_sent() -> None:
    with pytest.raises(BadInput) as refused:
        parse_frame(frame("auth", {"token": {"secret": "s3cret"}}))

    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ('{"id":"7"}', "7"),
        ('{"id":7}', None),
        ('{"id":"' + "x" * 65 + '"}', None),
        ("[]", None),
        ("{", None),
        (b"\xff", None),
    ],
)
def test_the_id_of_a_wrong_frame_is_found_if_there_is_one(raw: str | bytes, expected: str | None) -> None:
    assert frame_id(raw) == expected


Json: Any = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(raw=st.one_of(st.text(), st.binary(), Json.map(json.dumps)))
def test_any_bytes_are_a_frame_or_an_error_of_the_tree(raw: str | bytes) -> None:
    try:
        parse_frame(raw)
    except FanfareError as error:
        assert isinstance(error, BadInput)  # noqa: PT017  # nothing else may come, whether or not it raises


Types = st.sampled_from(["auth", "send_message", "typing_status", "join", "leave", "mark_read", "ping", "other"])


@settings(max_examples=40)
@given(type_=Types, data=st.dictionaries(st.sampled_from(["room", "content", "isTyping", "token", "cursor"]), Json))
def test_any_data_is_a_frame_or_an_error_of_the_tree(type_: str, data: dict[str, Any]) -> None:
    try:
        parse_frame(frame(type_, data))
    except FanfareError as error:
        assert isinstance(error, BadInput)  # noqa: PT017  # as above
