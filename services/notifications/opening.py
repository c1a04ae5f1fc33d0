"""How a stream opens: what its query may say, who may, and the answer that carries its session."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from services.notifications.parts import NotificationsParts
from services.notifications.prices import clamp_rate, symbols_of
from services.notifications.settings import NotificationsSettings
from services.notifications.stream import StreamSession
from services.notifications.wanted import Wanted, check_topics, parse_cursor
from services.notifications.watchlists import NO_SYMBOLS
from shared.auth.credentials import query_fields
from shared.auth.principal import Principal
from shared.contracts.claims import Scope as TokenScope
from shared.contracts.events import LogLevel
from shared.contracts.ids import require_id
from shared.edge.admission import address_of
from shared.edge.wire.connection import AsgiStream
from shared.edge.wire.handover import Departed
from shared.edge.wire.response import StreamResponse
from shared.edge.wire.sse import PooledNamedStream, PooledStream
from shared.errors import BadInput

PATH = "/api/stream"
_LISTS = frozenset({"topics", "symbols"})


class StreamQuery(BaseModel):
    """What a client asks for.

    Attributes:
        topics, symbols: names, in one value with commas or in several.
        max_rate: price updates a second, at most.
        events: `named` for events with an `event:` line.
        logs: the lowest level of log records to be told besides; needs the scope `ops:read`.
        last_event_id: where it was, for clients that cannot set the header `Last-Event-ID`.
    """

    model_config = ConfigDict(frozen=True)

    topics: tuple[str, ...] = ()
    symbols: tuple[str, ...] = ()
    max_rate: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    events: Literal["named", "unnamed"] = "unnamed"
    logs: LogLevel | None = None
    last_event_id: Annotated[str, Field(max_length=2048)] | None = None


_FIELDS = frozenset(StreamQuery.model_fields)
MAX_KEPT_QUERY_BYTES = 512
"""Of a query that is remembered; nobody has been asked who they are when it is read."""


async def stream_endpoint(scope: Scope, receive: Receive, send: Send) -> None:
    """`GET /api/stream`, past FastAPI: what a stream costs is its opening."""
    parts: NotificationsParts = scope["state"]["notifications"]
    parts.admission.arrive(address_of(scope))
    await parts.turns.wait()
    response = await open_stream(scope, read_query(scope["query_string"]))
    await response(scope, receive, send)


async def open_stream(scope: Scope, query: StreamQuery) -> StreamResponse:
    """Return the answer that begins a stream.

    Raises:
        Unauthorized, Forbidden, RateLimited: whoever asks may not; also what `authenticator.request` raises.
        BadInput: a name is none, or there are too many.
    """
    parts: NotificationsParts = scope["state"]["notifications"]
    user = permitted(parts, await parts.authenticator.request(scope, stream=True))
    wanted = _wanted(query, _last_event_id(scope), user, parts.settings)
    session = StreamSession(parts, user, wanted, address_of(scope))
    session.register()
    return _carry(session, parts, named=wanted.named)


def permitted(parts: NotificationsParts, principal: Principal) -> Principal:
    """Return who asks, if they may have a stream and do not call too often."""
    principal.require(TokenScope.STREAM)
    if parts.calls is not None:
        parts.calls.require(principal.user_id, "calls")
    return principal


def read_query(query_string: bytes) -> StreamQuery:
    """Return what the query says; of a field that stands there twice the last counts, as everywhere.

    Raises:
        RequestValidationError: a field is not valid; also BadInput.
    """
    fields = tuple([field for field in query_fields(query_string) if field[0] in _FIELDS])
    return _known_query(fields) if len(query_string) <= MAX_KEPT_QUERY_BYTES else _query(fields)


# -- private ----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _known_query(fields: tuple[tuple[str, str], ...]) -> StreamQuery:
    """Return one query for all streams of a page; credentials are not among the fields."""
    return _query(fields)


def _query(fields: tuple[tuple[str, str], ...]) -> StreamQuery:
    found: dict[str, Any] = {}
    for name, value in fields:
        found[name] = (*found.get(name, ()), value) if name in _LISTS else value
    try:
        return StreamQuery.model_validate(found)
    except ValidationError as error:
        raise RequestValidationError([{**each, "loc": ("query", *each["loc"])} for each in error.errors()]) from None


def _wanted(query: StreamQuery, last_event_id: str | None, user: Principal, settings: NotificationsSettings) -> Wanted:
    place, readable = parse_cursor(last_event_id or query.last_event_id)
    symbols = [require_id(symbol, "symbol") for symbol in symbols_of(query.symbols)]
    if len(symbols) > settings.max_symbols:
        raise BadInput(f"a stream follows at most {settings.max_symbols} symbols")
    if query.logs is not None:
        user.require(TokenScope.OPS_READ)
    rate_hz = clamp_rate(
        query.max_rate, default=settings.default_rate_hz, low=settings.min_rate_hz, high=settings.max_rate_hz
    )
    return Wanted(
        topics=check_topics(user, query.topics, settings.max_topics),
        symbols=frozenset(symbols) if symbols else NO_SYMBOLS,
        rate_hz=rate_hz,
        named=query.events == "named",
        place=place,
        readable=readable,
        logs=query.logs,
    )


def _last_event_id(scope: Mapping[str, Any]) -> str | None:
    headers: Sequence[tuple[bytes, bytes]] = scope["headers"]
    return next((value.decode("latin-1") for name, value in headers if name == b"last-event-id"), None)


def _carry(session: StreamSession, parts: NotificationsParts, *, named: bool) -> StreamResponse:
    """Return the answer that carries the session: in the pool where the server lets go of it, else over ASGI."""

    async def content() -> AsyncIterator[bytes]:
        out = AsgiStream(parts.limits, named=named)
        session.open(out)
        try:
            async for data in out.chunks():
                yield data
        finally:
            session.close()

    def stay() -> EventSourceResponse:
        return EventSourceResponse(
            content(),
            ping=parts.settings.heartbeat_s,
            ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
            send_timeout=parts.settings.send_timeout_s,
        )

    def adopt(departed: Departed) -> None:
        assert parts.pool is not None  # noqa: S101  # see on_departed
        out = (PooledNamedStream if named else PooledStream)(parts.pool, departed.fd, parts.limits)
        out.session = session
        parts.pool.adopt(out)
        if out.fd < 0:
            return  # and the session is closed
        out.hold(departed.unsent)
        session.open(out)

    return StreamResponse(stay, on_departed=adopt if parts.pool is not None else None)
