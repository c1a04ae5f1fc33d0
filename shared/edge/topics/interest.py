"""An interest: a topic, the live subscription that feeds it, and who is about to listen to it."""

from __future__ import annotations

from collections.abc import Callable

from shared.broker.port import Message, Subscription
from shared.contracts.cursor import Position
from shared.edge.topics.topic import Topic


class Interest:
    """What the hub holds of one subject.

    Attributes:
        joining: how many are being replayed to before they listen.
    """

    __slots__ = ("_early", "_receive", "joining", "subscription", "topic")

    def __init__(self, topic: Topic, receive: Callable[[Topic, Message], None]) -> None:
        self.topic, self._receive = topic, receive
        self._early: list[Message] | None = []
        self.joining = 0
        self.subscription: Subscription

    def receive(self, message: Message) -> None:
        """Take a live message; until the topic has its place, keep it."""
        if self._early is None:
            self._receive(self.topic, message)
        else:
            self._early.append(message)

    def begin(self, place: Position) -> None:
        """Begin at `place`, with what came meanwhile."""
        self.topic.restart(place)
        early, self._early = self._early or [], None
        for message in early:
            self._receive(self.topic, message)
