"""A stream's session on a broker in memory: its begin, its end, and what is left of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic_core import from_json

from services.notifications.logs import LogBoard
from services.notifications.notices import encode_notice
from services.notifications.parts import NotificationsParts
from services.notifications.settings import NotificationsSettings
from services.notifications.statuses import StatusBoard
from services.notifications.stream import StreamSession
from services.notifications.wanted import Wanted
from services.notifications.watchlists import Watchlists
from shared.auth.principal import Principal
from shared.clock import now_s
from shared.contracts import subjects
from shared.contracts.cursor import Position
from shared.edge.admission import Admission, AdmissionLimits
from shared.edge.commands import Commands
from shared.edge.delivery.event import Event
from shared.edge.line.hub import LineHub
from shared.edge.line.line import MAX_RING_MESSAGES
from shared.edge.moving import Mover
from shared.edge.sessions import SessionLimits, Sessions
from shared.errors import SessionRevoked
from shared.tasks import TaskKeeper
from tests.support.price_board import Feed, settle

USER = Principal("u", "u", "s", frozenset({"stream", "topic:*", "ops:read"}), now_s() + 600, now_s())
WANTED = Wanted(("news",), frozenset({"A"}), 10.0, named=False, place=None, readable=True, logs="info")


class Out:
    """What a client is told."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closing = False

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]

    def deliver(self, event: Event) -> None:
        if not self.closing:
            self.events.append(event)

    async def writable(self) -> None:
        """It always is."""

    def close(self) -> None:
        self.closing = True


class Edge(Feed):
    """An edge of the notifications without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.line = LineHub(
            self.broker,
            subjects.NOTIFY,
            subjects.ALL_NOTIFY,
            encode=encode_notice,
            deadletters=self.deadletters,
            metrics=self.metrics,
        )
        self.sessions = Sessions(SessionLimits(0, 0), self.metrics, "sse")
        self.statuses = StatusBoard(self.broker, self.deadletters)
        self.logs = LogBoard(self.broker, self.deadletters, self.metrics)
        self.tasks = TaskKeeper()
        parts = SimpleNamespace(
            settings=NotificationsSettings(),
            admission=Admission(AdmissionLimits(), self.metrics, "sse"),
            commands=Commands(self.broker, "edge"),
            line=self.line,
            logs=self.logs,
            prices=self.board,
            sessions=self.sessions,
            statuses=self.statuses,
            tasks=self.tasks,
            watchlists=Watchlists(self.broker, on_change=lambda *_: None, users=list, max_symbols=9),
            wheel=self.wheel,
        )
        self.parts = cast("NotificationsParts", parts)

    def session(self) -> StreamSession:
        session = StreamSession(self.parts, USER, WANTED, "10.0.0.1")
        session.register()
        return session

    @property
    def left(self) -> list[Any]:
        """Everything that still knows of a session."""
        listeners = [self.line.listeners(subject) for subject in ("notify.user.u", "notify.topic.news")]
        boards = [*self.board.groups._groups, *self.statuses._listeners, *self.logs._wanted]
        return [*listeners[0], *listeners[1], *boards, *self.sessions, *range(len(self.parts.commands))]


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    edge = Edge()
    await edge.line.start()
    yield edge
    await edge.tasks.close()
    await edge.line.close()
    await edge.parts.watchlists.close()
    await edge.deadletters.close()


async def test_it_begins_with_connected_and_a_snapshot(edge: Edge) -> None:
    session, out = edge.session(), Out()
    session.open(out)
    await settle()

    assert out.types == ["connected", "snapshot"]
    assert len(edge.left) == 7  # two subjects, a symbol, the status, the logs, the session, its commands


async def test_one_that_is_revoked_while_its_head_is_sent_gets_that_word_only(edge: Edge) -> None:
    session, out = edge.session(), Out()
    session.end(SessionRevoked("because"))
    session.open(out)
    await settle()

    assert out.types == ["error"]
    assert out.closing


@pytest.mark.parametrize("presented", [None, "e:5"])
async def test_one_that_comes_while_the_edge_drains_is_sent_elsewhere_with_the_cursor_it_brought(
    edge: Edge, presented: str | None
) -> None:
    await Mover(edge.sessions, TaskKeeper()).drain(0)
    wanted = WANTED._replace(place=Position.parse(presented) if presented else None)
    session, out = StreamSession(edge.parts, USER, wanted, "10.0.0.1"), Out()
    session.register()
    session.open(out)
    await settle()

    assert out.types == ["reconnect"]
    assert from_json(out.events[0].body) == {"afterMs": 0, "cursor": presented}


async def test_one_that_begins_now_asks_the_broker_nothing_and_misses_nothing(edge: Edge) -> None:
    edge.server.stop()
    session, out = edge.session(), Out()
    session.open(out)
    edge.server.start()
    await edge.broker.append("notify.user.u", b'{"title":"t"}', msg_id="1")
    await settle()

    assert out.types == ["connected", "snapshot", "notification"]
    assert out.events[-1].cursor == edge.line.cursor


async def test_one_that_is_sent_elsewhere_takes_the_place_up_to_which_it_has_been_told_all(edge: Edge) -> None:
    session, out = edge.session(), Out()
    session.open(out)
    await edge.broker.append("notify.user.u", b'{"title":"mine"}', msg_id="1")
    await edge.broker.append("notify.user.other", b'{"title":"another\'s"}', msg_id="2")
    await settle()
    session.ask_to_leave(0)

    assert from_json(out.events[-1].body)["cursor"] == str(Position(edge.line.position.epoch, 2))


async def test_each_gap_is_announced_and_only_the_last_word_moves_the_cursor(edge: Edge) -> None:
    wanted = WANTED._replace(place=Position("zzzz", 5))
    session, out = StreamSession(edge.parts, USER, wanted, "10.0.0.1"), Out()
    session.register()
    session.open(out)
    await settle()

    *_, own, topic = out.events
    assert from_json(own.body) == {"topic": None, "reason": "epoch_changed"}
    assert from_json(topic.body) == {"topic": "news", "reason": "epoch_changed"}
    assert (own.cursor, topic.cursor) == ("", edge.line.cursor)


async def test_what_comes_before_it_is_open_harms_nobody(edge: Edge) -> None:
    session, out = edge.session(), Out()
    answer = await session.command({"op": "symbols", "user": "u", "add": ["B"], "remove": ["A"]})
    session.open(out)
    await settle()

    assert answer == {"symbols": ["B"]}
    assert [symbols for symbols, _ in edge.board.groups._groups] == [{"B"}]


@pytest.mark.parametrize("moments", range(8))
async def test_one_that_is_left_at_any_moment_of_its_begin_leaves_nothing_behind(edge: Edge, moments: int) -> None:
    session, out = edge.session(), Out()
    session.open(out)
    for _ in range(moments):
        await asyncio.sleep(0)
    session.close()
    await settle()

    assert edge.left == []
    assert len(edge.tasks) == 0


async def test_one_that_cannot_resume_says_so_and_ends(edge: Edge) -> None:
    before = edge.line.position
    for number in range(MAX_RING_MESSAGES + 1):  # what it missed has to be read
        await edge.broker.append("notify.user.u", b'{"title":"t"}', msg_id=str(number))
    edge.server.stop()
    session, out = StreamSession(edge.parts, USER, WANTED._replace(place=before), "10.0.0.1"), Out()
    session.register()
    session.open(out)
    await settle()

    assert out.types == ["connected", "snapshot", "error"]
    assert b'"retryable":true' in out.events[-1].body
    assert out.closing
