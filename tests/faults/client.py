"""Clients that behave as docs/protocol.md asks: cursor, back-off, watchdog, repetition; each notes what it sees."""

from __future__ import annotations

import asyncio
import json
import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from urllib.parse import urlencode

from shared.clock import now_ms
from shared.contracts.close_codes import RECONNECT, CloseCode, Reconnect
from shared.contracts.ids import new_id
from tests.faults.record import ANY_EPOCH, Op, Recorder
from tests.faults.wire import ABNORMAL, Frame, StreamWire, WebSocketWire, Wire, connect

BACKOFF_BASE_S, BACKOFF_CAP_S, STABLE_S = 0.5, 30.0, 30.0
RATE_LIMITED_S = 5.0
RESEND_S = 1.0
SILENT_HEARTBEATS = 2.5
WELCOME_S = 10.0
FINAL_CODES = frozenset(code for code, then in RECONNECT.items() if then is Reconnect.NO)
REFUSED_FOR_GOOD = frozenset({401, 403})


class Balancer(Protocol):
    """Says where to connect, as a load balancer without stickiness does."""

    def pick(self) -> str:
        """Return the address of any edge that takes clients, `http://…`; empty if there is none."""


class Client(ABC):
    """One client, from `run` until `leave`, over as many connections as it takes.

    Attributes:
        user: its name in the records too.
        is_open: the server has said `connected`, on the connection that stands.
        reads: False for a client that takes nothing from its socket any more.
    """

    kind: type[Wire]

    def __init__(self, user: str, token: str, balancer: Balancer, recorder: Recorder) -> None:
        self.user, self._token, self._balancer, self._recorder = user, token, balancer, recorder
        self._wire: Wire | None = None
        self._heartbeat_s = WELCOME_S
        self._opened_ms = 0
        self._attempt, self._not_before_s, self._stable_from_s = 0, 0.0, float("inf")
        self.connection = 0
        self.is_open = self.leaving = False
        self.reads = True

    async def run(self) -> None:
        """Be connected until told to leave, or refused for good."""
        while not self.leaving:
            if url := self._balancer.pick():
                await self._visit(url)
            await asyncio.sleep(self._next_delay_s())

    def leave(self) -> None:
        """Disconnect, and do not come back."""
        self.leaving = True
        self.cut()

    def cut(self) -> None:
        """Lose the connection, without a word."""
        if self._wire is not None:
            self._wire.abort()

    def revocation(self) -> bytes:
        """Return what the auth service would publish to end all sessions of this user."""
        return json.dumps({"userId": self.user, "before": now_ms() + 1000}).encode()

    def stop_reading(self) -> None:
        """Take nothing from the socket any more, on this connection: a stalled process, a sleeping laptop."""
        if self._wire is not None:
            self.reads = False
            self._wire.transport.pause_reading()

    # -- what a kind of client says -----------------------------------------------------------------------------------

    @abstractmethod
    def url(self, edge: str) -> str:
        """Return the address to connect to, with the newest cursors."""

    @abstractmethod
    def on_frame(self, frame: Frame) -> None:
        """Take a frame."""

    @property
    @abstractmethod
    def rooms(self) -> Sequence[str]:
        """What it follows, as the records call that."""

    def note(self, op: Op, **facts: Any) -> None:
        """Record something."""
        self._recorder.note(op, self.user, **facts)

    def opened(self, heartbeat_ms: int) -> None:
        """The server has said `connected`."""
        self.is_open, self._opened_ms = True, now_ms()
        self._heartbeat_s = heartbeat_ms / 1000
        self._stable_from_s = time.monotonic() + STABLE_S
        self.note(Op.OPEN, connection=self.connection)

    def hold(self, seconds: float) -> None:
        """Do not come back sooner."""
        self._not_before_s = max(self._not_before_s, time.monotonic() + seconds)

    def send(self, frame: Frame) -> None:
        """Send a frame if the connection stands."""
        if self.is_open and self._wire is not None:
            self._wire.send(frame)

    # -- the life of one connection -----------------------------------------------------------------------------------

    async def _visit(self, edge: str) -> None:
        self.connection += 1
        try:
            headers = {"Authorization": f"Bearer {self._token}"}
            wire = await connect(self.kind, self.url(edge), headers, self.on_frame)
        except (OSError, TimeoutError):
            return
        self._wire, self.reads = wire, True
        try:
            code = await self._until_over(wire)
        finally:
            wire.abort()
            self._wire = None
            if self.is_open:
                self.is_open = False
                self.note(Op.CLOSE, connection=self.connection)
        if code == CloseCode.RATE_LIMITED or wire.status == 429:
            self.hold(RATE_LIMITED_S)
        if not self.leaving and (code in FINAL_CODES or wire.status in REFUSED_FOR_GOOD):
            self.leaving = True
            for room in self.rooms:
                self.note(Op.LEAVE, room=room)

    async def _until_over(self, wire: Wire) -> int:
        """Return the close code; that of a broken line when nothing has been heard for too long."""
        while True:
            limit_s = SILENT_HEARTBEATS * self._heartbeat_s if self.is_open else WELCOME_S
            left_s = wire.heard_at_s + limit_s - time.monotonic()
            if left_s <= 0:
                return ABNORMAL
            done, _ = await asyncio.wait({wire.closed}, timeout=left_s)
            if done:
                return wire.closed.result()

    def _next_delay_s(self) -> float:
        """Full jitter, as services/web's backoff.ts has it."""
        now_s = time.monotonic()
        if now_s >= self._stable_from_s:
            self._attempt = 0
        self._stable_from_s = float("inf")
        jittered_s = random.uniform(0.0, min(BACKOFF_CAP_S, BACKOFF_BASE_S * 2.0**self._attempt))
        self._attempt += 1
        return max(jittered_s, self._not_before_s - now_s)


