"""What browsers exchange with the edges, in the terms of AsyncAPI 3: the chat's WebSocket and the stream of events.

AsyncAPI has no word for the codes that a WebSocket is closed with: they stand in `x-close-codes`. It has none for
Server-Sent Events either: a message of the channel `stream` is what an event has as its `data`.
Source: AsyncAPI 3.0.0; bindings ws 0.1.0 and http 0.3.0.
"""

from __future__ import annotations

from typing import Any, Final, get_args

from shared.contracts.claims import COOKIE, MAX_TOKEN_CHARS
from shared.contracts.close_codes import RECONNECT
from shared.contracts.cursor import MAX_CURSOR_CHARS
from shared.contracts.events import LogLevel, Payload
from shared.contracts.frames import CLIENT_FRAMES, MAX_FRAME_ID_CHARS, Authenticate
from shared.contracts.ids import ID_PATTERN
from shared.contracts.server_frames import ANSWERS, SERVER_FRAMES
from shared.contracts.stream_events import STREAM_EVENTS

CHAT_PATH: Final = "/ws/chat"
STREAM_PATH: Final = "/api/stream"

_IDS = {"type": "array", "items": {"type": "string", "pattern": ID_PATTERN}}
_CURSOR = {"type": "string", "maxLength": MAX_CURSOR_CHARS}
_CURSORS = {"type": "array", "items": _CURSOR}

RELAYS: Final = {
    "relay": "Bytes for all others in a relay room. Byte 1, length of the room (a byte; 0 for the connection's first "
    "room), room, payload.",
    "relayed": "What another said there. Byte 1, length of the room (a byte), room, length of the user (a byte), user, "
    "payload.",
}
"""Binary messages, from a client and to clients (`relay.py`)."""

SECURITY: Final[dict[str, dict[str, str]]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "cookie": {"type": "httpApiKey", "in": "cookie", "name": COOKIE},
    "ticket": {"type": "httpApiKey", "in": "query", "name": "ticket"},
    "token": {"type": "httpApiKey", "in": "query", "name": "token"},
}
"""Where a credential may stand, by AsyncAPI's names; the first of them that is there counts."""


def models() -> list[type[Payload]]:
    """Return all models that the channels refer to."""
    return [*CLIENT_FRAMES.values(), *SERVER_FRAMES.values(), *STREAM_EVENTS.values()]


def servers() -> dict[str, dict[str, Any]]:
    """Return the two services as a browser reaches them."""
    security = [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY]
    return {
        "chat": {"host": "localhost:8080", "protocol": "ws", "security": security},
        "notifications": {"host": "localhost:8080", "protocol": "http", "security": security},
    }


def channels() -> dict[str, dict[str, Any]]:
    """Return the two channels with all that passes them."""
    sent = {type_: _message(type_, model, _client_frame(type_, model)) for type_, model in CLIENT_FRAMES.items()}
    told = {type_: _message(type_, model, _server_frame(type_, model)) for type_, model in SERVER_FRAMES.items()}
    return {
        "chat": {
            "address": CHAT_PATH,
            "servers": [{"$ref": "#/servers/chat"}],
            "description": "Text frames, or binary ones with the same JSON; a binary one that begins with byte 1 is to "
            "be relayed. Rooms and cursors are paired in order; who came without a credential sends `auth` first. A "
            "frame's `id` is repeated by its answer.",
            "messages": sent | told | {name: _binary(name, summary) for name, summary in RELAYS.items()},
            "bindings": {
                "ws": {"method": "GET", "query": _query(room=_IDS, cursor=_CURSOR), "bindingVersion": "0.1.0"}
            },
            "x-close-codes": {
                str(code.value): {"name": code.name, "reconnect": answer.value} for code, answer in RECONNECT.items()
            },
        },
        "stream": {
            "address": STREAM_PATH,
            "servers": [{"$ref": "#/servers/notifications"}],
            "description": "Server-Sent Events. Each message is an event's `data`; its `id`, where it has one, is the "
            "cursor to come back with, as `Last-Event-ID` or `last_event_id`.",
            "messages": {type_: _message(type_, model, _event(type_, model)) for type_, model in STREAM_EVENTS.items()},
        },
    }


