"""The endpoints of the notifications: the stream, and what changes or complements it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, model_validator
from sse_starlette import ServerSentEvent

from services.notifications.notices import MAX_HISTORY_PAGE
from services.notifications.parts import NotificationsParts
from services.notifications.prices import clamp_rate, symbols_of
from services.notifications.stream import StreamSession, Wanted, check_topics, parse_cursor, retry_line
from shared.auth.principal import Principal
from shared.contracts import subjects
from shared.contracts.claims import Scope
from shared.contracts.cursor import Position
from shared.contracts.events import Notification, Payload
from shared.contracts.ids import Id, require_id
from shared.edge.admission import address_of
from shared.edge.connection import AsgiStream
from shared.edge.event import chunk
from shared.edge.wire.handover import Departed
from shared.edge.wire.response import StreamResponse
from shared.edge.wire.sse import PooledStream
from shared.errors import BadInput


class Symbols(Payload):
    """Symbols to follow, or to follow no more; of one stream if it is named, else of the user's watchlist."""

    symbols: Annotated[list[Id], Field(min_length=1, max_length=1000)]
    stream: Annotated[str, Field(max_length=129)] | None = None


class Recipient(Payload):
    """A user or a topic."""

    user: Id | None = None
    topic: Id | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Recipient:
        if (self.user is None) == (self.topic is None):
            raise ValueError("name a user or a topic")
        return self

    @property
    def subject(self) -> str:
        """Where notifications for this recipient are published."""
        return subjects.notify_user(self.user) if self.user else subjects.notify_topic(str(self.topic))


class NewNotification(Notification):
    """A notification and whom it is for."""

    to: Recipient


class NewToken(Payload):
    """A fresh access token for an open stream."""

    token: Annotated[str, Field(max_length=4096)]


def parts_of(request: Request) -> NotificationsParts:
    """Return what this service stands on."""
    parts: NotificationsParts = request.state.notifications
    return parts


async def streaming(request: Request) -> Principal:
    """Return who asks, if they may have a stream and do not call too often."""
    parts = parts_of(request)
    principal = await parts.authenticator.request(request.scope, stream=request.url.path == "/api/stream")
    principal.require(Scope.STREAM)
    if parts.calls is not None:
        parts.calls.require(principal.user_id, "calls")
    return principal


async def notifying(request: Request) -> Principal:
    """Return who asks, if they may notify others."""
    principal = await parts_of(request).authenticator.request(request.scope)
    principal.require(Scope.NOTIFY_WRITE)
    return principal


Parts = Annotated[NotificationsParts, Depends(parts_of)]
User = Annotated[Principal, Depends(streaming)]
Producer = Annotated[Principal, Depends(notifying)]


def stream_router() -> APIRouter:
    """Return the stream and the calls that name one."""
    router = APIRouter(prefix="/api/stream", tags=["stream"])

    @router.get("")
    async def stream(
        request: Request,
        parts: Parts,
        user: User,
        topics: Annotated[list[str], Query()] = [],  # noqa: B006  # FastAPI copies it
        symbols: Annotated[list[str], Query()] = [],  # noqa: B006
        max_rate: Annotated[float | None, Query(gt=0, allow_inf_nan=False)] = None,
        events: Annotated[str, Query(pattern="^(named|unnamed)$")] = "unnamed",
        last_event_id: Annotated[str | None, Query(max_length=2048)] = None,
    ) -> Response:
        """Open a stream: `connected`, what was missed since `Last-Event-ID`, then everything as it comes."""
        settings = parts.settings
        place, readable = parse_cursor(request.headers.get("last-event-id") or last_event_id)
        named_symbols = [require_id(symbol, "symbol") for symbol in symbols_of(symbols)]
        if len(named_symbols) > settings.max_symbols:
            raise BadInput(f"a stream follows at most {settings.max_symbols} symbols")
        wanted = Wanted(
            topics=check_topics(user, symbols_of(topics), settings.max_topics),
            symbols=frozenset(named_symbols),
            rate_hz=clamp_rate(
                max_rate, default=settings.default_rate_hz, low=settings.min_rate_hz, high=settings.max_rate_hz
            ),
            named=events == "named",
            place=place,
            readable=readable,
        )
        session = StreamSession(parts, user, wanted, address_of(request.scope))
        session.register()
        return event_stream(session, parts, named=wanted.named)

    @router.post("/{stream}/token")
    async def renew(stream: str, new: NewToken, parts: Parts, user: User) -> dict[str, Any]:
        """Give an open stream a fresh token, so that it outlives the one it was opened with."""
        return await parts.commands.send(stream, {"op": "token", "user": user.user_id, "token": new.token})

    return router


