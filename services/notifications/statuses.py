"""System status: the last word of each running part, for those who may read it."""

from __future__ import annotations

from pydantic import ValidationError

from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s
from shared.contracts import subjects
from shared.contracts.events import SystemStatus
from shared.edge.deadletters import DeadLetters
from shared.edge.delivery.event import Event, Overflow
from shared.edge.delivery.listener import Listener

MAX_PARTS = 5_000
FORGET_AFTER_S = 60.0
"""A part that has said nothing for so long is not shown to newcomers; the stream STATUS forgets it then too."""


class StatusBoard:
    """Follows `status.*.*`; its listeners get the last value of each part, and then each change."""

    def __init__(
        self,
        broker: Broker,
        deadletters: DeadLetters,
        *,
        clock: Clock = monotonic_s,
    ) -> None:
        self._broker, self._deadletters, self._clock = broker, deadletters, clock
        self._last: dict[str, tuple[Event, float]] = {}
        self._listeners: dict[Listener, None] = {}

    async def start(self) -> None:
        """Begin with what is stored."""
        await self._broker.subscribe(subjects.ALL_STATUS, self._receive)
        for message in await self._broker.read_last(subjects.STATUS, [subjects.ALL_STATUS]):
            self._receive(message)

    def add(self, listener: Listener) -> None:
        """Tell `listener` how each part is, now and whenever it says so."""
        self._forget_silent()
        for event, _heard_at_s in self._last.values():
            listener.deliver(event)
        self._listeners[listener] = None

    def remove(self, listener: Listener) -> None:
        """Tell it no more."""
        self._listeners.pop(listener, None)

    def _receive(self, message: Message) -> None:
        component, instance = subjects.tokens_after(message.subject, 1)
        try:
            status = SystemStatus.model_validate_json(message.data)
        except ValidationError as error:
            self._deadletters.send(message.subject, message.data, f"not a status: {error.errors()[0]['msg']}")
            return
        if (status.component, status.instance) != (component, instance):
            self._deadletters.send(message.subject, message.data, "not a status: the names are not the subject's")
            return
        self._tell(Event("system_status", status.to_json(), overflow=Overflow.LATEST, key=message.subject))

    def _tell(self, event: Event) -> None:
        if len(self._last) >= MAX_PARTS:
            self._forget_silent()
        if event.key in self._last or len(self._last) < MAX_PARTS:
            self._last[event.key] = event, self._clock()
        for listener in self._listeners:
            listener.deliver(event)

    def _forget_silent(self) -> None:
        since_s = self._clock() - FORGET_AFTER_S
        self._last = {key: last for key, last in self._last.items() if last[1] >= since_s}
