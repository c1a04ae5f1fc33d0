"""The endpoints of the notifications: the stream, and what changes or complements it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field, model_validator

from services.notifications.notices import MAX_HISTORY_PAGE
from services.notifications.opening import StreamQuery, open_stream, permitted
from services.notifications.parts import NotificationsParts
from services.notifications.wanted import check_topics
from shared.auth.principal import Principal
from shared.contracts import subjects
from shared.contracts.claims import Scope
from shared.contracts.cursor import Position
from shared.contracts.events import Notification, Payload
from shared.contracts.ids import Id
from shared.edge.admission import caller
from shared.edge.wire.response import StreamResponse
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


async def parts_of(request: Request) -> NotificationsParts:
    """Return what this service stands on."""
    parts: NotificationsParts = request.state.notifications
    return parts


async def calling(request: Request) -> Principal:
    """Return who asks, if they may have what streams have, and do not call too often."""
    parts = await parts_of(request)
    return permitted(parts, await caller(parts.admission, parts.authenticator, request.scope))


async def notifying(request: Request) -> Principal:
    """Return who asks, if they may notify others."""
    parts = await parts_of(request)
    principal = await caller(parts.admission, parts.authenticator, request.scope)
    principal.require(Scope.NOTIFY_WRITE)
    return principal


Parts = Annotated[NotificationsParts, Depends(parts_of)]
User = Annotated[Principal, Depends(calling)]
Producer = Annotated[Principal, Depends(notifying)]


def stream_router() -> APIRouter:
    """Return the stream and the calls that name one."""
    router = APIRouter(prefix="/api/stream", tags=["stream"])

    @router.get("", status_code=200, response_class=StreamResponse)
    async def stream(request: Request, query: Annotated[StreamQuery, Query()]) -> Response:
        """Open a stream: `connected`, what was missed since `Last-Event-ID`, then everything as it comes.

        It stands here to be documented: requests reach `stream_endpoint`, which does the same.
        """
        return await open_stream(request.scope, query)

    @router.post("/{stream}/token")
    async def renew(stream: str, new: NewToken, parts: Parts, user: User) -> dict[str, Any]:
        """Give an open stream a fresh token, so that it outlives the one it was opened with."""
        return await parts.commands.send(stream, {"op": "token", "user": user.user_id, "token": new.token})

    return router


def stocks_router() -> APIRouter:
    """Return the calls about prices."""
    router = APIRouter(prefix="/api/stocks", tags=["stocks"])

    @router.get("")
    async def list_stocks(parts: Parts, user: User) -> Response:
        """Return the newest value of every symbol."""
        return Response(await parts.prices.listing(), media_type="application/json")

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
        topic: Id | None = None,
        after: Annotated[str | None, Query(max_length=2048)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_HISTORY_PAGE)] = 50,
    ) -> dict[str, Any]:
        """Return a page of the caller's notifications or a topic's, oldest first; without `after`, the last ones."""
        subject = subjects.notify_user(user.user_id)
        if topic is not None:
            check_topics(user, (topic,), limit=1)
            subject = subjects.notify_topic(topic)
        return await parts.notices.history(subject, after=_after(parts, after), limit=limit)

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
