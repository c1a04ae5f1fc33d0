"""The fan-out: an event to every listener of a topic, a large audience in slices, so that nobody else waits for it.

Handing over an event takes eight to twelve microseconds, so five thousand listeners would hold the loop for fifty
milliseconds. What comes while an event is on its way goes along with it, and each listener gets all that it lacks in
one write (ADR 0019): of a burst, a listener costs a few writes and not one for each message.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Hashable, Iterable, Iterator, Sequence

from shared.clock import Clock, monotonic_s
from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Outlet
from shared.edge.pauses import Turn
from shared.edge.wire.volley import Delivery, deliver_all

SLICE = 256
"""Listeners that are written to in one go: about 2 ms; fewer cost more each (ADR 0024)."""
SLICE_BYTES = 4 * 1024 * 1024
"""What they are written together: a slice of large events has fewer listeners, and a write joins no more than this."""
FEW = 64
"""Listeners of an event that may go out in one go with those of other topics; and of the smallest slice."""
MAX_QUEUED_EVENTS = 1_000


class _Round:
    """Events on their way round one audience: who was there when they came, and who has left since.

    An event sets out from wherever the round is, and is through when the round comes there again. So the next slice
    lacks all the events that are on their way, and only those, in the order in which they came.
    """

    __slots__ = ("_bytes", "_events", "_outlets", "_slice", "_slices", "_taken", "left")

    def __init__(self, outlets: list[Outlet], event_bytes: int) -> None:
        """Begin a round for events like the first, of so many bytes."""
        self._outlets, self.left = outlets, set[Outlet]()
        self._slice = min(SLICE, max(FEW, SLICE_BYTES // (event_bytes + 1)))
        self._slices = max(1, -(-len(outlets) // self._slice))
        self._taken = self._bytes = 0
        self._events: deque[tuple[Event, int]] = deque()

    def __bool__(self) -> bool:
        return bool(self._events)

    def takes_along(self, event: Event, outlets: list[Outlet]) -> bool:
        """Whether an event for `outlets` may join: they are all of this round, and its writes do not get too large."""
        fits = (self._bytes + len(event.body)) * self._slice <= SLICE_BYTES
        return fits and not self.left and outlets == self._outlets

    def add(self, event: Event) -> None:
        """Take an event along, once round."""
        self._events.append((event, self._taken + self._slices))
        self._bytes += len(event.body)

    def reach_more(self) -> int:
        """Hand the next slice what it lacks; return how many events are through with that."""
        begin = self._taken % self._slices * self._slice
        outlets = self._outlets[begin : begin + self._slice]
        if self.left:
            outlets = [outlet for outlet in outlets if outlet not in self.left]
        deliver_all(_apart(outlets, [event for event, _ in self._events]))
        self._taken += 1
        through = 0
        while self._events and self._events[0][1] == self._taken:
            self._bytes -= len(self._events.popleft()[0].body)
            through += 1
        return through


class _Lane:
    """The rounds of a lane, one after the other: only an event that comes last may still go along with another."""

    __slots__ = ("_rounds", "events")

    def __init__(self) -> None:
        self._rounds: deque[_Round] = deque()
        self.events = 0

    def add(self, event: Event, outlets: list[Outlet]) -> None:
        """Have an event reach `outlets`, behind all that was added before."""
        if not self._rounds or not self._rounds[-1].takes_along(event, outlets):
            self._rounds.append(_Round(outlets, len(event.body)))
        self._rounds[-1].add(event)
        self.events += 1

    def reach_more(self) -> None:
        """Hand the oldest round's next slice what it lacks."""
        self.events -= self._rounds[0].reach_more()
        if not self._rounds[0]:
            self._rounds.popleft()

    def forget(self, outlet: Outlet) -> None:
        """Hand it nothing of what is here."""
        for round_ in self._rounds:
            round_.left.add(outlet)


class _Alone:
    """An event that no other of its subject waits with, for no more than a slice; and what some are told beside it."""

    __slots__ = ("answers", "audience", "event")

    def __init__(self, event: Event, audience: list[Outlet]) -> None:
        self.event, self.audience = event, audience
        self.answers: list[tuple[Outlet, Event]] | None = None

    def deliveries(self) -> Iterator[Delivery]:
        """Yield who gets what: an answer goes in the same write, or else by itself."""
        for outlet, answer in self.answers or ():
            if outlet in self.audience and outlet is not self.event.but:
                self.audience.remove(outlet)
                yield (outlet,), (self.event, answer)
            else:
                yield (outlet,), (answer,)
        yield from _apart(self.audience, (self.event,))