def event_stream(session: StreamSession, parts: NotificationsParts, *, named: bool) -> Response:
    """Return the response that carries the session: in the pool where the server lets go of it, else over ASGI."""
    retry = retry_line(parts.settings.retry_ms)

    async def content() -> AsyncIterator[bytes]:
        out = AsgiStream(parts.limits, named=named)
        session.open(out)
        try:
            yield retry
            async for data in out.chunks():
                yield data
        finally:
            session.close()

    def adopt(departed: Departed) -> None:
        assert parts.pool is not None  # noqa: S101  # see on_departed
        out = PooledStream(parts.pool, departed.fd, parts.limits, named=named)
        out.session = session
        parts.pool.adopt(out)
        out.send(chunk(retry))
        session.open(out)

    return StreamResponse(
        content(),
        on_departed=adopt if parts.pool is not None else None,
        ping=parts.settings.heartbeat_s,
        ping_message_factory=lambda: ServerSentEvent(comment="keep-alive"),
        send_timeout=parts.settings.send_timeout_s,
    )


def stocks_router() -> APIRouter:
    """Return the calls about prices."""
    router = APIRouter(prefix="/api/stocks", tags=["stocks"])

    @router.get("")
    async def list_stocks(parts: Parts, user: User) -> dict[str, Any]:
        """Return the newest value of every symbol."""
        return {"symbols": parts.prices.listing(), "stale": parts.prices.stale}

    @router.post("/subscribe")
    async def subscribe(body: Symbols, parts: Parts, user: User) -> dict[str, Any]:
        """Add symbols: to one stream, or to the watchlist and so to all of the user's streams on every edge."""
        return await _change(parts, user, body.stream, add=body.symbols, remove=[])

    @router.post("/unsubscribe")
    async def unsubscribe(body: Symbols, parts: Parts, user: User) -> dict[str, Any]:
        """Take symbols away again."""
        return await _change(parts, user, body.stream, add=[], remove=body.symbols)

    return router


def notifications_router() -> APIRouter:
    """Return the calls about notifications."""
    router = APIRouter(prefix="/api/notifications", tags=["notifications"])

    @router.post("", status_code=201)
    async def notify(new: NewNotification, parts: Parts, producer: Producer) -> dict[str, Any]:
        """Store a notification for a user or a topic; with an `id`, a repetition is stored once."""
        notice = Notification.model_validate(new.model_dump(exclude={"to"}))
        return await parts.notices.publish(new.to.subject, notice)

    @router.get("")
    async def history(
        parts: Parts,
        user: User,
        after: Annotated[str | None, Query(max_length=2048)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_HISTORY_PAGE)] = 50,
    ) -> dict[str, Any]:
        """Return a page of the caller's notifications, oldest first; without `after`, the last ones."""
        return await parts.notices.history(user.user_id, after=_after(parts, after), limit=limit)

    return router


async def _change(
    parts: NotificationsParts, user: Principal, stream: str | None, *, add: list[str], remove: list[str]
) -> dict[str, Any]:
    if stream is not None:
        command = {"op": "symbols", "user": user.user_id, "add": add, "remove": remove}
        return await parts.commands.send(stream, command)
    watchlist = await parts.watchlists.change(user.user_id, add=add, remove=remove)
    return {"symbols": sorted(watchlist)}


def _after(parts: NotificationsParts, text: str | None) -> int | None:
    if text is None:
        return None
    place = Position.parse(text)
    if place.epoch != parts.line.position.epoch:
        raise BadInput("this cursor is of an earlier life of the stream; load without it")
    return min(place.seq, 2**63 - 1)