class ChatMember(Client):
    """One over WebSocket: in its rooms, and saying what it is told to until that is acked.

    Attributes:
        cursors: of each room; None before the first.
        pending: what is not acked yet, by the id that this client gave it.
    """

    kind = WebSocketWire

    def __init__(self, user: str, token: str, balancer: Balancer, recorder: Recorder, rooms: Sequence[str]) -> None:
        super().__init__(user, token, balancer, recorder)
        self.cursors: dict[str, str | None] = dict.fromkeys(rooms)
        self.pending: dict[str, str] = {}

    def url(self, edge: str) -> str:
        pairs = [pair for room, cursor in self.cursors.items() for pair in (("room", room), ("cursor", cursor or ""))]
        return f"{edge}/ws/chat?{urlencode(pairs)}"

    def say(self, room: str) -> str:
        """Say something new in a room, and return its id; it is repeated until it is acked or refused for good."""
        own_id = new_id()[:16]
        self.pending[own_id] = room
        self.note(Op.SEND, room=room, own_id=own_id)
        self._transmit(own_id)
        return own_id

    @property
    def rooms(self) -> Sequence[str]:
        return list(self.cursors)

    def is_behind(self, room: str, epoch: str, seq: int) -> bool:
        """Whether this member has still to get what is at a place; not once it has left, or reads no more."""
        if self.leaving or not self.reads or room not in self.cursors:
            return False
        here_epoch, _, here = (self.cursors[room] or ":0").partition(":")
        return here_epoch != epoch or int(here) < seq

    def on_frame(self, frame: Frame) -> None:
        """Act on a frame; what is of no interest here is not looked at."""
        handle: Callable[[Frame], None] | None = getattr(self, f"_on_{frame['type']}", None)
        if handle is not None:
            handle(frame)

    # -- by type ------------------------------------------------------------------------------------------------------

    def _on_connected(self, frame: Frame) -> None:
        self.opened(frame["data"]["heartbeatMs"])
        for entered in frame["data"]["rooms"]:
            self._enter(entered["room"], entered["cursor"])
        for own_id in self.pending:
            self._transmit(own_id)

    def _on_joined(self, frame: Frame) -> None:
        self._enter(frame["data"]["room"], frame["data"]["cursor"])

    def _on_left(self, frame: Frame) -> None:
        room = frame["data"]["room"]
        self.cursors.pop(room, None)
        self.note(Op.LEAVE, room=room)

    def _on_chat_message(self, frame: Frame) -> None:
        message = frame["data"]
        epoch = message["cursor"].partition(":")[0]
        self.cursors[message["room"]] = message["cursor"]
        self.note(
            Op.GOT,
            room=message["room"],
            id=message["id"],
            own_id=message.get("clientId", ""),
            epoch=epoch,
            seq=message["seq"],
            connection=self.connection,
            replayed=message["timestamp"] < self._opened_ms,
        )

    def _on_ack(self, frame: Frame) -> None:
        ack = frame["data"]
        if self.pending.pop(ack["clientId"], None) is not None:
            epoch = ack["cursor"].partition(":")[0]
            self.note(Op.ACK, room=ack["room"], id=ack["id"], epoch=epoch, seq=ack["seq"], own_id=ack["clientId"])

    def _on_error(self, frame: Frame) -> None:
        error, own_id = frame["data"], frame.get("id", "")
        if own_id not in self.pending:
            self.hold(error.get("retryAfterMs", 0) / 1000)
        elif error["retryable"]:
            delay_s = error.get("retryAfterMs", RESEND_S * 1000) / 1000
            asyncio.get_running_loop().call_later(delay_s, self._transmit, own_id)
        else:
            del self.pending[own_id]

    def _on_gap(self, frame: Frame) -> None:
        gap = frame["data"]
        self.note(Op.GAP, room=gap["room"], epoch=ANY_EPOCH, start=gap["from"], seq=gap["to"])

    def _on_resync(self, frame: Frame) -> None:
        self.cursors[frame["data"]["room"]] = frame["data"]["cursor"]
        self.note(Op.RESYNC, room=frame["data"]["room"])

    def _on_reconnect(self, frame: Frame) -> None:
        self.hold(frame["data"]["afterMs"] / 1000)

    # -- private ------------------------------------------------------------------------------------------------------

    def _enter(self, room: str, cursor: str) -> None:
        """Note where a room begins; entered without a cursor it is loaded anew, which is what `resync` asks for."""
        if self.cursors.get(room) is None:
            self.cursors[room] = cursor
            epoch, _, seq = cursor.partition(":")
            self.note(Op.RESYNC, room=room)
            self.note(Op.ENTER, room=room, epoch=epoch, seq=int(seq))

    def _transmit(self, own_id: str) -> None:
        if own_id in self.pending:
            room = self.pending[own_id]
            self.send(
                {"type": "send_message", "id": own_id, "data": {"room": room, "content": own_id, "clientId": own_id}}
            )


