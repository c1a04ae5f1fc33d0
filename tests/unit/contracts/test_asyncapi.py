"""What tools read of the contract with producers (docs/asyncapi.json) is what the edges hold them to."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from shared.contracts.asyncapi import document
from shared.contracts.events import Notification, Payload, PriceTick, SystemStatus
from shared.contracts.streams import STREAMS

ROOT = Path(__file__).parents[3]
DOCUMENT = document()


def test_the_copy_in_docs_is_current() -> None:
    assert json.loads((ROOT / "docs" / "asyncapi.json").read_text()) == DOCUMENT, "make asyncapi"


def test_it_has_the_version_of_the_suite() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert DOCUMENT["info"]["version"] == project["version"]


def test_every_reference_leads_somewhere() -> None:
    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for key in reference.removeprefix("#/").split("/"):
            found = found[key]


def test_a_stream_keeps_what_each_channel_carries() -> None:
    kept = {subject for stream in STREAMS for subject in stream.subjects}
    kept |= {stream.republish_as[1] for stream in STREAMS if stream.republish_as}

    for channel in DOCUMENT["channels"].values():
        assert any(covers(subject, channel["address"]) for subject in kept), channel["address"]


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
