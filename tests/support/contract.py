"""Holds whatever an edge sends to the models of the contract: no field that they do not have, none left out, none null.

The clients of `clients.py` do so with all that they receive, so a frame that differs fails whichever test meets it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from shared.contracts.events import Payload
from shared.contracts.server_frames import ANSWERS, SERVER_FRAMES
from shared.contracts.stream_events import STREAM_EVENTS

Fields = dict[str, set[str]]
"""Names of fields by the type of a frame or event."""

_ANSWERING = {type_ for answers in ANSWERS.values() for type_ in answers} | {"error"}


def check_frame(frame: Mapping[str, Any]) -> None:
    """Pass if a WebSocket frame is one of the contract; raises AssertionError."""
    given_id = {"id"} if "id" in frame and frame["type"] in _ANSWERING else set()
    assert frame.keys() == {"type", "data"} | given_id, frame
    _check(frame["type"], frame["data"], SERVER_FRAMES)


def check_event(event: Mapping[str, Any]) -> None:
    """Pass if the data of a Server-Sent Event is one of the contract; raises AssertionError."""
    _check(event["type"], data_of(event), STREAM_EVENTS)


def data_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event's fields, without its type and what a client of the tests has noted beside them."""
    return {name: value for name, value in event.items() if name not in {"type", "_event", "_id"}}


def fields_of(models: Mapping[str, type[Payload]]) -> Fields:
    """Return the names of all fields of the contract, as they stand on the wire."""
    return {type_: set(model.model_json_schema()["properties"]) for type_, model in models.items()}


def fields_seen(received: Iterable[tuple[str, Mapping[str, Any]]]) -> Fields:
    """Return the names of all fields that came, in data by type."""
    seen: Fields = {}
    for type_, data in received:
        seen.setdefault(type_, set()).update(data)
    return seen


def _check(type_: str, data: object, models: Mapping[str, type[Payload]]) -> None:
    assert type_ in models, f"{type_} is not in the contract: {data}"
    try:
        models[type_].model_validate(data, strict=True, extra="forbid", by_alias=True, by_name=False)
    except ValidationError as error:
        raise AssertionError(f"this {type_} breaks the contract: {data}") from error
