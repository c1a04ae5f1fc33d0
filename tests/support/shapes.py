"""What a JSON schema of a model says of each field, for documents and other languages to be compared with."""

from __future__ import annotations

from typing import Any, NamedTuple

Schema = dict[str, Any]


class Field(NamedTuple):
    """One field of an object; its schema refers to nothing elsewhere."""

    schema: Schema
    required: bool


def fields_of(schema: Schema) -> dict[str, Field]:
    """Return the fields of an object's schema, by their names on the wire."""
    required = schema.get("required", ())
    return {
        name: Field(_inlined(field, schema.get("$defs", {})), name in required)
        for name, field in schema.get("properties", {}).items()
    }


def _inlined(value: Any, definitions: dict[str, Schema]) -> Any:
    """Return a schema with what it refers to in the places of the references."""
    if isinstance(value, dict) and "$ref" in value:
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    if isinstance(value, dict):
        return {name: _inlined(each, definitions) for name, each in value.items()}
    if isinstance(value, list):
        return [_inlined(each, definitions) for each in value]
    return value
