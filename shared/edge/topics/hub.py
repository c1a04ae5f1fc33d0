"""The hub: topics of this process, ref-counted interest, the fan-out, and the reading that closes gaps.

The algorithm is ADR 0003. In short, for one subject:

* open: subscribe to its live repeat, then ask the leader for the stream's last sequence. What was stored before is
  behind the cursor; what comes after arrives live or is found missing.
* live: in order -> emit; a gap -> wait, and fill from the stream.
* reconcile: every few seconds, and at once after a reconnect or when the stream has a new leader, compare quiet topics
  with the stream: a message whose live repeat was lost and that nothing follows shows up in no chain.
* lose: what the stream dropped before this edge had read it is announced to every listener, never skipped.
* attach: replay from the client's position, from the ring or the stream, to the cursor, and join without a seam.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from shared.broker.port import Broker, Message, StreamState
from shared.clock import Clock, monotonic_s
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.edge.continuity.canary import Canary
from shared.edge.continuity.filler import Filler
from shared.edge.continuity.reconciler import Reconciler
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.encoder import Encoder
from shared.edge.delivery.event import Event
from shared.edge.delivery.gap import Gap, GapReason
from shared.edge.delivery.listener import Listener, Outlet
from shared.edge.fanout import FanOut
from shared.edge.topics.comparison import Comparison, is_compared
from shared.edge.topics.interest import Interest
from shared.edge.topics.replay import Recipient, Replayer
from shared.edge.topics.topic import Topic
from shared.errors import BadInput, FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

LINGER_S = 30.0


class Hub:
    """Delivers stored subjects to listeners: each message once, in order, or its loss announced.

    Args:
        encoders: for each stream, how its messages become events.
        on_gap: called with a topic of which something is missing for good; its listeners must be told.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        encoders: Mapping[str, Encoder],
        deadletters: DeadLetters,
        metrics: Metrics,
        on_gap: Callable[[Topic, Gap], None],
        clock: Clock = monotonic_s,
    ) -> None:
        self._broker, self._encoders, self._deadletters = broker, encoders, deadletters
        self._on_gap, self._clock = on_gap, clock
        self._interests: dict[str, Interest] = {}
        self._epochs: dict[str, str] = {}
        self._opening: dict[str, asyncio.Future[Interest]] = {}
        self._joining = set[tuple[Topic, Listener]]()
        self._tasks = TaskKeeper()
        self._replayer = Replayer(broker, metrics, self._tasks)
        self._fan_out = FanOut()
        self._filler = Filler(broker, metrics, self._tasks)
        self._comparison = Comparison(broker, fill=lambda topic: self._fill(topic, "reconcile"), lose=self._lose)
        self._reconciler = Reconciler(self._reconcile, clock)
        self._delivered = metrics.tally("deliveries", "Events handed to a listener", "type")
        self._topics_open = metrics.gauge("topics_open", "Subjects that this process is subscribed to")

    async def start(self) -> None:
        """Begin to reconcile."""
        self._broker.on_disconnect(self._doubt)
        self._broker.on_reconnect(self._reconciler.wake)
        for stream in self._encoders:
            await self._broker.subscribe(subjects.leader_elected(stream), self._new_leader)
        self._tasks.keep(self._reconciler.run, "hub-reconcile")

    async def close(self) -> None:
        """End all interest."""
        await self._tasks.close()
        for interest in self._interests.values():
            await interest.subscription.close()
        self._interests.clear()

    async def ready(self) -> None:
        """Pass while its topics are compared with the broker; raises Unavailable."""
        await self._reconciler.ready()

    # -- what sessions ask --------------------------------------------------------------------------------------------

    async def position(self, stream: str, subject: str) -> Position:
        """Return where a new reader of `subject` starts; the interest is held long enough to attach there."""
        return (await self._open(stream, subject)).topic.position

    async def epoch(self, stream: str) -> str:
        """Return the epoch of `stream`, as last seen: reconciling renews it."""
        if stream not in self._epochs:
            await self.renew_epoch(stream)
        return self._epochs[stream]

    async def renew_epoch(self, stream: str) -> None:
        """Ask for the epoch of `stream` now: something has been seen that one life of it cannot explain."""
        self._epochs[stream] = (await self._broker.state(stream)).epoch

    async def attach(
        self, stream: str, subject: str, listener: Listener, after: Position, *, outlet: Outlet | None = None
    ) -> Gap | None:
        """Deliver what came after `after`, then everything that comes.

        Args:
            outlet: where events go once the listener is up to date, by default the listener itself. One that hands them
                on as they are names its connection: in a broadcast of thousands each call counts.

        Returns:
            None if the replay was complete, or the listener was detached meanwhile; else the gap that was announced by
            nobody yet: the caller tells its client.
        """
        interest = await self._open(stream, subject)
        topic = interest.topic
        who, to = (topic, listener), outlet or listener
        self._joining.add(who)
        interest.joining += 1  # a slow client may be replayed to for longer than an idle topic is kept
        try:
            recipient = Recipient(listener, to, lambda: who in self._joining)
            gap = await self._replayer.replay(topic, recipient, after, self._encode)
            if who not in self._joining:
                return None
            topic.listeners[listener] = to
        finally:
            self._joining.discard(who)
            interest.joining -= 1
            topic.idle_since_s = None if topic.listeners else self._clock()
        return gap

    async def hear(self, subject: str, canary: Canary) -> None:
        """Hand `canary` what comes on `subject` from now on."""
        if canary not in self.listeners(subject):
            await self.attach(subjects.CANARY, subject, canary, await self.position(subjects.CANARY, subject))

    def detach(self, subject: str, listener: Listener) -> None:
        """End a listener's interest; the subscription lingers, since clients come back."""
        interest = self._interests.get(subject)
        if interest is None:
            return
        self._joining.discard((interest.topic, listener))
        outlet = interest.topic.listeners.pop(listener, listener)
        self._fan_out.forget(interest.topic, outlet)
        if not interest.topic.listeners:
            interest.topic.idle_since_s = self._clock()

    def tell(self, subject: str, event: Event) -> None:
        """Hand an event that was never stored to all who listen to `subject`, but for the one that it is not for."""
        interest = self._interests.get(subject)
        if interest is not None and interest.topic.listeners:
            self._fan_out.send(interest.topic, event, interest.topic.listeners.values())
            self._delivered.add(event.type, len(interest.topic.listeners))

    def waiting(self, subject: str) -> int:
        """Return how many events of `subject` are on their way to those who listen here."""
        interest = self._interests.get(subject)
        return self._fan_out.waiting(interest.topic) if interest is not None else 0

    def answer(self, subject: str, outlet: Outlet, event: Event) -> None:
        """Hand `event` to one outlet, in one write with what it is about to get of `subject`, if there is such."""
        interest = self._interests.get(subject)
        if interest is None:
            outlet.deliver(event)
        else:
            self._fan_out.answer(interest.topic, outlet, event)

    def settle(self) -> None:
        """Hand over the answers that wait; call it before a client is closed, which would lose them."""
        self._fan_out.settle()

    def reached(self, subject: str, listener: Listener) -> Position | None:
        """Return up to where `listener` has been handed all of `subject`; None while it does not listen (yet)."""
        interest = self._interests.get(subject)
        if interest is None or listener not in interest.topic.listeners:
            return None
        self._fan_out.finish(interest.topic)
        return interest.topic.position

    def listeners(self, subject: str) -> Sequence[Listener]:
        """Return who listens to `subject` here."""
        interest = self._interests.get(subject)
        return list(interest.topic.listeners) if interest else []

    def used(self, subject: str) -> bool:
        """Say whether anybody here listens to `subject`, or is replayed to before they do."""
        interest = self._interests.get(subject)
        return interest is not None and bool(interest.topic.listeners or interest.joining)

    # -- open ---------------------------------------------------------------------------------------------------------

    async def _open(self, stream: str, subject: str) -> Interest:
        if (interest := self._interests.get(subject)) is not None:
            if interest.topic.idle_since_s is not None:
                interest.topic.idle_since_s = self._clock()
            return interest
        if (opening := self._opening.get(subject)) is None:
            opening = self._opening[subject] = self._tasks.spawn(self._subscribe(stream, subject), f"open {subject}")
            opening.add_done_callback(lambda _done: self._opening.pop(subject, None))
        return await asyncio.shield(opening)

    async def _subscribe(self, stream: str, subject: str) -> Interest:
        """Subscribe first, read the target after: what is stored in between arrives live or leaves a visible gap."""
        interest = Interest(Topic(stream, subject, Position("0", 0)), self.receive)
        interest.subscription = await self._broker.subscribe(subjects.live(subject), interest.receive)
        try:
            state = await self._broker.state(stream)
        except FanfareError:
            await interest.subscription.close()
            raise
        self._interests[subject] = interest
        self._topics_open.set(len(self._interests))
        interest.topic.idle_since_s = self._clock()
        interest.begin(_end_of(state))
        return interest

    # -- live ---------------------------------------------------------------------------------------------------------

    def receive(self, topic: Topic, message: Message) -> None:
        """Take a live message of a topic."""
        self._emit(topic, topic.receive(message))
        if topic.needs_fill:
            self._fill(topic, "gap")
        if topic.suspect_epoch:
            self._reconciler.wake()

    def _emit(self, topic: Topic, messages: list[Message]) -> None:
        for message in messages:
            event = self._encode(topic, message)
            if event is None:
                continue
            topic.remember(event)
            self._fan_out.send(topic, event, topic.listeners.values())
            self._delivered.add(event.type, len(topic.listeners))

    def _encode(self, topic: Topic, message: Message) -> Event | None:
        """Return the event of a message, None if its payload is not valid: it goes to the dead letters instead."""
        try:
            event = self._encoders[topic.stream](message, topic.epoch)
        except BadInput as error:
            self._deadletters.send(topic.subject, message.data, str(error), key=f"{topic.epoch}-{message.seq}")
            return None
        event.subject, event.seq = topic.subject, message.seq
        return event

    def _fill(self, topic: Topic, reason: str) -> None:
        lose = partial(self._lose, topic) if is_compared(topic) else None
        self._filler.start(topic, partial(self._emit, topic), reason, lose=lose)

    def _lose(self, topic: Topic, end_seq: int) -> None:
        """Go on after `end_seq`, and tell everybody that something up to there is missing."""
        gap = Gap(topic.subject, topic.epoch, topic.seq, end_seq, GapReason.EXPIRED)
        topic.skip_to(end_seq)
        self._tell(topic, gap)

    def _tell(self, topic: Topic, gap: Gap) -> None:
        """Tell everybody who listens, behind what they were sent before."""
        self._fan_out.finish(topic)
        self._on_gap(topic, gap)

    # -- reconcile ----------------------------------------------------------------------------------------------------

    def _doubt(self) -> None:
        """Note that messages may be missed from now on."""
        self._comparison.doubt(self._topics())

    def _new_leader(self, _news: Message) -> None:
        """Only the leader repeats what is stored: what it had not repeated when it lost the lead, nobody repeats."""
        self._doubt()
        self._reconciler.wake()

    def _topics(self) -> list[Topic]:
        return [interest.topic for interest in self._interests.values() if is_compared(interest.topic)]

    async def _reconcile(self, everything: bool) -> None:
        await self._drop_idle()
        await self._check_epochs()
        topics = self._topics()
        quiet = [topic for topic in topics if everything or not topic.was_live]
        for topic in topics:
            topic.was_live = False
        await self._comparison.compare(quiet)

    async def _check_epochs(self) -> None:
        """Restart every topic of a stream that was made anew; its old numbers mean nothing now."""
        for stream in {*self._epochs, *(interest.topic.stream for interest in self._interests.values())}:
            state = await self._broker.state(stream)
            self._epochs[stream] = state.epoch
            for interest in list(self._interests.values()):
                topic = interest.topic
                topic.suspect_epoch = topic.suspect_epoch and topic.stream != stream
                if topic.stream == stream and topic.epoch != state.epoch:
                    before = topic.seq
                    topic.restart(_end_of(state))
                    self._tell(topic, Gap(topic.subject, topic.epoch, before, topic.seq, GapReason.EPOCH))

    async def _drop_idle(self) -> None:
        now = self._clock()
        for subject, interest in list(self._interests.items()):
            idle_since_s, used = interest.topic.idle_since_s, interest.topic.listeners or interest.joining
            if idle_since_s is not None and now - idle_since_s > LINGER_S and not used:
                del self._interests[subject]
                await interest.subscription.close()
        self._topics_open.set(len(self._interests))


def _end_of(state: StreamState) -> Position:
    """Return where a reader of any subject starts: at its stream's end, so that who reads an empty one has a place too.

    With the subject's own last sequence, 0, it would look like one who missed all that has expired since.
    """
    return Position(state.epoch, state.last_seq)
