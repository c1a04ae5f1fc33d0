"""A message that this edge has sent is known again, and nothing else is taken on trust."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.chat import encoding
from services.chat.encoding import MessageEncoder, encode_message
from shared.broker.port import NO_HEADERS, Message
from shared.contracts import subjects
from shared.contracts.events import ChatMessage
from shared.edge.delivery.event import Event
from shared.errors import BadInput

Ids = st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True)
Texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=100)


def payload(room: str = "r", content: str = "hi") -> bytes:
    return ChatMessage.encode("m_1", room, "ada", "Ada", content, 1_700_000_000_000)


def live(data: bytes, room: str = "r", seq: int = 7) -> Message:
    return Message(subjects.live(subjects.chat_message(room)), data, NO_HEADERS, seq)


@given(id_=Ids, room=Ids, user=Ids, name=Texts, content=Texts, client_id=st.none() | Ids)
def test_what_is_sent_is_what_the_model_would_send(
    id_: str, room: str, user: str, name: str, content: str, client_id: str | None
) -> None:
    data = ChatMessage.encode(id_, room, user, name, content, 1, client_id=client_id)

    assert ChatMessage.model_validate_json(data).to_json() == data


@given(content=Texts)
def test_what_is_known_again_is_encoded_as_if_it_were_not(content: str) -> None:
    encoder, data = MessageEncoder(), payload(content=content)
    encoder.expect(subjects.chat_message("r"), data)

    assert encoder.encode(live(data), "e").frame_payload == encode_message(live(data), "e").frame_payload


def test_only_what_was_sent_is_taken_without_validation() -> None:
    encoder = MessageEncoder()
    encoder.expect(subjects.chat_message("r"), b'{"not":"a message"}')

    assert shown(encoder.encode(live(b'{"not":"a message"}'), "e"))["not"] == "a message"
    with pytest.raises(BadInput):
        encoder.encode(live(b'{"not":"a message either"}'), "e")


def test_what_was_sent_is_known_again_once() -> None:
    encoder = MessageEncoder()
    encoder.expect(subjects.chat_message("r"), b'{"not":"a message"}')
    encoder.encode(live(b'{"not":"a message"}'), "e")

    with pytest.raises(BadInput):
        encoder.encode(live(b'{"not":"a message"}'), "e")


def test_what_was_sent_to_one_room_is_not_known_in_another() -> None:
    encoder = MessageEncoder()
    encoder.expect(subjects.chat_message("r"), payload("r"))

    with pytest.raises(BadInput, match="another room"):
        encoder.encode(live(payload("r"), room="other"), "e")


def test_what_was_sent_and_never_came_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_UNDER_WAY", 2)
    encoder = MessageEncoder()
    for number in range(3):
        encoder.expect(subjects.chat_message("r"), b'{"number":%d}' % number)

    with pytest.raises(BadInput):
        encoder.encode(live(b'{"number":0}'), "e")
    assert shown(encoder.encode(live(b'{"number":1}'), "e"))["number"] == 1


@pytest.mark.parametrize("data", [b"", b"[]", b'{"id":"m_1"}', payload().replace(b'"ada"', b'"a b"')])
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(BadInput, match="not a chat message"):
        encode_message(live(data), "e")


def test_fields_that_are_not_of_a_message_are_left_out() -> None:
    event = encode_message(live(payload()[:-1] + b',"more":1}'), "e")

    assert shown(event) == json.loads(payload()) | {"seq": 7, "cursor": "e:7"}


def shown(event: Event) -> dict[str, object]:
    data: dict[str, object] = json.loads(event.frame_payload)["data"]
    return data
