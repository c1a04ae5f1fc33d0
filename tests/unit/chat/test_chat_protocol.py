"""The pure side of the chat: what a frame means to a session, and which cursor belongs to which room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chat.protocol import ChatProtocol, pair_cursors
from shared.contracts.frames import Authenticate, ClientFrame, Join, Leave, Ping, SendMessage, TypingStatus
from shared.errors import BadInput, Conflict, FanfareError, Unauthorized


def protocol(*, authenticated: bool = True) -> ChatProtocol:
    return ChatProtocol("home", authenticated=authenticated)


@pytest.mark.parametrize(
    ("raw", "frame"),
    [
        ('{"type":"auth","token":"t"}', Authenticate(token="t")),
        ('{"type":"send_message","data":{"content":"hi"}}', SendMessage(content="hi")),
        (
            '{"type":"send_message","data":{"content":"hi","room":"r","clientId":"c"}}',
            SendMessage(content="hi", room="r", client_id="c"),
        ),
        ('{"type":"typing_status","data":{"isTyping":true}}', TypingStatus(is_typing=True)),
        ('{"type":"typing_status","data":{"isTyping":false,"room":"r"}}', TypingStatus(is_typing=False, room="r")),
        ('{"type":"join","data":{"room":"r"}}', Join(room="r")),
        ('{"type":"join","data":{"room":"r","cursor":"e:1"}}', Join(room="r", cursor="e:1")),
        ('{"type":"leave","data":{"room":"r"}}', Leave(room="r")),
        ('{"type":"ping"}', Ping()),
    ],
)
def test_each_frame_is_one_of_the_protocol_as_text_and_as_bytes(raw: str, frame: ClientFrame) -> None:
    assert protocol().receive(raw) == (frame, None)
    assert protocol().receive(raw.encode()) == (frame, None)


def test_the_id_of_a_frame_comes_with_it() -> None:
    assert protocol().receive('{"type":"ping","id":"7"}') == (Ping(), "7")


def test_before_auth_only_auth_is_a_frame() -> None:
    assert protocol(authenticated=False).receive('{"type":"auth","token":"t"}') == (Authenticate(token="t"), None)


@given(
    raw=st.one_of(st.text(), st.binary(), st.sampled_from(['{"type":"ping"}', '{"type":"auth"}', '{"type":"join"}']))
)
def test_before_auth_anything_else_is_unauthorized_and_says_nothing_more(raw: str | bytes) -> None:
    with pytest.raises(Unauthorized, match="first frame must be auth"):
        protocol(authenticated=False).receive(raw)


@given(raw=st.one_of(st.text(), st.binary()))
def test_after_auth_anything_is_a_frame_or_an_error_of_the_tree(raw: str | bytes) -> None:
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
