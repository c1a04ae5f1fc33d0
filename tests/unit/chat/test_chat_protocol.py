"""The pure side of the chat: what a frame means to a session, and which cursor belongs to which room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chat.protocol import (
    Action,
    Authenticate,
    ChatProtocol,
    Follow,
    Pong,
    ShowTyping,
    Store,
    Unfollow,
    pair_cursors,
)
from shared.errors import BadInput, Conflict, FanfareError, Unauthorized


def protocol(*, authenticated: bool = True) -> ChatProtocol:
    return ChatProtocol("home", authenticated=authenticated)


@pytest.mark.parametrize(
    ("raw", "action"),
    [
        ('{"type":"auth","token":"t"}', Authenticate("t")),
        ('{"type":"send_message","data":{"content":"hi"}}', Store("home", "hi", None)),
        ('{"type":"send_message","data":{"content":"hi","room":"r","clientId":"c"}}', Store("r", "hi", "c")),
        ('{"type":"typing_status","data":{"isTyping":true}}', ShowTyping("home", True)),
        ('{"type":"typing_status","data":{"isTyping":false,"room":"r"}}', ShowTyping("r", False)),
        ('{"type":"join","data":{"room":"r"}}', Follow("r", None)),
        ('{"type":"join","data":{"room":"r","cursor":"e:1"}}', Follow("r", "e:1")),
        ('{"type":"leave","data":{"room":"r"}}', Unfollow("r")),
        ('{"type":"ping"}', Pong()),
    ],
)
def test_each_frame_asks_for_one_action(raw: str, action: Action) -> None:
    assert protocol().receive(raw) == (action, None)
    assert protocol().receive(raw.encode()) == (action, None)


def test_the_id_of_a_frame_comes_with_its_action() -> None:
    assert protocol().receive('{"type":"ping","id":"7"}') == (Pong(), "7")


def test_before_auth_only_auth_is_a_frame() -> None:
    assert protocol(authenticated=False).receive('{"type":"auth","token":"t"}') == (Authenticate("t"), None)


@given(
    raw=st.one_of(st.text(), st.binary(), st.sampled_from(['{"type":"ping"}', '{"type":"auth"}', '{"type":"join"}']))
)
def test_before_auth_anything_else_is_unauthorized_and_says_nothing_more(raw: str | bytes) -> None:
    with pytest.raises(Unauthorized, match="first frame must be auth"):
        protocol(authenticated=False).receive(raw)


@given(raw=st.one_of(st.text(), st.binary()))
def test_after_auth_anything_is_an_action_or_an_error_of_the_tree(raw: str | bytes) -> None:
    try:
        protocol().receive(raw)
    except FanfareError as error:
        assert isinstance(error, BadInput)  # noqa: PT017  # nothing else may come, whether or not it raises


@pytest.mark.parametrize(
    ("rooms", "cursors", "paired"),
    [
        ([], [], {"general": None}),
        ([], ["e:1"], {"general": "e:1"}),
        (["a"], ["e:1"], {"a": "e:1"}),
        (["a", "b"], ["e:1"], {"a": "e:1", "b": None}),
        (["a", "b"], ["", "e:2"], {"a": None, "b": "e:2"}),
        (["b", "a"], ["e:1", "e:2"], {"b": "e:1", "a": "e:2"}),
    ],
)
def test_cursors_pair_with_rooms_in_order(rooms: list[str], cursors: list[str], paired: dict[str, str | None]) -> None:
    found = pair_cursors(rooms, cursors, default_room="general", limit=2)

    assert found == paired
    assert list(found) == list(paired)


def test_what_does_not_pair_is_refused() -> None:
    with pytest.raises(BadInput):
        pair_cursors(["a"], ["e:1", "e:2"], default_room="general", limit=2)
    with pytest.raises(BadInput):
        pair_cursors(["a", "b", "c"], [], default_room="general", limit=2)
    with pytest.raises(Conflict):
        pair_cursors(["a", "a"], [], default_room="general", limit=2)
