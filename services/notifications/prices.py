"""Prices: the latest tick of each symbol, who watches it, and a flush for each client at its own rate.

Conflation: a tick only marks its symbol as changed for those who watch it. What is sent, at most `rate_hz` times a
second, is the newest value of each symbol that changed: the edge's work follows what it delivers, not what comes in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pydantic import ValidationError
from pydantic_core import from_json

from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s, now_ms
from shared.contracts import subjects
from shared.contracts.events import PriceTick
from shared.edge.deadletters import DeadLetters
from shared.edge.event import Event, Overflow, splice
from shared.edge.listener import Listener
from shared.edge.timers import TICK_S, Timer, Wheel
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

MAX_SYMBOLS = 50_000
STALE_CHECK_S = 0.25
MAX_AHEAD_MS = 60_000


class PriceBoard:
    """The latest values at this edge, and their watchers.

    Attributes:
        stale: neither a tick nor the feed's heartbeat came for `stale_after_s`: what is shown may be old.
    """

    def __init__(
        self,
        broker: Broker,
        deadletters: DeadLetters,
        wheel: Wheel,
        metrics: Metrics,
        *,
        stale_after_s: float,
        clock: Clock = monotonic_s,
    ) -> None:
        self._broker, self._deadletters, self._wheel, self._clock = broker, deadletters, wheel, clock
        self._stale_after_s = stale_after_s
        self._ticks: dict[str, PriceTick] = {}
        self._events: dict[str, Event] = {}
        self._watchers: dict[str, dict[PriceFlow, None]] = {}
        self._heard_at_s = clock()
        self._tasks = TaskKeeper()
        self._log = get_logger()
        self._received = metrics.counter("prices_received", "Ticks received", ["valid"])
        self._valid, self._invalid = self._received.labels("yes"), self._received.labels("no")
        self.stale = False

    async def start(self) -> None:
        """Follow all prices, and begin with the last values that are stored."""
        await self._broker.subscribe(subjects.ALL_PRICES, self._receive)
        self._broker.on_reconnect(self._reconnected)
        await self._load()
        self._check_stale()

    async def close(self) -> None:
        """Load no more."""
        await self._tasks.close()

    def feed_lives(self) -> None:
        """Note the feed's heartbeat: prices that do not move are not stale."""
        self._heard_at_s = self._clock()
        if self.stale:
            self._set_stale(stale=False)

    def event(self, symbol: str) -> Event | None:
        """Return the newest value of a symbol, encoded once for all who get it."""
        if (event := self._events.get(symbol)) is None and (tick := self._ticks.get(symbol)) is not None:
            event = Event("price_update", self._body(tick), overflow=Overflow.LATEST, key=symbol)
            self._events[symbol] = event
        return event

    def snapshot(self, symbols: Iterable[str]) -> Event:
        """Return the newest values of `symbols` as one event; those never seen are left out."""
        bodies = [event.body for symbol in symbols if (event := self.event(symbol)) is not None]
        return Event("snapshot", b'{"symbols":[' + b",".join(bodies) + b"]}")

    def listing(self) -> list[object]:
        """Return all newest values, by symbol."""
        return [from_json(self._body(self._ticks[symbol])) for symbol in sorted(self._ticks)]

    # -- watching -----------------------------------------------------------------------------------------------------

    def watch(self, flow: PriceFlow, symbols: Iterable[str]) -> None:
        """Mark `flow` when one of `symbols` changes."""
        for symbol in symbols:
            self._watchers.setdefault(symbol, {})[flow] = None

    def unwatch(self, flow: PriceFlow, symbols: Iterable[str]) -> None:
        """Do so no more."""
        for symbol in symbols:
            watchers = self._watchers.get(symbol, {})
            watchers.pop(flow, None)
            if not watchers:
                self._watchers.pop(symbol, None)

    # -- ticks --------------------------------------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        tick = self._parse(message)
        if tick is None:
            return
        known = self._ticks.get(tick.symbol)
        if known is None and len(self._ticks) >= MAX_SYMBOLS:
            self._refuse(message, f"more than {MAX_SYMBOLS} symbols")
        elif known is not None and tick.timestamp < known.timestamp:
            self._refuse(message, "older than the last tick of its symbol")
        else:
            self._keep(tick, known)
            self._valid.inc()
            self.feed_lives()

    def _parse(self, message: Message) -> PriceTick | None:
        """Return the tick; None if it is not valid, which has been dealt with then."""
        try:
            tick = PriceTick.model_validate_json(message.data)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            self._refuse(message, f"{'.'.join(map(str, first['loc']))} {first['msg']}")
            return None
        if [tick.symbol] != subjects.tokens_after(message.subject, 1):
            self._refuse(message, "the symbol is not the subject's")
            return None
        if tick.timestamp > now_ms() + MAX_AHEAD_MS:
            self._refuse(message, "its time is in the future")
            return None
        return tick

    def _keep(self, tick: PriceTick, known: PriceTick | None) -> None:
        self._ticks[tick.symbol] = _with_change(tick, known)
        self._events.pop(tick.symbol, None)
        for flow in self._watchers.get(tick.symbol, ()):
            flow.changed(tick.symbol)

    def _refuse(self, message: Message, reason: str) -> None:
        self._invalid.inc()
        self._deadletters.send(message.subject, message.data, f"not a price: {reason}")

    def _body(self, tick: PriceTick) -> bytes:
        return splice(tick.to_json(), stale=True) if self.stale else tick.to_json()

    async def _load(self) -> None:
        """Take what is stored where it is newer than what is known: at the start, and after a lost link."""
        for message in await self._broker.read_last(subjects.PRICES, [subjects.ALL_PRICES]):
            tick = self._parse(message)
            if tick is not None and self._is_news(tick):
                self._keep(tick, self._ticks.get(tick.symbol))

    def _is_news(self, tick: PriceTick) -> bool:
        known = self._ticks.get(tick.symbol)
        return len(self._ticks) < MAX_SYMBOLS if known is None else tick.timestamp > known.timestamp

    def _reconnected(self) -> None:
        self._tasks.spawn(self._try_load(), "prices-load")

    async def _try_load(self) -> None:
        try:
            await self._load()
        except FanfareError as error:
            self._log.warning("prices_not_loaded", reason=str(error))

    # -- staleness ----------------------------------------------------------------------------------------------------

    def _check_stale(self) -> None:
        if not self.stale and self._clock() - self._heard_at_s > self._stale_after_s:
            self._set_stale(stale=True)
        self._wheel.after(STALE_CHECK_S, self._check_stale)

    def _set_stale(self, *, stale: bool) -> None:
        """Flag every price anew, and tell those who watch."""
        self.stale = stale
        self._events.clear()
        for symbol, watchers in self._watchers.items():
            for flow in watchers:
                flow.changed(symbol)


