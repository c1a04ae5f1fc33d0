"""WebSocket frames from clients: `{"type":…,"id":?,"data":{…}}`, the article's shapes among them, and bytes to relay.

`userId` and `timestamp` in the data are accepted for the article's clients and ignored: the token says who sends, the
server says when.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field, ValidationError
from pydantic_core import from_json

from shared.contracts.events import MAX_CONTENT_CHARS, Payload
from shared.contracts.ids import Id
from shared.contracts.relay import ToRelay, is_relay, parse_relay
from shared.errors import BadId, BadInput, TooLarge

MAX_FRAME_BYTES: Final = 64 * 1024
MAX_FRAME_ID_CHARS: Final = 64


class Authenticate(Payload):
    """`auth`: the first frame of a client that could set no header; later, the renewal of its token."""

    token: Annotated[str, Field(max_length=4096)]


class SendMessage(Payload):
    """`send_message`: store a message in a room; `clientId` makes a repetition harmless."""

    content: Annotated[str, Field(max_length=MAX_CONTENT_CHARS)]
    room: Id | None = None
    client_id: Id | None = None


class TypingStatus(Payload):
    """`typing_status`: this user began or ended to type."""

    is_typing: bool
    room: Id | None = None


class Join(Payload):
    """`join`: follow one more room, from `cursor` on if it is given."""

    room: Id
    cursor: Annotated[str, Field(max_length=64)] | None = None


class Leave(Payload):
    """`leave`: follow a room no more."""

    room: Id


class MarkRead(Payload):
    """`mark_read`: this user has read a room up to `cursor`, by default all of it."""

    room: Id | None = None
    cursor: Annotated[str, Field(max_length=64)] | None = None


class Ping(Payload):
    """`ping`: answered with `pong`."""


JsonFrame = Authenticate | SendMessage | TypingStatus | Join | Leave | MarkRead | Ping
ClientFrame = JsonFrame | ToRelay

CLIENT_FRAMES: Final[dict[str, type[JsonFrame]]] = {
    "auth": Authenticate,
    "send_message": SendMessage,
    "typing_status": TypingStatus,
    "join": Join,
    "leave": Leave,
    "mark_read": MarkRead,
    "ping": Ping,
}


def parse_frame(raw: str | bytes) -> tuple[ClientFrame, str | None]:
    """Return a frame and the id its sender gave it, which the answer repeats; bytes to relay have none.

    Raises:
        BadInput: it is not one of the frames above; also TooLarge, BadId.
    """
    encoded = _bytes(raw)
    if len(encoded) > MAX_FRAME_BYTES:
        raise TooLarge("frame", MAX_FRAME_BYTES)
    if is_relay(encoded):
        return parse_relay(encoded), None
    try:
        value = from_json(encoded, allow_inf_nan=False)
    except ValueError:
        raise BadInput("a frame is a JSON object with a type") from None
    if not isinstance(value, dict) or not isinstance(value.get("type"), str):
        raise BadInput("a frame is a JSON object with a type")
    return _parse_data(value), _frame_id(value)


def frame_id(raw: str | bytes) -> str | None:
    """Return the id of a frame that may be wrong in every other way, for its error to repeat."""
    try:
        value = from_json(_bytes(raw))
    except ValueError:
        return None
    return _frame_id(value) if isinstance(value, dict) else None


# -- private ----------------------------------------------------------------------------------------------------------


def _bytes(raw: str | bytes) -> bytes:
    return raw if isinstance(raw, bytes) else raw.encode("utf-8", "surrogatepass")


def _parse_data(value: dict[str, Any]) -> JsonFrame:
    kind = CLIENT_FRAMES.get(value["type"])
    if kind is None:
        raise BadInput(f"unknown frame type; known are {', '.join(CLIENT_FRAMES)}")
    # The article's client sends {"type":"auth","token":…} with the token at the top level.
    data = value if kind is Authenticate and "token" in value else value.get("data", {})
    try:
        frame: JsonFrame = kind.__pydantic_validator__.validate_python(data)  # `model_validate` less its options
    except ValidationError as error:
        raise _explain(error) from None
    return frame


def _explain(error: ValidationError) -> BadInput:
    """Return the first thing that is wrong, in the words of the contract and without the input."""
    first = error.errors(include_input=False, include_url=False, include_context=False)[0]
    field = ".".join(map(str, first["loc"])) or "data"
    if first["type"] == "string_pattern_mismatch":
        return BadId(field)
    if first["type"] == "string_too_long" and field == "content":
        return TooLargeContent()
    return BadInput(f"{field}: {first['msg']}")


class TooLargeContent(BadInput):
    """The text of a message is too long; unlike a frame that is too large, the connection stays."""

    def __init__(self) -> None:
        super().__init__(f"content exceeds the limit of {MAX_CONTENT_CHARS} characters")


def _frame_id(value: dict[str, Any]) -> str | None:
    given = value.get("id")
    return given if isinstance(given, str) and len(given) <= MAX_FRAME_ID_CHARS else None
