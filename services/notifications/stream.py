"""One client's stream: what it follows, where it stands, and the events on their way to it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from services.notifications import words
from services.notifications.parts import NotificationsParts
from services.notifications.prices import PriceFlow
from services.notifications.wanted import Wanted, check_topics
from services.notifications.watchlists import NO_WATCHLIST, Watchlist
from shared.auth.principal import Principal
from shared.clock import now_s
from shared.contracts import subjects
from shared.contracts.claims import Scope
from shared.contracts.cursor import Position
from shared.contracts.wire_errors import error_data
from shared.edge.commands import ENDED
from shared.edge.delivery.event import Event, make_event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.delivery.listener import Outlet
from shared.edge.timers import Timer
from shared.edge.wire.connection import StreamOut
from shared.errors import BadInput, FanfareError, Gone, RateLimited, TokenExpired, Unauthorized


class StreamSession:
    """From `connected` to the end of the stream. It listens to its subjects itself.

    An edge holds thousands of these idle, so it has slots, and nothing that only a busy client needs.
    """

    __slots__ = (
        "_address",
        "_asked",
        "_cursor",
        "_flow",
        "_last_word",
        "_number",
        "_out",
        "_parts",
        "_rate_hz",
        "_starting",
        "_timer",
        "_topics",
        "_wanted",
        "_watchlist",
        "principal",
    )

    def __init__(self, parts: NotificationsParts, principal: Principal, wanted: Wanted, address: str) -> None:
        self._parts, self._address = parts, address
        self.principal = principal
        self._wanted: Wanted | None = wanted
        self._topics, self._asked, self._rate_hz = wanted.topics, wanted.symbols, wanted.rate_hz
        self._cursor = str(wanted.place) if wanted.place else ""
        self._flow: PriceFlow | None = None
        self._watchlist = NO_WATCHLIST
        self._timer: Timer | None = None
        self._out: StreamOut | None = None
        self._last_word: Event | None = None
        self._starting: asyncio.Task[None] | None = None
        self._number = 0

    # -- from begin to end --------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Be counted and found; raises RateLimited when there are too many."""
        self._parts.admission.enter(self._address, waiting=False)
        try:
            self._parts.sessions.add(self)
        except RateLimited:
            self._parts.admission.leave(self._address, waiting=False)
            raise
        self._number = self._parts.commands.register(self)
        if self._parts.sessions.draining:  # it came on a connection that was kept alive: no balancer sends it here
            self.ask_to_leave(0)

    def open(self, out: StreamOut) -> None:
        """Begin to tell the client over `out`; one that was ended while its head was sent gets that word only."""
        self._out = out
        if self._last_word is not None:
            self._finish(self._last_word)
            return
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self._begin(wanted)

    def _begin(self, wanted: Wanted) -> None:
        """Say `connected`, then deliver what was missed, then what comes. Only what was missed has to be waited for."""
        line = self._parts.line
        self._cursor = self._cursor or line.cursor
        settings = self._parts.settings
        self.deliver(words.connected(self.user_id, self.name, self._cursor, self._topics, settings))
        self._watch_expiry()
        self._watch_symbols()
        self._parts.watchlists.follow(self.user_id)
        if Scope.OPS_READ in self.principal.scopes:
            self._parts.statuses.add(self)
        if wanted.logs is not None:
            self._parts.logs.add(self, wanted.logs)
        if wanted.place is not None and wanted.place != line.position:
            self._starting = self._parts.tasks.spawn(self._resume(wanted.place), f"resume {self.name}")
            self._starting.add_done_callback(self._resumed)
            return
        line.join(self, self._subjects)
        if not wanted.readable:
            self.missed([Gap(each, "", 0, 0, GapReason.UNKNOWN) for each in self._subjects], line.position)

    def close(self) -> None:
        """The stream is over: follow nothing any more."""
        if self._starting is not None:
            self._starting.cancel()
        if self._out is not None:
            self._out.close()
        if self._flow is not None:
            self._flow.close()
        if self._timer is not None:
            self._timer.cancel()
        self._parts.line.leave(self, self._subjects)
        self._parts.statuses.remove(self)
        self._parts.logs.remove(self)
        if self._parts.sessions.remove(self):
            self._parts.admission.leave(self._address, waiting=False)
        self._parts.commands.forget(self._number)

    # -- what hub, board and sessions call ----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """`<edge>.<id>`, by which a POST at any edge finds it."""
        return self._parts.commands.name(self._number)

    @property
    def user_id(self) -> str:
        """Whose stream it is."""
        return self.principal.user_id

    @property
    def outlet(self) -> Outlet:
        """Where prices go, and events once it has joined the line, which knows then where its client stands."""
        return self._out or self

    def deliver(self, event: Event) -> None:
        """Hand over an event; what is stored moves the cursor."""
        if event.cursor:
            self._cursor = event.cursor
        if self._out is not None:
            self._out.deliver(event)

    async def writable(self) -> None:
        """Return when a replay may go on."""
        if self._out is not None:
            await self._out.writable()

    def end(self, error: FanfareError) -> None:
        """Say why, and end the stream."""
        self._finish(make_event("error", error_data(error)))

    def ask_to_leave(self, after_ms: int) -> None:
        """Ask the client to open its stream elsewhere, and end this one."""
        reached = self._parts.line.reached(subjects.notify_user(self.user_id), self)
        self._finish(words.reconnect(after_ms, reached or self._cursor))

    def watchlist_changed(self, watchlist: Watchlist) -> None:
        """Follow the user's watchlist; what is older than what is known came late."""
        if watchlist.revision > self._watchlist.revision:
            self._watchlist = watchlist
            self._watch_symbols()

    def missed(self, gaps: Sequence[Gap], place: Position) -> None:
        """Announce what was missed. Only the last word moves the cursor, so that none of them can be missed itself."""
        *others, last = map(words.missing, gaps)
        for word in (*others, last.at(str(place))):
            self.deliver(word)

    # -- commands -----------------------------------------------------------------------------------------------------

    async def command(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out a POST that names this stream; it may have come from any edge."""
        if command.get("user") != self.user_id:
            raise Gone(ENDED)
        match command.get("op"):
            case "symbols":
                changed = (self._asked | set(command["add"])) - set(command["remove"])
                if len(changed) > self._parts.settings.max_symbols:
                    raise BadInput(f"a stream follows at most {self._parts.settings.max_symbols} symbols")
                self._asked = changed
                return {"symbols": sorted(self._watch_symbols())}
            case "token":
                return await self._renew(str(command.get("token", "")))
            case _:
                raise BadInput("unknown command")

    async def _renew(self, token: str) -> dict[str, Any]:
        principal = await self._parts.authenticator.token(token)
        if principal.user_id != self.user_id:
            raise Unauthorized("a stream cannot change its user")
        principal.require(Scope.STREAM)
        check_topics(principal, self._topics, self._parts.settings.max_topics)
        self.principal = principal
        if Scope.OPS_READ not in principal.scopes:
            self._parts.statuses.remove(self)
            self._parts.logs.remove(self)
        self._watch_expiry()
        return {"expiresAt": principal.expires_at_s * 1000}

    # -- private ------------------------------------------------------------------------------------------------------

    @property
    def _subjects(self) -> list[str]:
        return [subjects.notify_user(self.user_id), *map(subjects.notify_topic, self._topics)]

    async def _resume(self, place: Position) -> None:
        try:
            await self._parts.line.resume(self, self._subjects, place)
        except FanfareError as error:
            self.end(error)

    def _resumed(self, resuming: asyncio.Task[None]) -> None:
        """End a stream whose resume failed, rather than leave it open and silent; the task's keeper has logged why."""
        self._starting = None
        if self._out is not None and (resuming.cancelled() or resuming.exception() is not None):
            self._out.close()

    def _finish(self, event: Event) -> None:
        """Say a last word, and end the stream; as soon as it is open, if it is not yet."""
        self._last_word = event
        if self._out is not None:
            self._out.deliver(event)
            self._out.close()

    def _watch_symbols(self) -> frozenset[str]:
        """Follow what was asked for and the watchlist; return both. Most streams follow no price and have no flow."""
        symbols = self._asked | self._watchlist.symbols
        if self._out is None:
            return symbols
        if symbols and self._flow is None:
            self._flow = PriceFlow(self._parts.prices, self, rate_hz=self._rate_hz)
        if self._flow is not None:
            self._flow.set_symbols(symbols)
        return symbols

    def _watch_expiry(self) -> None:
        self._wake_after(self.principal.warn_in_s(now_s(), self._parts.settings.expiry_warning_s))

    def __call__(self) -> None:
        """Warn of the token's end, or end with it. The timer calls the session itself: a method would be an object."""
        left_s = self.principal.expires_at_s - now_s()
        if left_s <= 0:
            self.end(TokenExpired("the token has expired: renew it and reconnect"))
            return
        self.deliver(make_event("token_expiring", {"inMs": left_s * 1000}))
        self._wake_after(left_s)

    def _wake_after(self, delay_s: float) -> None:
        """Set the session's one timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._parts.wheel.after(delay_s, self)