class FanOut:
    """Hands events over, in order for each lane: a topic, or a line with all its subjects.

    Nothing is written before the loop has come round twice, so that what the broker brings together is first made
    events of, and then written, all of it. A write walks through the kernel, and what runs after it finds the
    processor's caches full of that: written one by one as they came, messages to ten members each cost a twentieth
    more. And the broker's word that a message is stored has been heard by then, so that its sender gets answer and copy
    in one write.

    An event for few then goes out in one go with those of other lanes. A larger audience, or another event of the same
    subject before that, makes the lane busy, until all have what has come meanwhile. The busy lanes take turns, slice
    by slice, behind what came alone, or before it when that had left them no time. One with too many events is worked
    off at once: the loop then stalls, and the broker holds back for us, which loses nothing.
    """

    def __init__(self, clock: Clock = monotonic_s) -> None:
        self._clock = clock
        self._alone: dict[Hashable, list[_Alone]] = {}
        self._busy: dict[Hashable, _Lane] = {}
        self._scheduled = self._busy_waited = False

    def send(self, lane: Hashable, event: Event, outlets: Collection[Outlet]) -> None:
        """Hand `event` to `outlets`, after all that its lane has been given before."""
        if not self._scheduled:
            self._schedule()
        audience = list(outlets)
        busy = self._busy.get(lane)
        if busy is None:
            if len(audience) <= FEW and self._comes_alone(lane, event, audience):
                return
            busy = self._make_busy(lane)
        busy.add(event, audience)
        while busy.events > MAX_QUEUED_EVENTS:
            busy.reach_more()

    def answer(self, lane: Hashable, outlet: Outlet, answer: Event) -> None:
        """Hand `answer` to one outlet, in one write with what it is about to get from a lane, or else at once.

        It may be overtaken by what the outlet is told beside the fan-out; it is not forgotten with the lane.
        """
        alone = self._alone.get(lane)
        if alone is None:
            outlet.deliver(answer)
        elif alone[-1].answers is None:
            alone[-1].answers = [(outlet, answer)]
        else:
            alone[-1].answers.append((outlet, answer))

    def forget(self, lane: Hashable, outlet: Outlet) -> None:
        """Hand nothing more of what is queued to one that has left: if it comes back, a replay gives it that."""
        for alone in self._alone.get(lane, ()):
            if outlet in alone.audience:
                alone.audience.remove(outlet)
        if (busy := self._busy.get(lane)) is not None:
            busy.forget(outlet)

    def finish(self, lane: Hashable) -> None:
        """Hand over all that is queued, now."""
        _deliver_alone(self._alone.pop(lane, ()))
        busy = self._busy.get(lane)
        while busy is not None and busy.events:
            busy.reach_more()

    def waiting(self, lane: Hashable) -> int:
        """Return how many events of a lane wait, or are on their way."""
        busy = self._busy.get(lane)
        return len(self._alone.get(lane, ())) + (busy.events if busy is not None else 0)

    def settle(self) -> None:
        """Hand over what came alone, and the answers beside it, now: somebody is about to be closed."""
        waiting, self._alone = self._alone, {}
        _deliver_alone(alone for of_one_lane in waiting.values() for alone in of_one_lane)

    def _comes_alone(self, lane: Hashable, event: Event, audience: list[Outlet]) -> bool:
        """Take an event; False if the one before it in its lane waits still, and is of the same subject."""
        alone = self._alone.get(lane)
        if alone is None:
            self._alone[lane] = [_Alone(event, audience)]
        elif alone[-1].event.subject == event.subject:
            return False
        else:
            alone.append(_Alone(event, audience))
        return True

    def _make_busy(self, lane: Hashable) -> _Lane:
        busy = self._busy[lane] = _Lane()
        for alone in self._alone.pop(lane, ()):
            busy.add(alone.event, alone.audience)
            for outlet, answer in alone.answers or ():
                outlet.deliver(answer)
        return busy

    def _schedule(self) -> None:
        """Have the turns begin behind all that what is being read wakes: senders that wait for the broker's word."""
        loop = asyncio.get_running_loop()
        loop.call_soon(loop.call_soon, self._take_turns)
        self._scheduled = True

    def _take_turns(self) -> None:
        """Write what came alone and slices of the busy lanes while there is time; then let the loop look around."""
        turn = Turn(self._clock)
        if self._busy_waited:
            self._serve_busy(turn)
            self._serve_alone(turn)
        else:
            self._serve_alone(turn)
            self._serve_busy(turn)
        self._scheduled = bool(self._alone or self._busy)
        if self._scheduled:
            asyncio.get_running_loop().call_soon(self._take_turns)

    def _serve_alone(self, turn: Turn) -> None:
        """Write what came alone, as much in one go as a slice has writes."""
        while self._alone and turn.has_time():
            together: list[_Alone] = []
            writes = written_bytes = 0
            while self._alone and writes < SLICE and written_bytes < SLICE_BYTES:
                for alone in self._alone.pop(next(iter(self._alone))):
                    together.append(alone)
                    writes += len(alone.audience)
                    written_bytes += len(alone.audience) * len(alone.event.body)
            _deliver_alone(together)

    def _serve_busy(self, turn: Turn) -> None:
        """Write a slice of each busy lane, one after the other."""
        self._busy_waited = bool(self._busy)
        while self._busy and turn.has_time():
            self._busy_waited = False
            lane, busy = next(iter(self._busy.items()))
            if busy.events:
                busy.reach_more()
            del self._busy[lane]
            if busy.events:
                self._busy[lane] = busy  # behind the others


def _apart(outlets: Sequence[Outlet], events: Sequence[Event]) -> Iterator[Delivery]:
    """Yield who gets what: all events to nearly all, and to whom one of them is not for, the others."""
    apart = {event.but for event in events if event.but is not None}
    if not apart:
        yield outlets, events
        return
    yield [outlet for outlet in outlets if outlet not in apart], events
    for outlet in outlets:
        if outlet in apart and (others := [event for event in events if event.but is not outlet]):
            yield (outlet,), others


def _deliver_alone(alone: Iterable[_Alone]) -> None:
    deliver_all(delivery for each in alone for delivery in each.deliveries())
