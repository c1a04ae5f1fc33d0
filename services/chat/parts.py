"""What the sessions and routes of the chat stand on, made once for each app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from services.chat.messages import Messages
from services.chat.reading import Reading
from services.chat.relay import Relay
from services.chat.rooms import Rooms
from services.chat.settings import ChatSettings
from services.chat.throttle import MessageThrottle
from services.chat.typing import Typing
from shared.auth.authenticator import Authenticator
from shared.edge.admission import Admission
from shared.edge.delivery.overflow import OverflowLimits
from shared.edge.presence import Presence
from shared.edge.sessions import Sessions
from shared.edge.timers import Wheel
from shared.edge.topics.hub import Hub
from shared.edge.turns import Turns
from shared.edge.wire.websocket import SocketContext
from shared.limits import Buckets


@dataclass(frozen=True, slots=True)
class ChatParts:
    """The nouns of the service.

    Attributes:
        limits: of each connection's backlog.
        calls: how many HTTP calls a user may make; None for any number.
        turns: of those who come; who is in goes before a herd.
        sockets: what pooled connections share; None where connections stay with the server.
    """

    settings: ChatSettings
    admission: Admission
    authenticator: Authenticator
    calls: Buckets | None
    hub: Hub
    messages: Messages
    presence: Presence
    reading: Reading
    relay: Relay
    rooms: Rooms
    sessions: Sessions
    throttle: MessageThrottle | None
    typing: Typing
    wheel: Wheel
    turns: Turns
    limits: OverflowLimits
    sockets: SocketContext | None


class State(TypedDict):
    """The lifespan state: what `request.state` offers."""

    chat: ChatParts
