"""Log records on their way to whoever looks at them live: bounded in size and number, and never in a logger's way."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import isfinite
from typing import Any, Final

from pydantic_core import to_json
from structlog.typing import EventDict

from shared.clock import now_ms
from shared.telemetry.logs import clean

MAX_WAITING = 256
MAX_EVENT_CHARS = 256
MAX_NAME_CHARS = 64
MAX_TEXT_CHARS = 2_000

RANKS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}
_SHOWN = {"debug": "debug", "warning": "warning", "error": "error", "critical": "error"}
_BESIDE_FIELDS = frozenset({"event", "level", "timestamp", "service", "instance"})

Scalar = bool | int | float | str


class LiveLogs:
    """A processor that keeps a copy of each record at or above a level, as JSON, until somebody takes it.

    Policy when MAX_WAITING wait: the newest is dropped, counted, and told with the next that finds room: what went
    wrong first explains the rest. It logs nothing, waits for nothing and wakes nobody, so any thread may call it; one
    at a time, which the lock of a handler sees to.

    Args:
        component, instance: whose log this is: ids.
        level: the name of the lowest that is kept.
        max_bytes: of a record's JSON; what does not fit is cut, and the record says so.

    Attributes:
        dropped: how many records have found no room.
    """

    def __init__(
        self, component: str, instance: str, level: str, *, max_bytes: int, clock_ms: Callable[[], int] = now_ms
    ) -> None:
        self.component, self.instance, self.level = component, instance, level
        self.dropped = 0
        self._told = self._counted = 0
        self._max_bytes, self._clock_ms = max_bytes, clock_ms
        self._waiting: deque[bytes] = deque()

    def __call__(self, _logger: object, _name: str, event: EventDict) -> EventDict:
        """Keep a copy of what is about to be rendered, and therefore has been redacted."""
        level = event.get("level", "info")
        if RANKS.get(level, RANKS["info"]) >= RANKS[self.level]:
            fields = {name: value for name, value in event.items() if name not in _BESIDE_FIELDS}
            self.put(level, str(event.get("event", "")), fields)
        return event

    def put(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        """Keep a record of whatever level, if there is room."""
        if len(self._waiting) >= MAX_WAITING:
            self.dropped += 1
            return
        self._waiting.append(self._encode(level, event, fields))
        self._told = self.dropped

    def take(self, count: int = MAX_WAITING) -> list[bytes]:
        """Return up to `count` records, oldest first, and forget them."""
        return [self._waiting.popleft() for _ in range(min(count, len(self._waiting)))]

    def newly_dropped(self) -> int:
        """Return how many were dropped since this was asked last."""
        before, self._counted = self._counted, self.dropped
        return self.dropped - before

    # -- private ------------------------------------------------------------------------------------------------------

    def _encode(self, level: str, event: str, fields: Mapping[str, Any]) -> bytes:
        """Return the JSON of `shared.contracts.events.LogRecord`; made without it, which costs a third."""
        record: dict[str, Any] = {
            "component": self.component,
            "instance": self.instance,
            "level": _SHOWN.get(level, "info"),
            "event": _shorten(event, MAX_EVENT_CHARS),
            "timestamp": self._clock_ms(),
        }
        if dropped := self.dropped - self._told:
            record["dropped"] = dropped
        room = self._max_bytes - len(to_json(record | {"truncated": True, "fields": {}}))
        record["fields"], whole = _fit(fields, room)
        if not whole or len(event) > MAX_EVENT_CHARS:
            record["truncated"] = True
        return to_json(record)


def _fit(fields: Mapping[str, Any], room: int) -> tuple[dict[str, Scalar], bool]:
    """Return what of `fields` fits into `room` bytes of JSON, and whether that is all of it."""
    fitting: dict[str, Scalar] = {}
    whole = True
    for name, value in fields.items():
        if value is None:
            continue
        scalar = _scalar(name, value)
        shown = _shorten(scalar, MAX_TEXT_CHARS) if isinstance(scalar, str) else scalar
        field = {_shorten(name, MAX_NAME_CHARS): shown}
        size = len(to_json(field))  # its braces stand for the comma
        if size > room:
            whole = False
            continue
        fitting |= field
        room -= size
        whole = whole and (shown is scalar or shown == scalar)
    return fitting, whole


def _scalar(name: str, value: Any) -> Scalar:
    """Return a value as a browser can show it; what becomes text only here is redacted here."""
    if isinstance(value, (bool, int, str)) or (isinstance(value, float) and isfinite(value)):
        return value
    return str(clean(name, repr(value)))


def _shorten(text: str, max_chars: int) -> str:
    """Return a text without its middle, if it is too long: a traceback's last line is its point. It is valid UTF-8."""
    if len(text) > max_chars:
        half = (max_chars - 1) // 2
        text = f"{text[:half]}…{text[-half:]}"
    return text.encode("utf-8", "replace").decode()
