"""Clients that watch the same symbols at the same rate, and what they are sent: the same events, in one write each.

A group hears of a symbol's first tick since it last sent it, and of no other until it has sent that. So the market may
tick as it likes: a group's work follows what it delivers. One timer a group, however many its clients.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterator
from typing import Protocol

from services.notifications.ticks import TickBook
from shared.clock import Clock
from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Outlet
from shared.edge.timers import TICK_S, Timer, Wheel
from shared.edge.wire.volley import Delivery, deliver_all

SLICE = 256
"""Deliveries, or events made for them, in one go: each takes 10 to 20 us, and the loop must not stall."""
PORTION = 64
"""Members of a group that are looked up together."""
LARGE_BYTES = 16 * 1024
"""A delivery that is larger counts as several."""
WHEEL_LATE_S = 2 * TICK_S
"""How late the wheel may be."""


class Member(Protocol):
    """A client in a group."""

    @property
    def outlet(self) -> Outlet:
        """Where its prices go."""


class PriceGroups:
    """All groups, and which of them wait for a symbol's next tick."""

    def __init__(self, book: TickBook, wheel: Wheel, clock: Clock) -> None:
        self.book, self.wheel, self.clock = book, wheel, clock
        self._groups: dict[tuple[frozenset[str], float], PriceGroup] = {}
        self._waiting: dict[str, dict[PriceGroup, int]] = {}
        self._due: deque[PriceGroup] = deque()
        self._round: Iterator[tuple[int, Delivery]] | None = None

    def __len__(self) -> int:
        return len(self._groups)

    def join(self, member: Member, symbols: frozenset[str], interval_s: float) -> PriceGroup:
        """Put a client, which has been shown what there is, among those who watch the same as often."""
        group = self._groups.get((symbols, interval_s))
        if group is None:
            group = self._groups[symbols, interval_s] = PriceGroup(self, symbols, interval_s)
            for symbol in symbols:
                self.wait_for(group, symbol, self.book.number_of(symbol))
        group.members[member] = None
        return group

    def leave(self, member: Member, group: PriceGroup) -> None:
        """Take a client out; a group without clients is forgotten."""
        group.members.pop(member, None)
        if group.members:
            return
        group.close()
        self._groups.pop((group.symbols, group.interval_s), None)
        for symbol in group.symbols:
            waiting = self._waiting.get(symbol, {})
            waiting.pop(group, None)
            if not waiting:
                self._waiting.pop(symbol, None)

    def wait_for(self, group: PriceGroup, symbol: str, known: int) -> None:
        """Tell `group` of the next tick of a symbol; what it was sent last has the number `known`."""
        self._waiting.setdefault(symbol, {})[group] = known

    def tell(self, symbols: Collection[str]) -> None:
        """Tell those who wait for one of `symbols` that it has ticked; who may send already, does."""
        told: dict[PriceGroup, None] = {}
        for symbol in self._waiting.keys() & set(symbols):
            for group, known in self._waiting.pop(symbol).items():
                group.changed.setdefault(symbol, known)
                told[group] = None
        for group in told:
            group.schedule()

    def tell_all(self) -> None:
        """Have every group send all its symbols anew."""
        for group in self._groups.values():
            group.renew()

    def send(self, group: PriceGroup) -> None:
        """Have a group's clients sent what changed, after those of the groups that were due before.

        The loop comes round first, so that all groups of which a timer has run out together are sent to together.
        """
        self._due.append(group)
        if self._round is None:
            self._round = self._portions()
            asyncio.get_running_loop().call_soon(self._step)

    def _step(self) -> None:
        """Write what a slice holds, together; then let the loop look around."""
        deliveries: list[Delivery] = []
        work = 0
        while self._round is not None and work < SLICE:
            portion = next(self._round, None)
            if portion is None:
                self._round = None
            else:
                work += portion[0]
                deliveries.append(portion[1])
        deliver_all(deliveries)
        if self._round is not None:
            asyncio.get_running_loop().call_soon(self._step)

    def _portions(self) -> Iterator[tuple[int, Delivery]]:
        """Yield what the groups that are due are sent, each portion with how much work it is."""
        while self._due:
            group = self._due.popleft()
            events = group.take()
            # Who comes while others are written to has seen what is newer than this.
            members = list(group.members) if events else []
            yield len(events), ((), events)
            each = 1 + sum(len(event.body) for event in events) // LARGE_BYTES
            for begin in range(0, len(members), PORTION):
                there = [member.outlet for member in members[begin : begin + PORTION] if member in group.members]
                yield each * len(there), (there, events)
            group.sent()


class PriceGroup:
    """Clients with the same symbols and rate.

    Attributes:
        changed: what ticked and is to be sent, with the number of what was sent of it last.
    """

    __slots__ = ("_groups", "_next_at_s", "_sending", "_timer", "changed", "interval_s", "members", "symbols")

    def __init__(self, groups: PriceGroups, symbols: frozenset[str], interval_s: float) -> None:
        self._groups, self.symbols, self.interval_s = groups, symbols, interval_s
        self.members: dict[Member, None] = {}
        self.changed: dict[str, int] = {}
        self._sending: dict[str, int] | None = None
        self._timer: Timer | None = None
        self._next_at_s = groups.clock()

    @property
    def pending(self) -> set[str]:
        """Symbols whose newest value some client may not have been sent yet."""
        untold = {symbol for symbol in self.symbols if self._groups.book.is_fresh(symbol)}
        return untold | set(self.changed) | set(self._sending or ())

    def schedule(self) -> None:
        """Send what changed: now if the last time is long enough ago, else when it is."""
        if self._timer is None and self._sending is None:
            now_s = self._groups.clock()
            if self._next_at_s <= now_s + TICK_S / 2:  # the nearest turn of the wheel is this one
                self._next_at_s = max(self._next_at_s, now_s)  # a quiet time earns no higher rate afterwards
                self._send()
            else:
                self._send_later()

    def renew(self) -> None:
        """Send all symbols anew, whether they ticked or not."""
        self.changed = dict.fromkeys(self.symbols, 0)
        self.schedule()

    def take(self) -> list[Event]:
        """Return the newest value of each symbol that changed; none if there is nothing that is new."""
        self._sending, self.changed = self.changed, {}
        events: list[Event] = []
        if not self.members:
            return events
        book = self._groups.book
        for symbol, known in self._sending.items():
            quote = book.quote(symbol)
            if quote is not None and quote.number > known:
                events.append(book.event(quote))
            self._groups.wait_for(self, symbol, quote.number if quote is not None else 0)
        if not events:  # what ticked was not valid
            return events
        # From when it was due, not from when it came: the wheel's lateness does not lower the rate that was asked for.
        self._next_at_s = max(self._next_at_s, self._groups.clock() - WHEEL_LATE_S) + self.interval_s
        return events

    def sent(self) -> None:
        """All clients have been sent it; go on if something changed meanwhile."""
        self._sending = None
        if self.changed and self.members:
            self._send_later()

    def close(self) -> None:
        """Send nothing any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _send_later(self) -> None:
        self._timer = self._groups.wheel.after(max(0.0, self._next_at_s - self._groups.clock()), self._send)

    def _send(self) -> None:
        self._timer, self._sending = None, {}
        self._groups.send(self)
