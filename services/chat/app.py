"""Wires the chat service together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from functools import partial

from services.chat import words
from services.chat.encoding import MessageEncoder
from services.chat.messages import Messages
from services.chat.ownership import Ownership
from services.chat.parts import ChatParts, State
from services.chat.reading import Reading
from services.chat.records import RoomRecord
from services.chat.relay import Relay
from services.chat.rooms import Rooms
from services.chat.routes import chat_socket, messages_router, reading_router, rooms_router
from services.chat.session import ChatSession
from services.chat.settings import ChatSettings
from services.chat.throttle import MessageThrottle
from services.chat.typing import Typing
from shared.broker.port import Broker
from shared.contracts import subjects
from shared.contracts.frames import MAX_FRAME_BYTES
from shared.edge.admission import Admission, AdmissionLimits
from shared.edge.continuity.canary import encode_canary
from shared.edge.delivery.gap import Gap
from shared.edge.presence import OnChange, Presence
from shared.edge.sessions import SessionLimits, Sessions
from shared.edge.topics.hub import Hub
from shared.edge.topics.topic import Topic
from shared.edge.turns import Turns
from shared.edge.wire import frames
from shared.edge.wire.websocket import SocketContext
from shared.runtime.app import ServiceApp, build_app
from shared.runtime.contract import contract_router
from shared.runtime.edge import Edge, open_edge
from shared.runtime.lifecycle import Lifecycle
from shared.telemetry.metrics import Metrics

NAME = "chat"
TRANSPORT = "websocket"


def create_app(
    settings: ChatSettings, *, lifecycle: Lifecycle | None = None, metrics: Metrics | None = None
) -> ServiceApp:
    """Return the chat's app; it connects when its lifespan begins."""
    lifecycle, metrics = lifecycle or Lifecycle(), metrics or Metrics()

    @asynccontextmanager
    async def lifespan(app: ServiceApp) -> AsyncIterator[State]:
        async with open_edge(NAME, settings, lifecycle, metrics, heartbeat_s=settings.heartbeat_s) as edge:
            parts = await _make_parts(settings, edge)
            app.guard = parts.admission.guard
            yield {"chat": parts}

    return build_app(
        NAME,
        lifespan=lifespan,
        routers=[messages_router(), reading_router(), rooms_router(), contract_router()],
        sockets={"/ws/chat": chat_socket},
        settings=settings,
        lifecycle=lifecycle,
        metrics=metrics,
    )


async def _make_parts(settings: ChatSettings, edge: Edge) -> ChatParts:
    broker, metrics, encoder = edge.broker, edge.metrics, MessageEncoder()
    hub = _make_hub(edge, encoder)
    sessions, admission = _make_doors(settings, edge)
    presence = Presence(broker, settings.instance, wheel=edge.wheel, on_change=_announcer(hub))
    relayed = edge.limit_users("relay", settings.relay_rate_hz, settings.relay_rate_hz)
    relay = Relay(broker, hub, edge.wheel, metrics, relayed)
    rooms = Rooms(
        broker,
        on_private=lambda records: _evict(sessions, records),
        occupied=lambda: {room for session in _chatting(sessions) for room in session.rooms},
        ownership=_ownership(broker, settings),
        default_room=settings.default_room,
    )
    sessions_of = partial(_welcomed, sessions)
    reading = Reading(broker, settings.instance, admit=rooms.admit, sessions_of=sessions_of, metrics=metrics)
    typing = Typing(broker, hub, edge.wheel, metrics)
    await edge.start(hub, presence, relay, rooms)
    await reading.start()
    await typing.start()
    edge.listen(hub, subjects.canary(settings.instance))
    edge.hold(sessions)
    limits = edge.bound_backlogs(TRANSPORT, settings.backlog_bytes)
    frame_limits = frames.Limits(max_message_bytes=MAX_FRAME_BYTES)
    sockets = None if edge.pool is None else SocketContext(edge.pool, limits, frame_limits, edge.tasks, edge.wheel)
    throttle = MessageThrottle(
        broker, limit=settings.message_limit, window_s=settings.message_window_s, metrics=metrics
    )
    return ChatParts(
        settings=settings,
        admission=admission,
        authenticator=edge.authenticator,
        calls=edge.limit_users("calls", settings.command_rate_hz, settings.command_burst),
        hub=hub,
        messages=Messages(broker, hub, encoder, metrics),
        presence=presence,
        reading=reading,
        relay=relay,
        rooms=rooms,
        sessions=sessions,
        throttle=throttle if settings.limited else None,
        typing=typing,
        wheel=edge.wheel,
        turns=Turns(),
        limits=limits,
        sockets=sockets,
    )


def _make_hub(edge: Edge, encoder: MessageEncoder) -> Hub:
    return Hub(
        edge.broker,
        encoders={subjects.CHAT: encoder.encode, subjects.CANARY: encode_canary},
        deadletters=edge.deadletters,
        metrics=edge.metrics,
        on_gap=_tell_missed,
    )


def _make_doors(settings: ChatSettings, edge: Edge) -> tuple[Sessions, Admission]:
    return edge.make_doors(
        TRANSPORT,
        SessionLimits(settings.max_sockets_per_user, settings.max_sockets),
        AdmissionLimits(
            settings.max_sockets_per_address,
            settings.max_waiting,
            settings.max_waiting_per_address,
            settings.arrival_rate_hz,
        ),
    )


def _ownership(broker: Broker, settings: ChatSettings) -> Ownership | None:
    limit = settings.max_rooms_per_user if settings.limited else 0
    return Ownership(broker, limit=limit) if limit else None


def _announcer(hub: Hub) -> OnChange:
    """Return what tells a room's clients here that somebody came or went."""

    def announce(room: str, user: str, name: str, online: bool) -> None:
        event = words.presence(room, user, name, online=online)
        for listener in hub.listeners(subjects.chat_message(room)):
            listener.deliver(event)

    return announce


def _welcomed(sessions: Sessions, user: str) -> list[ChatSession]:
    """Return a user's sessions here whose clients can be told something: `connected` comes before all else."""
    return [session for session in sessions.of_user(user) if isinstance(session, ChatSession) and session.welcomed]


def _tell_missed(topic: Topic, gap: Gap) -> None:
    """Something of a room is missing for good: every client of the room is told."""
    for listener in list(topic.listeners):
        if isinstance(listener, ChatSession):
            listener.missed(gap)


def _chatting(sessions: Sessions) -> Iterator[ChatSession]:
    return (session for session in sessions if isinstance(session, ChatSession))


def _evict(sessions: Sessions, records: Mapping[str, RoomRecord]) -> None:
    """Private rooms may have changed: take out whom they do not admit, those who are still entering among them."""
    for session in _chatting(sessions):
        for room in session.rooms:
            record = records.get(room)
            if record is not None and not record.admits(session.user_id):
                session.evict(room, "the room was deleted" if record.closed else "not a member")
