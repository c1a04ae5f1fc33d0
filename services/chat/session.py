"""One client's session: performs what the protocol says, over whatever connection carries it."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

from services.chat import words
from services.chat.allowance import Allowance
from services.chat.parts import ChatParts
from services.chat.protocol import ChatProtocol
from shared.auth.principal import Principal
from shared.clock import now_ms, now_s
from shared.contracts import frames, subjects
from shared.contracts.claims import Scope
from shared.contracts.close_codes import CloseCode
from shared.contracts.cursor import Position
from shared.contracts.relay import ToRelay
from shared.contracts.wire_errors import close_code, error_data, refusal_code
from shared.edge.delivery.event import Event, make_event
from shared.edge.delivery.gap import Gap
from shared.edge.presence import Online
from shared.edge.timers import Timer
from shared.edge.wire.connection import Connection
from shared.errors import BadInput, FanfareError, Forbidden, RateLimited, TokenExpired, Unauthorized

LIMITED_APART = (frames.SendMessage, frames.TypingStatus, ToRelay)
"""Frames with limits of their own. The first `auth` has one, too: there is no second if it fails."""


class _Entered(NamedTuple):
    """A room that a client is about to listen to.

    Attributes:
        start: from where on.
        data: what the client is told of the room.
        online: who it is told is there.
        relays: whether it hears what others relay, too.
    """

    start: Position
    data: dict[str, Any]
    online: Online
    relays: bool


class ChatSession:
    """From `connected` to the close. It listens to its rooms' topics itself, so that it can be told apart there.

    An edge holds thousands of these idle, so it has slots, and what only a busy client needs is made when it is.

    Attributes:
        rooms: what it follows, in the order of joining; a tuple, since nearly all follow one.
    """

    __slots__ = (
        "_address",
        "_allowance",
        "_connection",
        "_parts",
        "_protocol",
        "_timer",
        "_wanted",
        "principal",
        "rooms",
    )

    def __init__(self, parts: ChatParts, connection: Connection, address: str) -> None:
        """Begin; `address` has been let in (`parts.admission`), and is counted out at the close."""
        self._parts, self._connection, self._address = parts, connection, address
        self._wanted: dict[str, str | None] | None = None
        self._protocol = ChatProtocol(room=parts.settings.default_room)
        self._allowance: Allowance | None = None
        self._timer: Timer | None = None
        self.rooms: tuple[str, ...] = ()
        self.principal: Principal

    # -- what the connection calls ------------------------------------------------------------------------------------

    async def open(self, principal: Principal | None, wanted: dict[str, str | None]) -> None:
        """Begin: with the principal that the handshake gave, or by waiting for the first frame.

        Args:
            wanted: the rooms to follow, each with the cursor to resume from; the first is for frames that name none.
        """
        self._wanted, self._protocol.room = wanted, next(iter(wanted))
        if principal is None:
            self._wake_after(self._parts.settings.auth_deadline_s, self._auth_too_late)
        else:
            await self._try_welcome(principal)

    async def receive(self, raw: str | bytes) -> None:
        """Perform one frame; what is wrong with it is answered, and closes the connection only if it must."""
        given_id = None
        try:
            frame, given_id = self._protocol.receive(raw)
            if self._protocol.authenticated and not isinstance(frame, LIMITED_APART):
                self._allowed().require_command()
            if isinstance(frame, ToRelay):
                await self._relay(frame.room or self._protocol.room, frame.payload)
            else:
                await self._perform(frame, given_id)
        except RateLimited as error:
            self._refuse_frame(error, given_id)
        except FanfareError as error:
            self.end(error, given_id or frames.frame_id(raw))
            if isinstance(error, BadInput | Forbidden) and not self._allowed().bears_wrong_frame():
                self._hang_up(CloseCode.RATE_LIMITED, "too many frames that are wrong")

    def close(self) -> None:
        """The connection is gone: leave every room."""
        self._cancel_timer()
        self._parts.admission.leave(self._address, waiting=not self._protocol.authenticated)
        if self._protocol.authenticated:
            self._parts.sessions.remove(self)
            for room in self.rooms:
                self._depart(room)

    # -- what hub and sessions call -----------------------------------------------------------------------------------

    @property
    def user_id(self) -> str:
        """Whose session it is."""
        return self.principal.user_id

    @property
    def welcomed(self) -> bool:
        """Whether its client has been told `connected`: from then on it always has a timer."""
        return self._timer is not None

    def deliver(self, event: Event) -> None:
        """Hand an event to the client."""
        self._connection.deliver(event)

    async def writable(self) -> None:
        """Return when a replay may go on."""
        await self._connection.writable()

    def end(self, error: FanfareError, given_id: str | None = None) -> None:
        """Tell the client what is wrong; close if that error ends a connection."""
        self._connection.deliver(words.answer("error", error_data(error), given_id))
        code = close_code(error)
        if code is not None:
            self._hang_up(code, error.message[:100])

    def refuse(self, error: FanfareError, given_id: str | None = None) -> None:
        """Tell the client why this connection cannot begin, and close it."""
        self._connection.deliver(words.answer("error", error_data(error), given_id))
        self._hang_up(refusal_code(error), error.message[:100])

    def ask_to_leave(self, after_ms: int) -> None:
        """Tell the client to come back elsewhere, with where it stands in each room, and close."""
        rooms = [{"room": room, "cursor": self._cursor(room)} for room in self.rooms]
        for room in self.rooms:
            self._depart(room, moving=True)
        self._connection.deliver(words.reconnect(after_ms, rooms))
        self._hang_up(CloseCode.RESTART, "come back at another edge")

    def evict(self, room: str, reason: str) -> None:
        """Take the client out of a room that does not admit it any more."""
        self._depart(room)
        self.deliver(make_event("left", {"room": room, "reason": reason}))

    def missed(self, gap: Gap) -> None:
        """Tell the client that something of a room is missing."""
        self.deliver(words.missing(gap))

    # -- what frames ask for ------------------------------------------------------------------------------------------

    async def _perform(self, frame: frames.JsonFrame, given_id: str | None) -> None:
        match frame:
            case frames.SendMessage(content=content, room=room, client_id=client_id):
                await self._store(room or self._protocol.room, content, client_id, given_id)
            case frames.TypingStatus(is_typing=is_typing, room=room):
                await self._show_typing(room or self._protocol.room, is_typing=is_typing)
            case frames.Join(room=room, cursor=cursor):
                await self._follow(room, cursor, given_id)
            case frames.Leave(room=room):
                self._depart(room)
                self.deliver(words.answer("left", {"room": room}, given_id))
            case frames.MarkRead(room=room, cursor=cursor):
                data = await self._parts.reading.mark(self.principal, room or self._protocol.room, cursor, by=self)
                self.deliver(words.answer("read", data, given_id))
            case frames.Ping():
                self.deliver(words.answer("pong", {"timestamp": now_ms()}, given_id))
            case frames.Authenticate(token=token):
                await self._authenticate(token, given_id)

    async def _authenticate(self, token: str, given_id: str | None) -> None:
        principal = await self._parts.authenticator.token(token)
        if not self._protocol.authenticated:
            await self._try_welcome(principal, given_id)
            return
        if principal.user_id != self.principal.user_id:
            raise Unauthorized("a connection cannot change its user")
        principal.require(Scope.CHAT)
        self.principal = principal
        self._watch_expiry()
        self.deliver(words.answer("renewed", {"expiresAt": principal.expires_at_s * 1000}, given_id))

    async def _store(self, room: str, content: str, client_id: str | None, given_id: str | None) -> None:
        await self._parts.rooms.admit(self.principal, room)
        if self._parts.throttle is not None:
            await self._parts.throttle.admit(self.principal.user_id)
        sent = await self._parts.messages.send(self.principal, room, content, client_id)
        ack = words.answer("ack", sent.to_data(), given_id)
        self._parts.hub.answer(subjects.chat_message(room), self._connection, ack)

    async def _show_typing(self, room: str, *, is_typing: bool) -> None:
        if room in self.rooms:
            bucket = self._allowed().typing
            await self._parts.typing.show(self.principal, room, is_typing=is_typing, bucket=bucket)

    async def _relay(self, room: str, payload: bytes) -> None:
        if room not in self.rooms:
            raise Forbidden(f"this connection is not in the room {room}", room=room)
        record = await self._parts.rooms.admit(self.principal, room)
        if record is None or not record.relay:
            raise BadInput(f"the room {room} relays nothing; a room is made to relay")
        await self._parts.relay.send(self.principal, room, payload, self._connection)

    async def _follow(self, room: str, cursor: str | None, given_id: str | None) -> None:
        again = room in self.rooms
        if not again and len(self.rooms) >= self._parts.settings.max_rooms_per_socket:
            raise BadInput(f"a connection follows at most {self._parts.settings.max_rooms_per_socket} rooms")
        entered = await self._enter(room, cursor)
        self.deliver(words.answer("joined", entered.data, given_id))
        if cursor or not again:
            try:
                await self._attach(room, entered)
            except FanfareError:
                self._depart(room)  # rather out than in and deaf; the client is told, and joins again
                raise

    # -- rooms --------------------------------------------------------------------------------------------------------

    async def _try_welcome(self, principal: Principal, given_id: str | None = None) -> None:
        try:
            await self._welcome(principal, given_id)
        except FanfareError as error:
            self.refuse(error, given_id)

    async def _welcome(self, principal: Principal, given_id: str | None) -> None:
        """Register first, then tell: whoever can be heard of can also be ended."""
        principal.require(Scope.CHAT)
        self.principal = principal
        self._cancel_timer()
        self._parts.sessions.add(self)
        self._protocol.authenticated = True
        self._parts.admission.known(self._address)
        wanted, self._wanted = self._wanted or {}, None
        entered = {room: await self._enter(room, cursor) for room, cursor in wanted.items()}
        rooms = [each.data for each in entered.values()]
        self.deliver(words.connected(principal, rooms, self._parts.settings, given_id))
        self._watch_expiry()
        for room, each in entered.items():
            await self._attach(room, each)

    async def _enter(self, room: str, cursor: str | None) -> _Entered:
        """Admit to a room and say where reading starts: at the client's cursor, or now.

        The room is noted as soon as it admits, so that an eviction finds this session while it is still entering.
        """
        start = Position.parse(cursor) if cursor else None
        record = await self._parts.rooms.admit(self.principal, room)
        relays = record is not None and record.relay
        again = room in self.rooms
        if not again:
            self.rooms = (*self.rooms, room) if self.rooms else _alone(room)
        try:
            if not again:
                await self._parts.presence.join(room, self.user_id, self.principal.username)
            if relays:
                await self._parts.relay.follow(room)
            here = await self._parts.hub.position(subjects.CHAT, subjects.chat_message(room))
        except FanfareError:
            if not again:
                self._depart(room)
            raise
        if room not in self.rooms:
            raise Forbidden(f"the room {room} is private", room=room)
        members = self._parts.presence.listed(room, self.user_id)
        data = {"room": room, "cursor": str(start or here), "members": members}
        return _Entered(start or here, data, self._parts.presence.online(room), relays)

    async def _attach(self, room: str, entered: _Entered) -> None:
        """Listen; and be told who came and went since the client was told who is here: only listeners hear of that."""
        if room not in self.rooms or self._connection.closing:
            return
        subject = subjects.chat_message(room)
        self._parts.hub.detach(subject, self)  # joined again from a cursor: the past first, then what is live
        gap = await self._parts.hub.attach(subjects.CHAT, subject, self, entered.start, outlet=self._connection)
        if room not in self.rooms or self._connection.closing:
            self._parts.hub.detach(subject, self)
            return
        if gap is not None:
            self.missed(gap)
        if entered.relays:
            await self._parts.relay.follow(
                room
            )  # again: what was replayed before may have taken longer than it lingers
        for user, name, online in self._parts.presence.changes(room, entered.online):
            self.deliver(words.presence(room, user, name, online=online))

    def _cursor(self, room: str) -> str | None:
        """Return where the client stands in a room; None while it is replayed to: what it received says it."""
        reached = self._parts.hub.reached(subjects.chat_message(room), self)
        return str(reached) if reached is not None else None

    def _depart(self, room: str, *, moving: bool = False) -> None:
        if room in self.rooms:
            self.rooms = tuple(other for other in self.rooms if other != room)
            self._parts.hub.detach(subjects.chat_message(room), self)
            self._parts.presence.leave(room, self.user_id, moving=moving)

    def _hang_up(self, code: CloseCode, reason: str) -> None:
        """Close, behind the acks that are about to be written."""
        self._parts.hub.settle()
        self._connection.close(code, reason)

    # -- time and limits ----------------------------------------------------------------------------------------------

    def _watch_expiry(self) -> None:
        delay_s = self.principal.warn_in_s(now_s(), self._parts.settings.expiry_warning_s)
        self._wake_after(delay_s, self._warn_of_expiry)

    def _warn_of_expiry(self) -> None:
        left_s = max(0, self.principal.expires_at_s - now_s())  # it may have come in the leeway behind its end
        self.deliver(make_event("token_expiring", {"inMs": left_s * 1000}))
        self._wake_after(left_s, self._expired)

    def _expired(self) -> None:
        self.end(TokenExpired("the token has expired: renew it and reconnect"))

    def _auth_too_late(self) -> None:
        self.end(Unauthorized(f"no auth frame within {self._parts.settings.auth_deadline_s:g} s"))

    def _allowed(self) -> Allowance:
        if self._allowance is None:
            self._allowance = Allowance(self._parts.settings)
        return self._allowance

    def _refuse_frame(self, error: RateLimited, given_id: str | None) -> None:
        self.end(error, given_id)
        if not self._allowed().bears_refusal() or not self._protocol.authenticated:
            self._hang_up(CloseCode.RATE_LIMITED, error.message)

    def _wake_after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Set the session's one timer."""
        self._cancel_timer()
        self._timer = self._parts.wheel.after(delay_s, callback)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


@lru_cache(maxsize=4096)
def _alone(room: str) -> tuple[str]:
    """Return one tuple, and one text, for all who follow this room alone."""
    return (room,)