class PriceFlow:
    """One client's prices: what changed since its last flush, and when the next is due."""

    def __init__(
        self, board: PriceBoard, wheel: Wheel, listener: Listener, *, rate_hz: float, clock: Clock = monotonic_s
    ) -> None:
        self._board, self._wheel, self._listener, self._clock = board, wheel, listener, clock
        self._interval_s = 1.0 / rate_hz
        self._changed: dict[str, None] = {}
        self._timer: Timer | None = None
        self._next_at_s = clock()
        self.symbols: frozenset[str] = frozenset()

    def set_symbols(self, symbols: frozenset[str]) -> None:
        """Watch `symbols` from now on; a snapshot of those that are new goes out at once."""
        added, removed = symbols - self.symbols, self.symbols - symbols
        self.symbols = symbols
        self._board.unwatch(self, removed)
        self._board.watch(self, added)
        for symbol in removed:
            self._changed.pop(symbol, None)
        if added:
            self._listener.deliver(self._board.snapshot(sorted(added)))

    def changed(self, symbol: str) -> None:
        """Note a change; it goes out at the next flush with all others."""
        self._changed[symbol] = None
        if self._timer is None:
            self._timer = self._wheel.after(max(0.0, self._next_at_s - self._clock()), self._flush)

    def close(self) -> None:
        """Watch nothing any more."""
        self._board.unwatch(self, self.symbols)
        if self._timer is not None:
            self._timer.cancel()

    def _flush(self) -> None:
        # From when it was due, not from when it came: the wheel's lateness does not lower the rate that was asked for.
        self._next_at_s = max(self._next_at_s, self._clock() - TICK_S) + self._interval_s
        self._timer = None
        symbols, self._changed = self._changed, {}
        for symbol in symbols:
            if (event := self._board.event(symbol)) is not None:
                self._listener.deliver(event)


def _with_change(tick: PriceTick, before: PriceTick | None) -> PriceTick:
    """Return the tick with `previous` and what follows from it, if the producer gave none."""
    if tick.previous is not None or before is None:
        return tick
    return PriceTick.model_validate(tick.model_dump(exclude_none=True) | {"previous": before.price})


def clamp_rate(asked_hz: float | None, *, default: float, low: float, high: float) -> float:
    """Return the rate that a client gets that asked for `asked_hz`."""
    return min(max(asked_hz if asked_hz is not None else default, low), high)


def symbols_of(texts: Sequence[str]) -> list[str]:
    """Return the symbols of query values such as `AAPL,MSFT`, in order and once each."""
    return list(dict.fromkeys(part for text in texts for part in text.split(",") if part))
