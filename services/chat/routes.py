"""The chat's endpoints: the WebSocket, and the same over HTTP for when there is none."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Depends, Query, Request
from pydantic import Field
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketState

from services.chat.markers import MAX_MARKERS
from services.chat.messages import MAX_HISTORY_PAGE
from services.chat.parts import ChatParts
from services.chat.protocol import pair_cursors
from services.chat.records import MAX_MEMBERS, MAX_TITLE_CHARS
from services.chat.session import ChatSession
from services.chat.settings import ChatSettings
from shared.auth.credentials import find_credential, query_fields
from shared.auth.principal import Principal
from shared.contracts import claims
from shared.contracts.cursor import Position
from shared.contracts.events import Payload
from shared.contracts.frames import SendMessage
from shared.contracts.ids import Id
from shared.contracts.subjects import CHAT
from shared.edge.admission import address_of, caller
from shared.edge.wire.connection import AsgiWebSocket
from shared.edge.wire.handover import Departed, handover_of
from shared.edge.wire.websocket import PooledWebSocket, SocketContext
from shared.errors import BadInput, Conflict, FanfareError
from shared.runtime.app import problem_response


async def chat_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """`WS /ws/chat?room=a&cursor=…&room=b&cursor=…`.

    Accept first: a refusal before that reaches a browser as 1006, without its reason. Only who takes too many
    connections, or comes too often, is refused before there is one more.
    """
    parts: ChatParts = scope["state"]["chat"]
    address = address_of(scope)
    try:
        parts.admission.enter(address, waiting=True)
    except FanfareError as error:
        await problem_response(error)(scope, receive, send)
        return
    try:
        await parts.turns.wait()
        await receive()
        await send({"type": "websocket.accept"})
    except BaseException:
        parts.admission.leave(address, waiting=True)
        raise
    departed = handover_of(scope) if parts.sockets is not None else None
    if parts.sockets is not None and departed is not None:
        await serve_pooled(parts, parts.sockets, departed, scope)
    else:
        await serve_asgi(parts, WebSocket(scope, receive, send))


async def serve_pooled(parts: ChatParts, context: SocketContext, departed: Departed, scope: Scope) -> None:
    """Put a connection that has left the server into the pool; its session lives there."""
    connection = PooledWebSocket(context, departed.fd)
    connection.session = session = ChatSession(parts, connection, address_of(scope))
    await connection.begin(begin(session, parts, scope), departed)


async def serve_asgi(parts: ChatParts, websocket: WebSocket) -> None:
    """Serve an accepted connection where it is, over ASGI."""
    websocket.client_state = websocket.application_state = WebSocketState.CONNECTED
    connection = AsgiWebSocket(websocket, parts.limits)
    session = ChatSession(parts, connection, address_of(websocket.scope))
    try:
        await connection.run(begin(session, parts, websocket.scope), session.receive)
    finally:
        session.close()


async def begin(session: ChatSession, parts: ChatParts, scope: Scope) -> None:
    """Check origin, rooms and credential in this order; without a credential the first frame must bring one."""
    try:
        credential = find_credential(scope)
        parts.authenticator.check_origin(scope, credential)
        wanted = _wanted_rooms(query_fields(scope["query_string"]), parts.settings)
        principal = await parts.authenticator.holder(credential) if credential else None
    except FanfareError as error:
        session.refuse(error)
        return
    await session.open(principal, wanted)


def _wanted_rooms(query: list[tuple[str, str]], settings: ChatSettings) -> dict[str, str | None]:
    return pair_cursors(
        [value for name, value in query if name == "room"],
        [value for name, value in query if name == "cursor"],
        default_room=settings.default_room,
        limit=settings.max_rooms_per_socket,
    )


# -- HTTP -------------------------------------------------------------------------------------------------------------


class NewRoom(Payload):
    """A room to make."""

    room: Id
    title: Annotated[str, Field(max_length=MAX_TITLE_CHARS)] = ""
    private: bool = False
    relay: bool = False
    members: Annotated[tuple[Id, ...], Field(max_length=MAX_MEMBERS)] = ()


class ReadUpTo(Payload):
    """How far a room has been read; without `cursor` all of it."""

    cursor: Annotated[str, Field(max_length=64)] | None = None


class Member(Payload):
    """A member to add or remove; without `userId` the caller means themself."""

    user_id: Id | None = None


async def chat_parts(request: Request) -> ChatParts:
    """Return what this service stands on; a coroutine, since FastAPI runs a plain function in a thread."""
    parts: ChatParts = request.state.chat
    return parts


async def chatting(request: Request) -> Principal:
    """Return who asks, if they may chat."""
    parts = await chat_parts(request)
    principal = await caller(parts.admission, parts.authenticator, request.scope)
    principal.require(claims.Scope.CHAT)
    return principal


Parts = Annotated[ChatParts, Depends(chat_parts)]
Sender = Annotated[Principal, Depends(chatting)]


async def calling(parts: Parts, user: Sender) -> Principal:
    """Return who asks, if they may chat and do not call too often."""
    pay_for_call(parts, user)
    return user


def pay_for_call(parts: ChatParts, user: Principal) -> None:
    """Count a call. Raises RateLimited if there were too many."""
    if parts.calls is not None:
        parts.calls.require(user.user_id, "calls")


User = Annotated[Principal, Depends(calling)]


def messages_router() -> APIRouter:
    """Return the calls that send and read messages."""
    router = APIRouter(prefix="/api/chat", tags=["messages"])

    @router.post("/messages", status_code=201)
    async def send_message(message: SendMessage, parts: Parts, user: Sender) -> dict[str, Any]:
        """Store a message while the WebSocket is down; the same limit and the same ids as there."""
        room = message.room or parts.settings.default_room
        await parts.rooms.admit(user, room)
        if parts.throttle is not None:
            await parts.throttle.admit(user.user_id)
        return (await parts.messages.send(user, room, message.content, message.client_id)).to_data()

    @router.get("/rooms/{room}/messages")
    async def history(
        room: Id,
        parts: Parts,
        user: User,
        before: Annotated[str | None, Query(max_length=64)] = None,
        after: Annotated[str | None, Query(max_length=64)] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_HISTORY_PAGE)] = 50,
    ) -> dict[str, Any]:
        """Return a page of messages, oldest first; `before` and `after` take a cursor or a sequence."""
        await parts.rooms.admit(user, room)
        epoch = await parts.hub.epoch(CHAT)
        return await parts.messages.history(room, before=_place(before, epoch), after=_place(after, epoch), limit=limit)

    return router


def reading_router() -> APIRouter:
    """Return the calls about what the caller has read."""
    router = APIRouter(prefix="/api/chat", tags=["reading"])

    @router.post("/rooms/{room}/read")
    async def mark_read(
        room: Id, parts: Parts, user: User, up_to: Annotated[ReadUpTo | None, Body()] = None
    ) -> dict[str, Any]:
        """Mark a room as read, as the frame `mark_read` does; all sessions of the caller are told."""
        return await parts.reading.mark(user, room, up_to.cursor if up_to else None)

    @router.get("/unread")
    async def unread(
        parts: Parts, user: User, room: Annotated[tuple[Id, ...], Query(max_length=MAX_MARKERS)] = ()
    ) -> dict[str, Any]:
        """Return how much is unread in each room that the caller has marked, or in those that are named."""
        return {"rooms": await parts.reading.unread(user, room, pay=lambda: pay_for_call(parts, user))}

    return router


def rooms_router() -> APIRouter:
    """Return the calls about rooms, their members and who is there."""
    router = APIRouter(prefix="/api/chat/rooms", tags=["rooms"])

    @router.get("")
    async def list_rooms(parts: Parts, user: User, after: Annotated[int, Query(ge=0, lt=2**63)] = 0) -> dict[str, Any]:
        """List the rooms that were made and that the caller may enter; `next`, if it is there, is the next `after`."""
        rooms, following = await parts.rooms.visible(user, after)
        return {"rooms": rooms, "default": parts.settings.default_room, "next": following}

    @router.post("", status_code=201)
    async def make_room(new: NewRoom, parts: Parts, user: User) -> dict[str, Any]:
        """Make a room; a private one admits its owner and members only, in one that relays nobody may be yet."""
        if new.relay and await parts.presence.members(new.room):
            raise Conflict("somebody is in this room, who may not know what is relayed")
        record = await parts.rooms.create(
            user, new.room, title=new.title, private=new.private, members=new.members, relay=new.relay
        )
        return record.to_data()

    @router.delete("/{room}", status_code=204)
    async def delete_room(room: Id, parts: Parts, user: User) -> None:
        """Delete a room (its owner only): all must leave it, and what was said in it is deleted."""
        await parts.rooms.delete(user, room)

    @router.post("/{room}/join")
    async def join_room(room: Id, member: Member, parts: Parts, user: User) -> dict[str, Any]:
        """Add a member to a private room (its owner only)."""
        record = await parts.rooms.set_member(user, room, member.user_id or user.user_id, member=True)
        return record.to_data()

    @router.post("/{room}/leave")
    async def leave_room(room: Id, member: Member, parts: Parts, user: User) -> dict[str, Any]:
        """Remove a member from a private room; their open connections leave it on every edge."""
        record = await parts.rooms.set_member(user, room, member.user_id or user.user_id, member=False)
        return record.to_data()

    @router.get("/{room}/members")
    @router.get("/{room}/presence")
    async def presence(room: Id, parts: Parts, user: User) -> dict[str, Any]:
        """Say who is online in a room, over all edges."""
        await parts.rooms.admit(user, room)
        members = await parts.presence.members(room)
        return {"room": room, "online": [{"userId": member, "username": members[member]} for member in sorted(members)]}

    return router


def _place(text: str | None, epoch: str) -> int | None:
    """Return the sequence that a cursor or a number names.

    Raises:
        BadInput: it is neither, or of another life of the stream: load the newest page instead.
    """
    if text is None:
        return None
    position = Position(epoch, int(text)) if text.isascii() and text.isdigit() else Position.parse(text)
    if position.epoch != epoch:
        raise BadInput("this cursor is of an earlier life of the stream; load without it")
    return min(position.seq, 2**63 - 1)
