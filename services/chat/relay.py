"""The relay: what members of a room say in a form of their own, carried to all the others on every edge, never stored.

At most once, in the order of each sender. An edge listens to a room's relay while somebody here is in it (ADR 0025).
"""

from __future__ import annotations

import asyncio
import random
from weakref import WeakKeyDictionary, WeakValueDictionary

from shared.auth.principal import Principal
from shared.broker.port import Broker, Message, Subscription
from shared.contracts import subjects
from shared.contracts.relay import encode_relayed, head
from shared.edge.delivery.event import BinaryEvent, Overflow, make_event
from shared.edge.delivery.listener import Outlet
from shared.edge.timers import Wheel
from shared.edge.topics.hub import Hub
from shared.errors import FanfareError
from shared.limits import Buckets
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics

LINGER_S = 30.0
SENDER_BYTES = 8
PRICED_BYTES = 1024
"""For each that is begun a sender pays once."""

MAX_WAITING = 64
"""What comes while so much of a room is on its way to its members is dropped: this edge has more to do than it can."""

DROPPED_TOLD_S = 1.0
"""How long after the first that was dropped a room is told how many."""


class Relay:
    """Hands on what is said in relay rooms; on the bus each begins with its sender, who alone does not get it.

    Args:
        allowances: what each user may have relayed here; None for anything.
    """

    def __init__(
        self, broker: Broker, hub: Hub, wheel: Wheel, metrics: Metrics, allowances: Buckets | None = None
    ) -> None:
        self._broker, self._hub, self._wheel, self._allowances = broker, hub, wheel, allowances
        self._followed: dict[str, asyncio.Task[Subscription]] = {}
        self._empty = set[str]()
        self._senders = _Senders()
        self._tasks = TaskKeeper()
        self._relayed = metrics.counter("relayed", "Messages of relay rooms that clients sent here")
        rooms = metrics.gauge("relay_rooms", "Rooms whose relay this process listens to")
        rooms.set_function(lambda: len(self._followed))
        self._ignored = metrics.counter("relay_ignored", "What came to relay and was not of its room")
        self._dropped = metrics.counter("relay_dropped", "What came to relay while too much was on its way already")
        self._untold: dict[str, int] = {}

    async def start(self) -> None:
        """Begin to look for rooms that nobody here is in any more."""
        self._tasks.keep(self._leave_empty_rooms, "relay-leave")

    async def close(self) -> None:
        """Hand on nothing more."""
        await self._tasks.close()

    async def follow(self, room: str) -> None:
        """Hear what is said in a room from now on, and until nobody here has been in it for LINGER_S.

        Raises:
            Unavailable: the broker does not answer.
        """
        self._empty.discard(room)
        if (following := self._followed.get(room)) is None:
            subscribing = self._broker.subscribe(subjects.relay(room), self._receive)
            following = self._followed[room] = self._tasks.spawn(subscribing, f"relay {room}")
        try:
            await asyncio.shield(following)
        except FanfareError:
            if self._followed.get(room) is following:
                del self._followed[room]  # whoever comes next tries again
            raise

    async def send(self, who: Principal, room: str, payload: bytes, sender: Outlet) -> None:
        """Hand `payload` to all in the room but the sender; lost, if the broker is away.

        Raises:
            RateLimited: the user has had too much relayed.
        """
        if self._allowances is not None:
            self._allowances.require(who.user_id, "bytes to relay", max(1, -(-len(payload) // PRICED_BYTES)))
        said = self._senders.name(sender) + encode_relayed(room, who.user_id, payload)
        await self._broker.publish(subjects.relay(room), said)
        self._relayed.inc()

    # -- private ------------------------------------------------------------------------------------------------------

    def _receive(self, message: Message) -> None:
        room = subjects.tokens_after(message.subject, 3)[0]
        sender, said = message.data[:SENDER_BYTES], message.data[SENDER_BYTES:]
        if not said.startswith(head(room)):
            self._ignored.inc()
            return
        subject = subjects.chat_message(room)
        if self._hub.waiting(subject) >= MAX_WAITING:
            self._drop(room)
            return
        event = BinaryEvent("relay", said, overflow=Overflow.DROP)
        event.but = self._senders.get(sender)
        self._hub.tell(subject, event)

    def _drop(self, room: str) -> None:
        self._dropped.inc()
        if room not in self._untold:
            self._wheel.after(DROPPED_TOLD_S, lambda: self._tell_dropped(room))
        self._untold[room] = self._untold.get(room, 0) + 1

    def _tell_dropped(self, room: str) -> None:
        dropped = make_event("dropped", {"kind": "relay", "count": self._untold.pop(room)})
        self._hub.tell(subjects.chat_message(room), dropped)

    async def _leave_empty_rooms(self) -> None:
        while True:
            await asyncio.sleep(LINGER_S)
            await self._leave(self._empty)
            self._empty = {room for room in self._followed if not self._hub.used(subjects.chat_message(room))}

    async def _leave(self, rooms: set[str]) -> None:
        """Follow those no more that nobody has entered since they were found empty."""
        for room in list(rooms):
            if room in self._empty and (following := self._followed.pop(room, None)) is not None:
                await (await following).close()


class _Senders:
    """A name for each connection that has sent something, for as long as it is there."""

    def __init__(self) -> None:
        self._names: WeakKeyDictionary[Outlet, bytes] = WeakKeyDictionary()
        self._outlets: WeakValueDictionary[bytes, Outlet] = WeakValueDictionary()

    def name(self, outlet: Outlet) -> bytes:
        name = self._names.get(outlet)
        if name is None:
            name = self._names[outlet] = random.getrandbits(8 * SENDER_BYTES).to_bytes(SENDER_BYTES, "big")
            self._outlets[name] = outlet
        return name

    def get(self, name: bytes) -> Outlet | None:
        """Return the connection of that name, if it is one of this edge's."""
        return self._outlets.get(name)
