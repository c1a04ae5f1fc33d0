"""What tools read of the contract (docs/asyncapi.json) is what edges hold producers to, and the tests the edges."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from services.chat.app import create_app as create_chat
from services.chat.settings import ChatSettings
from services.notifications.app import create_app as create_notifications
from services.notifications.opening import StreamQuery
from services.notifications.settings import NotificationsSettings
from shared.contracts import subjects
from shared.contracts.asyncapi import document
from shared.contracts.events import LogRecord, Notification, Payload, PriceTick, SystemStatus
from shared.contracts.streams import STREAMS

ROOT = Path(__file__).parents[3]
DOCUMENT = document()


def test_the_copy_in_docs_is_current() -> None:
    assert json.loads((ROOT / "docs" / "asyncapi.json").read_text()) == DOCUMENT, "make asyncapi"


def test_it_has_the_version_of_the_suite() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert DOCUMENT["info"]["version"] == project["version"]


def test_every_reference_leads_somewhere() -> None:
    leading_to_something = 0
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]
        leading_to_something += bool(found)

    assert leading_to_something == json.dumps(DOCUMENT).count('"$ref"') > 0


def test_a_stream_keeps_what_each_channel_carries_but_for_logs() -> None:
    kept = {subject for stream in STREAMS for subject in stream.subjects}
    kept |= {stream.republish_as[1] for stream in STREAMS if stream.republish_as}
    assert not any(covers(subject, subjects.ALL_LOGS) for subject in kept)
    kept |= {subjects.ALL_LOGS}

    for channel in DOCUMENT["channels"].values():
        if channel["servers"] == [{"$ref": "#/servers/nats"}]:
            assert any(covers(subject, channel["address"]) for subject in kept), channel["address"]


def test_all_that_passes_a_channel_is_part_of_an_operation() -> None:
    taken = {message["$ref"] for each in DOCUMENT["operations"].values() for message in each.get("messages", ())}
    whole = {each["channel"]["$ref"] for each in DOCUMENT["operations"].values() if "messages" not in each}

    for name, channel in DOCUMENT["channels"].items():
        assert channel["messages"], name
        named = {f"#/channels/{name}/messages/{message}" for message in channel["messages"]}
        assert f"#/channels/{name}" in whole or named <= taken, name


def test_the_paths_and_the_query_of_browsers_are_those_that_edges_answer() -> None:
    chat, notifications = create_chat(ChatSettings()), create_notifications(NotificationsSettings())
    channels, stream = DOCUMENT["channels"], DOCUMENT["operations"]["stream"]["bindings"]["http"]["query"]

    assert {channels["chat"]["address"]} == set(chat.sockets)
    assert {channels["stream"]["address"]} == set(notifications.streams)
    assert set(stream["properties"]) == set(StreamQuery.model_fields)


@pytest.mark.parametrize(
    ("channel", "message", "given", "valid"),
    [
        (
            "chat",
            "send_message",
            {"type": "send_message", "data": {"content": "hi", "userId": "u", "timestamp": 1}},
            True,
        ),
        ("chat", "send_message", {"type": "send_message", "data": {}}, False),
        ("chat", "send_message", {"type": "ping", "data": {"content": "hi"}}, False),
        ("chat", "ping", {"type": "ping"}, True),
        ("chat", "auth", {"type": "auth", "token": "t"}, True),
        ("chat", "auth", {"type": "auth", "data": {"token": "t"}}, True),
        ("chat", "auth", {"type": "auth"}, False),
        ("chat", "ack", {"type": "ack", "id": "1", "data": {"id": "m", "room": "r", "seq": 1, "cursor": "c"}}, False),
        ("chat", "pong", {"type": "pong", "id": "1", "data": {"timestamp": 1}}, True),
        ("stream", "dropped", {"type": "dropped", "kind": "price_update", "count": 1}, True),
        ("stream", "dropped", {"type": "gap", "kind": "price_update", "count": 1}, False),
        ("stream", "resync", {"type": "resync", "topic": None, "reason": "epoch_changed"}, True),
    ],
)
def test_a_frame_is_valid_by_the_document_as_it_is_on_the_wire(
    channel: str, message: str, given: dict[str, Any], valid: bool
) -> None:
    schema = DOCUMENT["channels"][channel]["messages"][message]["payload"] | {"components": DOCUMENT["components"]}

    assert Draft202012Validator(schema).is_valid(given) == valid


@pytest.mark.parametrize(
    ("payload", "given"),
    [
        (Notification, {"title": "Build finished", "body": "All green"}),
        (Notification, {"title": "hi", "data": {"any": ["thing"]}, "later": "a field of a newer producer"}),
        (Notification, {"body": "no title"}),
        (Notification, {"title": ""}),
        (PriceTick, {"symbol": "ACME", "price": 12.5, "timestamp": 1}),
        (PriceTick, {"symbol": "ACME", "price": 12.5, "timestamp": 1, "changePercent": -0.5}),
        (PriceTick, {"symbol": "A.B", "price": 12.5, "timestamp": 1}),
        (PriceTick, {"symbol": "ACME", "price": -1, "timestamp": 1}),
        (SystemStatus, {"component": "c", "instance": "i", "status": "up", "metrics": {"a": 1}, "timestamp": 1}),
        (SystemStatus, {"component": "c", "instance": "i", "status": "fine", "timestamp": 1}),
        (LogRecord, {"component": "c", "instance": "i", "level": "info", "event": "e", "timestamp": 1}),
        (LogRecord, {"component": "c", "instance": "i", "level": "loud", "event": "e", "timestamp": 1}),
        (
            LogRecord,
            {"component": "c", "instance": "i", "level": "info", "event": "e", "fields": {"a": []}, "timestamp": 1},
        ),
    ],
)
def test_a_payload_is_valid_by_the_document_if_an_edge_takes_it(payload: type[Payload], given: dict[str, Any]) -> None:
    schema = {"$ref": f"#/components/schemas/{payload.__name__}", "components": DOCUMENT["components"]}

    assert Draft202012Validator(schema).is_valid(given) == taken(payload, given)


def taken(payload: type[Payload], given: dict[str, Any]) -> bool:
    try:
        payload.model_validate_json(json.dumps(given))
    except ValidationError:
        return False
    return True


def covers(pattern: str, address: str) -> bool:
    """Say whether a subject of this form is one that `pattern` matches, token by token."""
    wanted, named = pattern.split("."), address.split(".")
    if wanted[-1] == ">":
        wanted, named = wanted[:-1], named[: len(wanted) - 1]
    return len(wanted) == len(named) and all(w in ("*", n) for w, n in zip(wanted, named, strict=True))


def references(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from [each] if key == "$ref" else references(each)
    elif isinstance(value, list):
        for each in value:
            yield from references(each)
