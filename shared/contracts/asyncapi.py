"""What backends and browsers exchange with the suite, as AsyncAPI 3: `python -m shared.contracts.asyncapi`.

It is made of the models that edges validate with, of those that the tests hold the edges to, and of the builders of
subjects, so it says what holds. The copy in `docs/asyncapi.json` is for tools (`make asyncapi` writes it anew); the
edges serve it as `/asyncapi.json`. Browsers' part is made in `asyncapi_browsers.py`. Source: AsyncAPI 3.0.0.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from shared.contracts import asyncapi_browsers, subjects
from shared.contracts.events import LogRecord, Notification, Payload, PresenceLeft, PriceTick, SystemStatus
from shared.contracts.ids import ID_PATTERN

VERSION = "0.1.0"


@dataclass(frozen=True, slots=True)
class Channel:
    """One kind of subject, with what is published there.

    Attributes:
        action: what the suite does there, in AsyncAPI's words: `receive` what producers publish, or `send`.
        address: the subject, with its parameters in braces.
    """

    name: str
    action: Literal["receive", "send"]
    address: str
    payload: type[Payload]
    summary: str


def document() -> dict[str, Any]:
    """Return the whole document."""
    channels = _channels()
    payloads = list(dict.fromkeys(channel.payload for channel in channels))
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Fanfare",
            "version": VERSION,
            "description": "What backends exchange with Fanfare over NATS, and browsers over WebSocket and Server-Sent "
            "Events. docs/protocol.md says the same in words; /openapi.json has the calls over HTTP.",
        },
        "defaultContentType": "application/json",
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}} | asyncapi_browsers.servers(),
        "channels": {channel.name: _channel(channel) for channel in channels} | asyncapi_browsers.channels(),
        "operations": {channel.name: _operation(channel) for channel in channels} | asyncapi_browsers.operations(),
        "components": {
            "messages": {payload.__name__: _message(payload) for payload in payloads},
            "schemas": _schemas(payloads + asyncapi_browsers.models()),
            "securitySchemes": asyncapi_browsers.SECURITY,
        },
    }


@lru_cache(maxsize=1)
def document_json() -> bytes:
    """Return the document as JSON, made once: 40 ms."""
    return json.dumps(document(), indent=2, ensure_ascii=False).encode() + b"\n"


# -- private ----------------------------------------------------------------------------------------------------------


def _channels() -> list[Channel]:
    left = subjects.ALL_PRESENCE_LEFT.removesuffix(">") + "{room}.{user}"
    return [
        Channel("notifyUser", "receive", _address(subjects.notify_user, "user"), Notification, "Notify one user."),
        Channel("notifyTopic", "receive", _address(subjects.notify_topic, "topic"), Notification, "Notify a topic."),
        Channel("price", "receive", _address(subjects.price, "symbol"), PriceTick, "A symbol has a new price."),
        Channel(
            "status",
            "receive",
            _address(subjects.status, "component", "instance"),
            SystemStatus,
            "How a running part is; the suite's own services publish here too.",
        ),
        Channel(
            "log",
            "receive",
            _address(subjects.log, "component", "instance"),
            LogRecord,
            "A log record of a running part, for whoever looks now; the suite's own services publish here too.",
        ),
        Channel("presenceLeft", "send", left, PresenceLeft, "A user has left a room: told once, stored for a day."),
    ]


def _address(build: Callable[..., str], *parameters: str) -> str:
    """Return what `build` makes of any ids, with the parameters' names in their places."""
    return re.sub(r"__(\w+?)__", r"{\1}", build(*(f"__{name}__" for name in parameters)))


def _channel(channel: Channel) -> dict[str, Any]:
    message = channel.payload.__name__
    return {
        "address": channel.address,
        "servers": [{"$ref": "#/servers/nats"}],
        "messages": {message: {"$ref": f"#/components/messages/{message}"}},
        "parameters": {
            name: {"description": f"An id: {ID_PATTERN}"} for name in re.findall(r"{(\w+)}", channel.address)
        },
    }


def _operation(channel: Channel) -> dict[str, Any]:
    return {
        "action": channel.action,
        "channel": {"$ref": f"#/channels/{channel.name}"},
        "summary": channel.summary,
    }


def _message(payload: type[Payload]) -> dict[str, Any]:
    return {"name": payload.__name__, "payload": {"$ref": f"#/components/schemas/{payload.__name__}"}}


class _Untitled(GenerateJsonSchema):
    """Schemas without a title for each field, which would only repeat its name."""

    def field_title_should_be_set(self, schema: object) -> bool:
        return False


def _schemas(models: Sequence[type[Payload]]) -> dict[str, Any]:
    _, schemas = models_json_schema(
        [(model, "validation") for model in dict.fromkeys(models)],
        ref_template="#/components/schemas/{model}",
        schema_generator=_Untitled,
    )
    defined: dict[str, Any] = schemas["$defs"]
    return defined


if __name__ == "__main__":
    sys.stdout.buffer.write(document_json())
