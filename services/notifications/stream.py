"""One client's stream: what it follows, where it stands, and the events on their way to it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from services.notifications.parts import NotificationsParts
from services.notifications.positions import Positions
from services.notifications.prices import PriceFlow
from services.notifications.watchlists import NO_WATCHLIST, Watchlist
from shared.auth.principal import Principal
from shared.clock import now_ms, now_s
from shared.contracts import subjects
from shared.contracts.claims import Scope
from shared.contracts.cursor import Position, Vector
from shared.contracts.ids import require_id
from shared.contracts.wire_errors import error_data
from shared.edge.commands import ENDED
from shared.edge.connection import StreamOut
from shared.edge.event import Event, make_event
from shared.edge.replay import Gap, GapReason
from shared.edge.timers import Timer
from shared.errors import BadInput, FanfareError, Gone, RateLimited, TokenExpired, Unauthorized


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for when it opened its stream.

    Attributes:
        cursor: where it was; None for now. `readable` is False if it sent something that is no cursor.
        rate_hz: at most so many price flushes a second.
    """

    topics: tuple[str, ...]
    symbols: frozenset[str]
    rate_hz: float
    named: bool
    cursor: Vector | None
    readable: bool


class StreamSession:
    """From `connected` to the end of the stream. It listens to its subjects itself.

    Attributes:
        name: `<edge>.<id>`, by which a POST at any edge finds it.
    """

    __slots__ = (
        "_address",
        "_asked",
        "_flow",
        "_last_word",
        "_out",
        "_own",
        "_parts",
        "_positions",
        "_starting",
        "_timer",
        "_topics",
        "_wanted",
        "_watchlist",
        "name",
        "principal",
    )

    def __init__(self, parts: NotificationsParts, principal: Principal, wanted: Wanted, address: str) -> None:
        self._parts, self._wanted, self._address = parts, wanted, address
        self.principal = principal
        self._own = subjects.notify_user(principal.user_id)
        self._topics = {topic: subjects.notify_topic(topic) for topic in wanted.topics}
        self._positions = Positions(self._own, self._topics)
        self._flow: PriceFlow | None = None
        self._asked = wanted.symbols
        self._watchlist = NO_WATCHLIST
        self._timer: Timer | None = None
        self._out: StreamOut | None = None
        self._last_word: Event | None = None
        self._starting: asyncio.Task[None] | None = None
        self.name = ""

    # -- from begin to end --------------------------------------------------------------------------------------------

    def register(self) -> None:
        """Be counted and found; raises RateLimited when there are too many."""
        self._parts.admission.enter(self._address, waiting=False)
        try:
            self._parts.sessions.add(self)
        except RateLimited:
            self._parts.admission.leave(self._address, waiting=False)
            raise
        self.name = self._parts.commands.register(self._command)
        if self._parts.sessions.draining:  # it came on a connection that was kept alive: no balancer sends it here
            self.ask_to_leave(0)

    def open(self, out: StreamOut) -> None:
        """Begin to tell the client over `out`; one that was ended while its head was sent gets that word only."""
        self._out = out
        if self._last_word is not None:
            self._finish(self._last_word)
            return
        self._starting = self._parts.tasks.spawn(self._try_begin(), f"stream {self.name}")
        self._starting.add_done_callback(self._started)

    async def begin(self) -> None:
        """Say `connected`, then deliver what was missed, then what comes."""
        hub = self._parts.hub
        here = {subject: await hub.position(subjects.NOTIFY, subject) for subject in self._subjects}
        starts = self._positions.start(self._wanted.cursor, here)
        self.deliver(self._connected())
        self._watch_expiry()
        self._watch_symbols()
        self.watchlist_changed(await self._parts.watchlists.get(self.user_id))
        if Scope.OPS_READ in self.principal.scopes:
            self._parts.statuses.add(self)
        if not self._wanted.readable:
            self.resync(self._own, here[self._own], GapReason.UNKNOWN)
        for subject, start in starts.items():
            gap = await hub.attach(subjects.NOTIFY, subject, self, start)
            if gap is not None:
                self._announce(gap)

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
        for subject in self._subjects:
            self._parts.hub.detach(subject, self)
        self._parts.statuses.remove(self)
        if self._parts.sessions.remove(self):
            self._parts.admission.leave(self._address, waiting=False)
        self._parts.commands.forget(self.name)

    # -- what hub, board and sessions call ----------------------------------------------------------------------------

    @property
    def named(self) -> bool:
        """Whether the client asked for events with names."""
        return self._wanted.named

    @property
    def user_id(self) -> str:
        """Whose stream it is."""
        return self.principal.user_id

    def deliver(self, event: Event) -> None:
        """Hand over an event; what is stored moves the cursor."""
        if event.seq:
            event = event.at(self._positions.move(event.subject, event.seq))
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
        cursor = self._positions.cursor or (str(self._wanted.cursor) if self._wanted.cursor else None)
        data = {"afterMs": after_ms, "cursor": cursor}
        self._finish(make_event("reconnect", data))

    def watchlist_changed(self, watchlist: Watchlist) -> None:
        """Follow the user's watchlist; what is older than what is known came late."""
        if watchlist.revision > self._watchlist.revision:
            self._watchlist = watchlist
            self._watch_symbols()

    def resync(self, subject: str, position: Position, reason: GapReason = GapReason.EPOCH) -> None:
        """Announce that what the client knows of a subject is to be loaded anew; go on from `position`."""
        self._positions.restart(subject, position)
        data = {"topic": self._topic(subject), "reason": reason}
        self.deliver(make_event("resync", data).at(self._positions.cursor))

    # -- commands -----------------------------------------------------------------------------------------------------

    async def _command(self, command: dict[str, Any]) -> dict[str, Any]:
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
        check_topics(principal, list(self._topics), self._parts.settings.max_topics)
        self.principal = principal
        if Scope.OPS_READ not in principal.scopes:
            self._parts.statuses.remove(self)
        self._watch_expiry()
        return {"expiresAt": principal.expires_at_s * 1000}

    # -- private ------------------------------------------------------------------------------------------------------

    @property
    def _subjects(self) -> list[str]:
        return [self._own, *self._topics.values()]

    async def _try_begin(self) -> None:
        try:
            await self.begin()
        except FanfareError as error:
            self.end(error)

    def _started(self, starting: asyncio.Task[None]) -> None:
        """End a stream whose begin failed, rather than leave it open and silent; the task's keeper has logged why."""
        self._starting = None
        if self._out is not None and (starting.cancelled() or starting.exception() is not None):
            self._out.close()

    def _finish(self, event: Event) -> None:
        """Say a last word, and end the stream; as soon as it is open, if it is not yet."""
        self._last_word = event
        if self._out is not None:
            self._out.deliver(event)
            self._out.close()

    def _connected(self) -> Event:
        data = {
            "timestamp": now_ms(),
            "userId": self.user_id,
            "stream": self.name,
            "cursor": self._positions.cursor,
            "topics": list(self._topics),
            "heartbeatMs": int(self._parts.settings.heartbeat_s * 1000),
        }
        return make_event("connected", data).at(self._positions.cursor)

    def _watch_symbols(self) -> frozenset[str]:
        """Follow what was asked for and the watchlist; return both. Most streams follow no price and have no flow."""
        symbols = self._asked | self._watchlist.symbols
        if self._out is None:
            return symbols
        if symbols and self._flow is None:
            self._flow = PriceFlow(self._parts.prices, self._parts.wheel, self, rate_hz=self._wanted.rate_hz)
        if self._flow is not None:
            self._flow.set_symbols(symbols)
        return symbols

    def _announce(self, gap: Gap) -> None:
        if gap.starts_over:
            self.resync(gap.subject, Position(gap.epoch, gap.end), gap.reason)
            return
        self._positions.move(gap.subject, gap.end)
        data = {"topic": self._topic(gap.subject), "from": gap.start, "to": gap.end, "reason": gap.reason}
        self.deliver(make_event("gap", data).at(self._positions.cursor))

    def _topic(self, subject: str) -> str | None:
        """Return the topic's name; None for the user's own notifications."""
        return next((topic for topic, known in self._topics.items() if known == subject), None)

    def _watch_expiry(self) -> None:
        left_s = self.principal.expires_at_s - now_s()
        # Never before half of what is left: a client that renews with the same token must not be warned at once again.
        self._wake_after(max(left_s / 2, left_s - self._parts.settings.expiry_warning_s), self._warn_of_expiry)

    def _warn_of_expiry(self) -> None:
        left_s = self.principal.expires_at_s - now_s()
        self.deliver(make_event("token_expiring", {"inMs": left_s * 1000}))
        self._wake_after(left_s, self._expired)

    def _expired(self) -> None:
        self.end(TokenExpired("the token has expired: renew it and reconnect"))

    def _wake_after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Set the session's one timer."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._parts.wheel.after(max(0.0, delay_s), callback)


def check_topics(principal: Principal, topics: list[str], limit: int) -> tuple[str, ...]:
    """Return the topics if all are ids that `principal` may follow.

    Raises:
        BadInput: there are too many; also BadId.
        Forbidden: one needs a scope that is missing.
    """
    named = tuple(dict.fromkeys(require_id(topic, "topic") for topic in topics))
    if len(named) > limit:
        raise BadInput(f"a stream follows at most {limit} topics")
    for topic in named:
        if not principal.may_follow(topic):
            principal.require(f"topic:{topic}")
    return named


def retry_line(mean_ms: int) -> bytes:
    """Return the `retry:` of a new stream: different for each, so that clients cut at once do not return at once."""
    return b"retry: %d\r\n\r\n" % random.randint(mean_ms // 2, mean_ms + mean_ms // 2)
