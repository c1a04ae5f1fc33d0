"""Prices: the latest value of each symbol, who watches it, and a flush for each client at its own rate.

Ticks are kept unread (`ticks.py`) until the next beat, which tells the groups of clients (`price_groups.py`) whose
symbols have ticked; a group that is due reads the newest, and sends it. The edge's work follows what it delivers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Protocol

from pydantic import ValidationError

from services.notifications.price_groups import PriceGroup, PriceGroups
from services.notifications.ticks import TickBook
from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s
from shared.contracts import subjects
from shared.contracts.events import SystemStatus
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Outlet
from shared.edge.pauses import Pauses
from shared.edge.timers import Wheel
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

READ_PER_BEAT = 20
"""Symbols read at each beat that nobody asked for: a quiet market is read as it ticks, a flood costs 1,000 a second."""
STALE_CHECK_S = 0.25
LOAD_AGAIN_AFTER_S = (1.0, 4.0)
"""What was published while the link was down may not be stored yet: in a flood the stream is seconds behind."""


class PriceListener(Protocol):
    """A client that watches prices."""

    def deliver(self, event: Event) -> None:
        """Take an event."""

    @property
    def outlet(self) -> Outlet:
        """Where its prices go."""


class PriceBoard:
    """The latest values at this edge, and their watchers.

    Args:
        broker: a link to NATS for prices alone: a flood of ticks that this edge is too slow for ends this link only.
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
        self._broker, self._wheel, self._clock = broker, wheel, clock
        self._stale_after_s = stale_after_s
        self._book = TickBook(deadletters, metrics, wake=self._wake)
        self.groups = PriceGroups(self._book, wheel, clock)
        self._awake = False
        self._heard_at_s, self._heard_number = clock(), 0
        self._tasks = TaskKeeper()
        self._log = get_logger()

    async def start(self) -> None:
        """Follow all prices and their feed, and begin with the last values that are stored."""
        await self._broker.subscribe_data(subjects.ALL_PRICES, self._book.receive)
        await self._broker.subscribe(subjects.FEED_STATUS, self._feed_said)
        self._broker.on_reconnect(self._reconnected)
        await self._load()
        self._tasks.spawn(self._load_again(), "prices-load-again")
        self._check_stale()

    async def close(self) -> None:
        """Load no more."""
        await self._tasks.close()

    @property
    def stale(self) -> bool:
        """Whether neither a tick nor the feed's heartbeat came for `stale_after_s`: what is shown may be old."""
        return self._book.stale

    def snapshot(self, symbols: Iterable[str]) -> Event:
        """Return the newest values of `symbols` as one event; those never seen are left out."""
        return Event("snapshot", b'{"symbols":[' + b",".join(self._bodies(symbols)) + b"]}")

    async def listing(self) -> bytes:
        """Return all newest values by symbol, as JSON; of a large market many are read only now, so it takes pauses."""
        bodies: list[bytes] = []
        pauses = Pauses()
        for symbol in self._book.symbols():
            bodies += self._bodies((symbol,))
            await pauses.when_due()
        return b'{"symbols":[%b],"stale":%b}' % (b",".join(bodies), b"true" if self.stale else b"false")

    def _bodies(self, symbols: Iterable[str]) -> list[bytes]:
        quotes = (self._book.quote(symbol) for symbol in symbols)
        return [self._book.event(quote).body for quote in quotes if quote is not None]

    # -- the beat -----------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._awake:
            self._awake = True
            self._wheel.after(0.0, self._beat)

    def _beat(self) -> None:
        """Tell who watches what ticked since the last beat; read some of what waits longest, watched or not."""
        self._awake = False
        fresh = self._book.take_fresh()
        self._book.read_oldest(READ_PER_BEAT)
        if self._book.number > self._heard_number:  # before anybody is sent it: it is not stale any more
            self._heard_number = self._book.number
            self._heard()
        self.groups.tell(fresh)
        if self._book.unread:
            self._wake()

    # -- what is stored -----------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Take what is stored where it is newer than what is known: at the start, and after a lost link."""
        self.groups.tell(self._book.load(await self._broker.read_last(subjects.PRICES, [subjects.ALL_PRICES])))
        self._heard_number = self._book.number  # what is stored is no sign of life

    def _reconnected(self) -> None:
        self._tasks.spawn(self._catch_up(), "prices-load")

    async def _catch_up(self) -> None:
        await self._try_load()
        await self._load_again()

    async def _load_again(self) -> None:
        for delay_s in LOAD_AGAIN_AFTER_S:
            await asyncio.sleep(delay_s)
            await self._try_load()

    async def _try_load(self) -> None:
        try:
            await self._load()
        except FanfareError as error:
            self._log.warning("prices_not_loaded", reason=str(error))

    # -- staleness ----------------------------------------------------------------------------------------------------

    def _feed_said(self, message: Message) -> None:
        """Note the feed's heartbeat: prices that do not move are not stale. It comes by the link of the ticks."""
        try:
            if SystemStatus.model_validate_json(message.data).status == "up":
                self._heard()
        except ValidationError:
            pass  # a dead letter of the status board

    def _heard(self) -> None:
        self._heard_at_s = self._clock()
        if self.stale:
            self._set_stale(stale=False)

    def _check_stale(self) -> None:
        if not self.stale and self._clock() - self._heard_at_s > self._stale_after_s:
            self._set_stale(stale=True)
        self._wheel.after(STALE_CHECK_S, self._check_stale)

    def _set_stale(self, *, stale: bool) -> None:
        """Flag every price anew, and tell those who watch."""
        self._book.set_stale(stale=stale)
        self.groups.tell_all()


class PriceFlow:
    """One client's prices: what it watches, and the group that it belongs to by that."""

    def __init__(self, board: PriceBoard, listener: PriceListener, *, rate_hz: float) -> None:
        self._board, self._listener = board, listener
        self._interval_s = 1.0 / rate_hz
        self._group: PriceGroup | None = None
        self.symbols: frozenset[str] = frozenset()

    def set_symbols(self, symbols: frozenset[str]) -> None:
        """Watch `symbols` from now on; a snapshot of those that are new, or on their way, goes out at once."""
        if symbols == self.symbols:
            return
        pending = self._group.pending if self._group is not None else set()
        unseen = (symbols - self.symbols) | (symbols & pending)
        if unseen:
            self._listener.deliver(self._board.snapshot(sorted(unseen)))
        self.close()
        self.symbols = symbols
        if symbols:
            self._group = self._board.groups.join(self._listener, symbols, self._interval_s)

    def close(self) -> None:
        """Watch nothing any more."""
        if self._group is not None:
            self._board.groups.leave(self._listener, self._group)
            self._group = None


def clamp_rate(asked_hz: float | None, *, default: float, low: float, high: float) -> float:
    """Return the rate that a client gets that asked for `asked_hz`."""
    return min(max(asked_hz if asked_hz is not None else default, low), high)


def symbols_of(texts: Sequence[str]) -> list[str]:
    """Return the symbols of query values such as `AAPL,MSFT`, in order and once each."""
    return list(dict.fromkeys(part for text in texts for part in text.split(",") if part))
