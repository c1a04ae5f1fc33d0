"""The line hub: one subscription to all of a stream, and who listens here to which of its subjects.

The hub of topics subscribes to each subject that somebody listens to; this one to the whole stream, so that a client
who comes costs the broker nothing: no subscription, and nothing to ask, since the line says where the stream is. What
nobody here listens to is counted on the line and forgotten. ADR 0015 says where each is the better one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable

from shared.broker.port import Broker, Message, StreamState, Subscription
from shared.clock import Clock, monotonic_s
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.edge.continuity.canary import Canary, encode_canary
from shared.edge.continuity.filler import Filler
from shared.edge.continuity.past import READ_PAGE
from shared.edge.continuity.reconciler import RECONCILE_GRACE_S, Reconciler
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.encoder import Encoder
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.delivery.listener import Outlet
from shared.edge.fanout import FanOut
from shared.edge.line.line import MAX_RING_MESSAGES, Kept, Line
from shared.edge.line.replay import LineListener, LineReplayer
from shared.errors import BadInput
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

MAX_BEHIND = 100_000
"""An edge that has missed more than this (ten seconds of reading) does not read it: all its clients start over."""


class LineHub:
    """Delivers a stream's messages to those who listen to their subjects: each once, in order, or its loss announced.

    Args:
        pattern: what all of the stream's subjects match.
        encode: how a message becomes an event.
    """

    def __init__(
        self,
        broker: Broker,
        stream: str,
        pattern: str,
        *,
        encode: Encoder,
        deadletters: DeadLetters,
        metrics: Metrics,
        clock: Clock = monotonic_s,
    ) -> None:
        self._broker, self._encode_message, self._deadletters = broker, encode, deadletters
        self._line = Line(stream, pattern, Position("", 0))
        # Nearly every user has one stream, so nearly every subject one listener: no collection for one.
        self._listeners: dict[str, LineListener | dict[LineListener, Outlet]] = {}
        self._tasks = TaskKeeper()
        self._filler = Filler(broker, metrics, self._tasks)
        self._replayer = LineReplayer(broker, metrics, self._line, self._event)
        self._reconciler = Reconciler(self._reconcile, clock)
        self._fan_out = FanOut()
        self._subscription: Subscription | None = None
        self._delivered = metrics.tally("deliveries", "Events handed to a listener", "type")

    async def start(self) -> None:
        """Subscribe first, then take the leader's word for where the stream is: what comes in between is reconciled."""
        self._subscription = await self._broker.subscribe(subjects.live(self._line.subject), self._receive)
        await self._begin(await self._broker.state(self._line.stream))
        self._broker.on_reconnect(self._reconciler.wake)
        # Only the leader repeats what is stored: what it had not repeated when it lost the lead, nobody repeats.
        await self._broker.subscribe(subjects.leader_elected(self._line.stream), lambda _news: self._reconciler.wake())
        self._reconciler.wake()
        self._tasks.keep(self._reconciler.run, "line-reconcile")

    async def close(self) -> None:
        """Read no more."""
        await self._tasks.close()
        if self._subscription is not None:
            await self._subscription.close()

    async def ready(self) -> None:
        """Pass while the line is compared with the broker; raises Unavailable."""
        await self._reconciler.ready()

    # -- what sessions ask --------------------------------------------------------------------------------------------

    @property
    def position(self) -> Position:
        """Where a reader stands that joins now."""
        return self._line.position

    @property
    def cursor(self) -> str:
        """The same as text."""
        return self._line.cursor

    def join(self, listener: LineListener, subjects_: Iterable[str]) -> None:
        """Deliver all that comes from now on."""
        for subject in subjects_:
            there = self._listeners.get(subject)
            if there is None:
                self._listeners[subject] = listener
            elif isinstance(there, dict):
                there[listener] = listener.outlet
            elif there is not listener:
                self._listeners[subject] = {there: there.outlet, listener: listener.outlet}

    async def resume(self, listener: LineListener, subjects_: Collection[str], after: Position) -> None:
        """Deliver what came after `after`, or announce that it cannot be had; then everything that comes."""
        if after != self._line.position:
            await self._replayer.replay(listener, subjects_, after)
        self.join(listener, subjects_)

    async def hear(self, subject: str, canary: Canary) -> None:
        """Hand `canary` what comes on `subject` from now on: by the one subscription, beside the line."""
        self.join(canary, [subject])

    def leave(self, listener: LineListener, subjects_: Iterable[str]) -> None:
        """Deliver nothing more; harmless if it never joined."""
        for subject in subjects_:
            there = self._listeners.get(subject)
            if isinstance(there, dict):
                there.pop(listener, None)
            if there is listener or there == {}:
                del self._listeners[subject]
        self._fan_out.forget(self._line, listener.outlet)

    def listeners(self, subject: str) -> Collection[LineListener]:
        """Return who listens to `subject` here."""
        there = self._listeners.get(subject, {})
        return there if isinstance(there, dict) else (there,)

    def reached(self, subject: str, listener: LineListener) -> str | None:
        """Return the cursor up to which `listener` has been handed all of `subject`; None while it does not listen."""
        if listener not in self.listeners(subject):
            return None
        self._fan_out.finish(self._line)
        return self._line.cursor

    # -- live ---------------------------------------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        message.subject = subjects.stored(message.subject)
        if message.subject.startswith(subjects.NOTIFY_CANARIES):  # of another stream, so no part of the line
            event = encode_canary(message, "")
            self._fan_out.send(self._line, event, self._outlets(message.subject))
            return
        self._emit(self._line.receive(message))
        if self._line.needs_fill:
            self._filler.start(self._line, self._emit, "gap")
        if self._line.suspect_epoch:
            self._reconciler.wake()

    def _emit(self, messages: list[Message]) -> None:
        if (hole := self._line.hole(messages)) is not None:
            self._tell_missed(GapReason.EXPIRED, hole[0], Position(self._line.epoch, hole[1]))
        for message in messages:
            kept = self._line.remember(message)
            if message.subject in self._listeners and (event := self._event(kept)) is not None:
                outlets = self._outlets(message.subject)
                self._fan_out.send(self._line, event, outlets)
                self._delivered.add(event.type, len(outlets))

    def _outlets(self, subject: str) -> Collection[Outlet]:
        there = self._listeners.get(subject, {})
        return there.values() if isinstance(there, dict) else (there.outlet,)

    def _event(self, kept: Kept) -> Event | None:
        """Return the event of a message, encoded once; None if its payload is not valid: see the dead letters then."""
        if kept.event is None:
            message, epoch = kept.message, self._line.epoch
            try:
                kept.event = self._encode_message(message, epoch)
            except BadInput as error:
                key = f"{epoch}-{message.seq}"
                self._deadletters.send(message.subject, message.data, str(error), key=key)
                return None
            kept.event.subject, kept.event.seq = message.subject, message.seq
            kept.event.at(str(Position(epoch, message.seq)))
        return kept.event

    # -- begin and reconcile ------------------------------------------------------------------------------------------

    async def _begin(self, state: StreamState) -> None:
        """Begin a ring's length before the stream's end, so that whoever comes from an edge that died is served here.

        Without it, each would read the stream by itself: two requests and more for each of its subjects.
        """
        line, back = self._line, max(state.first_seq - 1, state.last_seq - MAX_RING_MESSAGES, 0)
        line.restart(Position(state.epoch, back))
        line.filling, more = True, back < state.last_seq  # what comes live meanwhile waits
        while more:
            page = await self._broker.read_after(line.stream, line.subject, line.seq, limit=READ_PAGE)
            self._emit(line.fill(page))
            more = page.more
        line.filling = False
        if line.seq < state.last_seq:  # a replica that is behind, or the last are gone: nobody begins in the past
            line.restart(Position(state.epoch, state.last_seq))

    async def _reconcile(self, _everything: bool) -> None:
        line, state = self._line, await self._broker.state(self._line.stream)
        line.suspect_epoch = False
        if state.epoch != line.epoch:
            self._start_over(state, GapReason.EPOCH)
        elif state.last_seq - line.seq > MAX_BEHIND:
            self._start_over(state, GapReason.TOO_MANY)
        elif state.last_seq > line.seq:
            await self._catch_up(state)

    async def _catch_up(self, state: StreamState) -> None:
        """Read what was not heard; or tell everybody that the stream has it no more."""
        line, seq = self._line, self._line.seq
        await asyncio.sleep(RECONCILE_GRACE_S)
        has_gone = await self._broker.last_seq(line.stream, line.subject) <= seq
        if line.seq > seq or line.filling:
            return
        if has_gone:
            self._start_over(state, GapReason.EXPIRED)
        else:
            self._filler.start(line, self._emit, "reconcile")

    def _start_over(self, state: StreamState, reason: GapReason) -> None:
        """Begin where the stream is now, and tell everybody."""
        before, place = self._line.seq, Position(state.epoch, state.last_seq)
        self._line.restart(place)
        self._tell_missed(reason, before, place)

    def _tell_missed(self, reason: GapReason, start: int, place: Position) -> None:
        """Tell everybody, once, that of each subject something after `start` and up to `place` may be missing."""
        self._fan_out.finish(self._line)
        missed: dict[LineListener, list[Gap]] = {}
        for subject in self._listeners:
            for listener in self.listeners(subject):
                gap = Gap(subject, place.epoch, start, place.seq, reason)
                missed.setdefault(listener, []).append(gap)
        for listener, gaps in missed.items():
            listener.missed(gaps, place)
