"""Structured logs: one JSON object a line, no credential in it, the trace id where there is one."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from structlog.typing import EventDict, FilteringBoundLogger

from shared.telemetry import tracing

SECRET_FIELDS = frozenset(
    {"token", "access_token", "refresh_token", "ticket", "password", "authorization", "cookie", "set-cookie", "secret"}
)
REDACTED = "[redacted]"
_IN_TEXT = re.compile(
    r"(?i)((?:token|ticket|password|secret)=)[^&\s\"']+|(bearer\s+)[\w.~+/=-]+|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]+"
)


def get_logger() -> FilteringBoundLogger:
    """Return a logger; the trace id and what is bound to the context come with each line."""
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger


def configure_logs(
    level: str, *, service: str, instance: str, pretty: bool = False, live: structlog.typing.Processor | None = None
) -> None:
    """Send all logs of this process to standard error; call it once, from main.

    Args:
        level: name of the lowest level that is written.
        pretty: for a person at a terminal; the default is one JSON object a line.
        live: gets each line's fields as they are written, redacted; it returns them unchanged.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        _add_trace,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _who(service, instance),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=False,
    )
    meta = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    written = [meta, renderer] if live is None else [meta, live, renderer]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=written))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "nats", "uvicorn.access", "aiosqlite"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def redact(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Take credentials out of a line: fields by name, and what looks like one inside any text."""
    return {key: clean(key, value) for key, value in event.items()}


def clean(key: str, value: Any) -> Any:
    """Return one field's value without a credential."""
    if key.lower() in SECRET_FIELDS:
        return REDACTED
    if isinstance(value, str):
        return _IN_TEXT.sub(lambda match: (match[1] or match[2] or "") + REDACTED, value)
    return value


# -- private ----------------------------------------------------------------------------------------------------------


def _add_trace(_logger: object, _name: str, event: EventDict) -> EventDict:
    """Add the trace id. Here, since few requests have anything logged, and to bind it to each would cost them all."""
    if trace_id := tracing.trace_id():
        event.setdefault("trace_id", trace_id)
    return event


def _who(service: str, instance: str) -> structlog.typing.Processor:
    def add(_logger: object, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        event["service"], event["instance"] = service, instance
        return event

    return add
