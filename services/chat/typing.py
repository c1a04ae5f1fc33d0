"""Typing notices: told to the room on every edge, never stored, and ended by time if nobody ends them."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import ValidationError

from shared.auth.principal import Principal
from shared.broker.port import Broker, Message
from shared.clock import now_ms
from shared.contracts import events, subjects
from shared.edge.delivery.event import Overflow, make_event
from shared.edge.delivery.listener import Listener
from shared.edge.timers import Timer, Wheel
from shared.edge.topics.hub import Hub
from shared.limits import TokenBucket
from shared.telemetry.metrics import Metrics

EXPIRES_S = 6.0
MAX_TYPISTS = 10_000


class Typing:
    """Who types where, as far as this edge's clients need to know."""

    def __init__(self, broker: Broker, hub: Hub, wheel: Wheel, metrics: Metrics) -> None:
        self._broker, self._hub, self._wheel = broker, hub, wheel
        self._expiries: dict[tuple[str, str], Timer] = {}
        self._ignored = metrics.counter("typing_ignored", "Typing notices not taken", ["reason"])

    async def start(self) -> None:
        """Follow the notices of all rooms; those of rooms without a listener here cost one look-up."""
        await self._broker.subscribe(subjects.ALL_TYPING, self._receive)

    async def show(self, who: Principal, room: str, *, is_typing: bool, bucket: TokenBucket) -> None:
        """Tell the room; what its `bucket` does not pay for is ignored: typing must never cost a message."""
        if not bucket.take():
            self._ignored.labels("rate").inc()
            return
        notice = events.Typing(
            room=room, user_id=who.user_id, username=who.username[:128], is_typing=is_typing, timestamp=now_ms()
        )
        await self._broker.publish(subjects.typing(room), notice.to_json())

    def _receive(self, message: Message) -> None:
        room = subjects.tokens_after(message.subject, 3)[0]
        listeners = self._hub.listeners(subjects.chat_message(room))
        if not listeners:
            return
        try:
            notice = events.Typing.model_validate_json(message.data)
        except ValidationError:
            self._ignored.labels("invalid").inc()
            return
        self._expire_later(notice)
        self._tell(listeners, notice)

    def _tell(self, listeners: Sequence[Listener], notice: events.Typing) -> None:
        event = make_event("typing_indicator", notice.model_dump(by_alias=True), overflow=Overflow.DROP)
        for listener in listeners:
            if listener.user_id != notice.user_id:
                listener.deliver(event)

    def _expire_later(self, notice: events.Typing) -> None:
        key = (notice.room, notice.user_id)
        if (timer := self._expiries.pop(key, None)) is not None:
            timer.cancel()
        if notice.is_typing and len(self._expiries) < MAX_TYPISTS:
            self._expiries[key] = self._wheel.after(EXPIRES_S, lambda: self._expire(notice))

    def _expire(self, notice: events.Typing) -> None:
        self._expiries.pop((notice.room, notice.user_id), None)
        ended = notice.model_copy(update={"is_typing": False, "timestamp": now_ms()})
        self._tell(self._hub.listeners(subjects.chat_message(notice.room)), ended)