def operations() -> dict[str, dict[str, Any]]:
    """Return what the edges do there: take each frame and answer it, and tell the rest."""
    taken = {f"chat.{type_}": _taken(type_, model) for type_, model in CLIENT_FRAMES.items()}
    query = _query(
        topics=_IDS,
        symbols=_IDS,
        max_rate={"type": "number", "exclusiveMinimum": 0},
        events={"type": "string", "enum": ["named", "unnamed"], "default": "unnamed"},
        last_event_id=_CURSOR,
        logs={"type": "string", "enum": list(get_args(LogLevel))},
    )
    return taken | {
        "chat.relay": {
            "action": "receive",
            "channel": {"$ref": "#/channels/chat"},
            "summary": RELAYS["relay"],
            "messages": _references("chat", "relay"),
        },
        "chat": {
            "action": "send",
            "channel": {"$ref": "#/channels/chat"},
            "summary": "What the chat tells a client, answers among it.",
            "messages": _references("chat", *SERVER_FRAMES, "relayed"),
        },
        "stream": {
            "action": "send",
            "channel": {"$ref": "#/channels/stream"},
            "summary": "What a stream tells: `connected`, what was missed, and then everything as it comes.",
            "bindings": {"http": {"method": "GET", "query": query, "bindingVersion": "0.3.0"}},
        },
    }


# -- private ----------------------------------------------------------------------------------------------------------


def _taken(type_: str, model: type[Payload]) -> dict[str, Any]:
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/chat"},
        "summary": _summary(model),
        "messages": _references("chat", type_),
        "reply": {
            "channel": {"$ref": "#/channels/chat"},
            "messages": _references("chat", *ANSWERS[type_], "error"),
        },
    }


def _message(type_: str, model: type[Payload], payload: dict[str, Any]) -> dict[str, Any]:
    return {"name": type_, "summary": _summary(model), "payload": payload}


def _binary(name: str, summary: str) -> dict[str, Any]:
    payload = {"type": "string", "format": "binary"}
    return {"name": name, "summary": summary, "contentType": "application/octet-stream", "payload": payload}


def _client_frame(type_: str, model: type[Payload]) -> dict[str, Any]:
    """Return the schema of a frame; its data may be left out where nothing in it is needed."""
    required = ["data"] if any(field.is_required() for field in model.model_fields.values()) else []
    frame = _frame(type_, model, required)
    if model is not Authenticate:
        return frame
    token = {"type": "string", "maxLength": MAX_TOKEN_CHARS}
    return {"anyOf": [frame, {**_object(type_, token=token), "required": ["type", "token"]}]}


def _server_frame(type_: str, model: type[Payload]) -> dict[str, Any]:
    """Return the schema of a frame; only answers repeat an id."""
    frame = _frame(type_, model, ["data"])
    if not any(type_ in answers for answers in (*ANSWERS.values(), ("error",))):
        del frame["properties"]["id"]
    return frame


def _frame(type_: str, model: type[Payload], required: list[str]) -> dict[str, Any]:
    fields = {"id": {"type": "string", "maxLength": MAX_FRAME_ID_CHARS}, "data": _schema(model)}
    return {**_object(type_, **fields), "required": ["type", *required]}


def _event(type_: str, model: type[Payload]) -> dict[str, Any]:
    """Return the schema of an event: flat, `type` beside the other fields."""
    return {"allOf": [{**_object(type_), "required": ["type"]}, _schema(model)]}


def _object(type_: str, **fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": {"type": {"const": type_}, **fields}}


def _query(**fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": fields}


def _schema(model: type[Payload]) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def _references(channel: str, *types: str) -> list[dict[str, str]]:
    return [{"$ref": f"#/channels/{channel}/messages/{type_}"} for type_ in types]


def _summary(model: type[Payload]) -> str:
    """Return a model's docstring, as one line."""
    return " ".join((model.__doc__ or "").split())
