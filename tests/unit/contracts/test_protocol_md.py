"""docs/protocol.md names the same frames, events, fields and codes as the models that the edges are held to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.contracts.close_codes import RECONNECT
from shared.contracts.events import Payload
from shared.contracts.frames import CLIENT_FRAMES
from shared.contracts.server_frames import ANSWERS, SERVER_FRAMES
from shared.contracts.stream_events import STREAM_EVENTS
from shared.contracts.wire_errors import HTTP_STATUS
from tests.support.shapes import Schema, fields_of

TEXT = (Path(__file__).parents[3] / "docs" / "protocol.md").read_text()


def test_the_clients_frames_are_those_that_an_edge_takes() -> None:
    named = {type_: set(words(data)) for type_, data, _ in rows("type", "data", "answer")}

    assert named == {type_: names(model) for type_, model in CLIENT_FRAMES.items()}


def test_each_frame_has_the_answers_that_it_is_said_to_have() -> None:
    named = {type_: tuple(words(answer)) for type_, _, answer in rows("type", "data", "answer")}

    assert named == ANSWERS


@pytest.mark.parametrize(("title", "models"), [("frame", SERVER_FRAMES), ("event", STREAM_EVENTS)])
def test_what_the_server_tells_has_the_fields_that_it_is_said_to_have(
    title: str, models: Mapping[str, type[Payload]]
) -> None:
    named = {type_: data.strip("`") for type_, data, _ in rows(title, "data", "")}

    assert named == {type_: shape(model.model_json_schema()) for type_, model in models.items()}


def test_the_close_codes_are_those_that_an_edge_closes_with() -> None:
    named = {int(code) for codes, *_ in rows("code", "meaning", "reconnect") for code in codes.split(", ")}

    assert named == set(RECONNECT)


def test_the_codes_of_errors_are_all_named() -> None:
    (sentence,) = re.findall(r"^Codes of errors: (.+?)\.$", TEXT, flags=re.MULTILINE | re.DOTALL)

    assert set(words(sentence)) == set(HTTP_STATUS)


# -- helpers ----------------------------------------------------------------------------------------------------------


def rows(*head: str) -> list[list[str]]:
    """Return the rows of the one table with this head, each a list of cells; a type stands without its backticks."""
    lines = TEXT.splitlines()
    start = lines.index(f"| {' | '.join(head)} |".replace("|  |", "| |")) + 2
    found = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        found.append([cells[0].strip("`"), *cells[1:]])
    return found


def words(cell: str) -> list[str]:
    """Return what stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def names(model: type[Payload]) -> set[str]:
    """Return a model's fields, `?` behind those that may be left out."""
    return {name + ("" if field.required else "?") for name, field in fields_of(model.model_json_schema()).items()}


def shape(schema: Schema) -> str:
    """Return a schema in the words of the document: `{id, topic?, status: up/down, rooms:[{room}]}`."""
    fields = [name + ("" if field.required else "?") + kind(field.schema) for name, field in fields_of(schema).items()]
    return f"{{{', '.join(fields)}}}"


def kind(schema: Schema) -> str:
    """Return what is said of a field beside its name: its few values, the fields within."""
    if "enum" in schema:
        return ": " + "/".join(schema["enum"])
    if "properties" in schema:
        return ":" + shape(schema)
    items = schema.get("items", {})
    return f":[{shape(items)}]" if "properties" in items else ""
