"""The page's TypeScript has the same frames and events as the services, field by field and type by type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from shared.contracts.events import Payload
from shared.contracts.server_frames import SERVER_FRAMES
from shared.contracts.stream_events import STREAM_EVENTS
from tests.support.shapes import Schema, fields_of

SOURCE = Path(__file__).parents[3] / "services" / "web" / "src" / "client" / "frames.ts"
TEXT = re.sub(r"/\*.*?\*/|//[^\n]*", "", SOURCE.read_text(), flags=re.DOTALL)
INTERFACES = dict(re.findall(r"export interface (\w+) \{\n(.*?)\n\}", TEXT, flags=re.DOTALL))

Fields = dict[str, str]
"""TypeScript's types by field, with `?` behind the names of those that may be left out."""


@pytest.mark.parametrize(("interface", "models"), [("ChatFrames", SERVER_FRAMES), ("StreamFrames", STREAM_EVENTS)])
def test_the_page_knows_what_the_services_tell_as_it_is(interface: str, models: Mapping[str, type[Payload]]) -> None:
    known = {type_: expanded(text) for type_, text in members(INTERFACES[interface]).items()}

    assert known == {type_: typescript(model.model_json_schema()) for type_, model in models.items()}


# -- from TypeScript --------------------------------------------------------------------------------------------------


def members(body: str) -> Fields:
    """Return the members of an interface or of an object's type; those of objects within stay in their types."""
    found = re.findall(r"(\w+\??): ((?:\{[^{}]*\}|[^;{}])+)(?:;|$)", " ".join(body.split()))
    return {name: type_.strip() for name, type_ in found}


def expanded(text: str) -> str:
    """Return a type with the interfaces that it names in their places, in the form of `typescript`."""
    text = text.strip()
    if text.endswith("[]"):
        return f"{expanded(text[:-2])}[]"
    if text.startswith("{"):
        return an_object({name: expanded(type_) for name, type_ in members(text[1:-1]).items()})
    if text in INTERFACES:
        return an_object({name: expanded(type_) for name, type_ in members(INTERFACES[text]).items()})
    if text.startswith("Record<"):
        return text
    return " | ".join(sorted(each.strip() for each in text.split("|")))


# -- from a schema ----------------------------------------------------------------------------------------------------


def typescript(schema: Schema) -> str:
    """Return the type of a schema's values."""
    match schema:
        case {"const": value}:
            return str(value).lower()
        case {"enum": values}:
            return " | ".join(sorted(f'"{value}"' for value in values))
        case {"anyOf": kinds}:
            return " | ".join(sorted({typescript(kind) for kind in kinds}))
        case {"properties": _}:
            fields = fields_of(schema)
            return an_object(
                {name + ("" if each.required else "?"): typescript(each.schema) for name, each in fields.items()}
            )
        case {"type": "object", "additionalProperties": values}:
            return f"Record<string, {typescript(values) if isinstance(values, dict) else 'unknown'}>"
        case {"type": "array", "items": items}:
            return f"{typescript(items)}[]"
    return {"integer": "number"}.get(schema["type"], schema["type"])


def an_object(fields: Fields) -> str:
    """Return the type of an object, its fields in alphabetical order."""
    return "{ " + " ".join(f"{name}: {type_};" for name, type_ in sorted(fields.items())) + " }"