class Follower(Client):
    """One over SSE: it follows topics and what is for its user."""

    kind = StreamWire

    def __init__(self, user: str, token: str, balancer: Balancer, recorder: Recorder, topics: Sequence[str]) -> None:
        super().__init__(user, token, balancer, recorder)
        self._topics = topics
        self._cursor = ""
        self.got: set[str] = set()

    def url(self, edge: str) -> str:
        query = {"topics": ",".join(self._topics)} | ({"last_event_id": self._cursor} if self._cursor else {})
        return f"{edge}/api/stream?{urlencode(query)}"

    def on_frame(self, frame: Frame) -> None:
        """Act on an event."""
        first, self._cursor = not self._cursor, frame["_id"] or self._cursor
        match frame["type"]:
            case "connected":
                self.opened(frame["heartbeatMs"])
                if first:
                    for room in self.rooms:
                        self.note(Op.ENTER, room=room, epoch=ANY_EPOCH)
            case "notification":
                self.got.add(frame["id"])
                replayed = frame["createdAt"] < self._opened_ms
                facts = {"room": self._room(frame.get("topic")), "id": frame["id"], "own_id": frame["id"]}
                self.note(Op.GOT, replayed=replayed, connection=self.connection, **facts)
            case "gap":
                room = self._room(frame["topic"])
                self.note(Op.GAP, room=room, epoch=ANY_EPOCH, start=frame["from"], seq=frame["to"])
            case "resync":
                self.note(Op.RESYNC, room=self._room(frame["topic"]))
            case "reconnect":
                self.hold(frame["afterMs"] / 1000)

    @property
    def rooms(self) -> Sequence[str]:
        return [user_room(self.user), *map(topic_room, self._topics)]

    def _room(self, topic: str | None) -> str:
        return topic_room(topic) if topic else user_room(self.user)


def user_room(user: str) -> str:
    """Return how the records call what is for one user."""
    return f"notify.user.{user}"


def topic_room(topic: str) -> str:
    """Return how the records call a topic."""
    return f"notify.topic.{topic}"
