"""rooms: many rooms of ten members. What a message costs that comes in from one of them and goes out to all ten.

In each turn one member of every room of a batch says something, and the turn ends when all have heard it. The servers
take turns, as in the broadcast. Fanfare has stored each message in JetStream before anyone hears it, and NATS takes it
to all edges. Centrifugo runs as on one node, where a message never leaves the process, with nothing kept and with its
history on; and as on several, with NATS in between and nothing kept. What NATS uses is counted apart.

In a relay room, where nothing is kept either, a speaker does not hear itself: an eleventh speaks to the ten.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import fanfare
from bench.load import Client, Crowd, binary_frame, content, text_frame
from bench.machine import cpu_s
from bench.peers import (
    CENTRIFUGE,
    CENTRIFUGO,
    CENTRIFUGO_HISTORY,
    CENTRIFUGO_NATS,
    Peer,
    centrifuge_door,
    centrifugo_door,
    make_peers,
)
from bench.report import Check, Report, Row
from bench.servers import Server

NAME = "rooms"
MEMBERS = 10
BATCH = 25
CONTENT_BYTES = 200
WARM_UPS = 2
QUICK_RATIO = 1.3
WITHOUT_RING = fanfare.WithoutRing()
PEERS: tuple[Peer, ...] = (CENTRIFUGO_NATS, CENTRIFUGO_HISTORY, CENTRIFUGO, CENTRIFUGE)
DOES = "stored in JetStream, then through NATS to all edges"
RELAYS = "through NATS to all edges, nothing kept"


@dataclass(frozen=True)
class Size:
    """How many rooms, and messages in each."""

    rooms: int
    messages: int


QUICK, FULL = Size(50, 20), Size(200, 30)


@dataclass
class Hall:
    """A server with its rooms, and what their messages took: of the server, and of what works beside it.

    Attributes:
        speakers: one more client in each room, who says everything and hears nothing; without them members take turns.
    """

    server: Server
    say: Callable[[int, str], bytes]
    does: str
    crowd: Crowd = field(init=False)
    speakers: Crowd | None = None
    said: int = 0
    server_s: float = 0.0
    beside_s: float = 0.0
    batch_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.crowd = Crowd(self.server.name, self.server.door)

    async def round(self, size: Size, turn: int) -> None:
        """Have one member of each room say something, a batch of rooms at a time."""
        server_s, beside_s = cpu_s(self.server.pid), self._beside_s()
        for first in range(0, size.rooms, BATCH):
            began_s = time.perf_counter()
            for room in range(first, min(first + BATCH, size.rooms)):
                self._speaker(room, turn).send(self.say(room, content(CONTENT_BYTES)))
                self.said += 1
            await self.crowd.reach(self.said * MEMBERS)
            self.batch_s.append(time.perf_counter() - began_s)
        self.server_s += cpu_s(self.server.pid) - server_s
        self.beside_s += self._beside_s() - beside_s

    async def fill(self, rooms: int) -> None:
        """Bring all clients in."""
        await self.crowd.connect(range(rooms * MEMBERS))
        if self.speakers is not None:
            await self.speakers.connect(range(rooms * MEMBERS, rooms * (MEMBERS + 1)))

    def check(self, messages: int) -> None:
        """Pass if each client heard just what it should; raises BenchFailed."""
        self.crowd.check_each_got(messages)
        if self.speakers is not None:
            self.speakers.check_each_got(0)

    def close(self) -> None:
        """Leave at once."""
        self.crowd.close()
        if self.speakers is not None:
            self.speakers.close()

    def reset(self) -> None:
        """Forget what was spent so far."""
        self.server_s = self.beside_s = 0.0
        self.batch_s.clear()

    def _speaker(self, room: int, turn: int) -> Client:
        if self.speakers is not None:
            return self.speakers.clients[room]
        return self.crowd.clients[room * MEMBERS + turn % MEMBERS]

    def _beside_s(self) -> float:
        return sum(cpu_s(pid) for pid in self.server.beside.values())


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Measure Fanfare and those of its peers that have rooms of their own and can be had."""
    size = QUICK if quick else FULL
    peers = [] if quick else await make_peers(PEERS)
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        halls = [Hall(await suite.chat(_room_of), _say_to_fanfare, DOES), await _relay_hall(suite, size)]
        for peer in peers:
            server = await stack.enter_async_context(peer.run(directory))
            door = (centrifuge_door if peer is CENTRIFUGE else centrifugo_door)(server.door.port, _room_of)
            halls.append(Hall(replace(server, door=door), _say_to_centrifuge, peer.does))
        if not quick:
            server = await stack.enter_async_context(WITHOUT_RING.run(directory, _room_of))
            halls.append(Hall(server, _say_to_fanfare, DOES))
        for hall in halls:
            stack.callback(hall.close)
            await hall.fill(size.rooms)
        for turn in range(WARM_UPS + size.messages):
            for hall in halls:
                if turn == WARM_UPS:
                    hall.reset()
                await hall.round(size, turn)
        for hall in halls:
            hall.check(WARM_UPS + size.messages)
    rows = [_row(hall, size) for hall in halls]
    report.rows += rows
    ours, relay, *theirs = rows
    report.checks.append(_check("Fanfare relay", relay, ours, QUICK_RATIO if quick else 1.0))
    report.checks += [_check("Fanfare", ours, row) for row in theirs]
    report.checks += [_check("Fanfare relay", relay, row) for row in theirs if row.server == CENTRIFUGO_NATS.name]


def _check(name: str, ours: Row, theirs: Row, bound: float = 1.0) -> Check:
    ratio = ours.figures["cpu_us_per_message"] / theirs.figures["cpu_us_per_message"]
    return Check(f"CPU per message in and 10 out, {name} / {theirs.server}", ratio, bound)


async def _relay_hall(suite: fanfare.Fanfare, size: Size) -> Hall:
    first_speaker = size.rooms * MEMBERS

    def room_of(number: int) -> str:
        return f"relay-{number // MEMBERS if number < first_speaker else number - first_speaker}"

    server = await suite.relay(room_of, {room_of(number) for number in range(0, first_speaker, MEMBERS)})
    return Hall(server, _relay_by_fanfare, RELAYS, speakers=Crowd(server.name, server.door))


def _row(hall: Hall, size: Size) -> Row:
    messages = size.rooms * size.messages
    figures = {
        "cpu_us_per_message": hall.server_s / messages * 1e6,
        "nats_us_per_message": hall.beside_s / messages * 1e6,
        "messages_per_s": messages / sum(hall.batch_s),
        "batch_ms_p50": statistics.median(hall.batch_s) * 1e3,
        "rooms": size.rooms,
        "deliveries": messages * MEMBERS,
    }
    return Row(NAME, hall.server.name, hall.server.version, figures, note=hall.does)


def _room_of(number: int) -> str:
    return f"room-{number // MEMBERS}"


def _say_to_fanfare(room: int, text: str) -> bytes:
    data = {"content": text, "room": f"room-{room}"}
    return text_frame(json.dumps({"type": "send_message", "data": data}).encode())


def _relay_by_fanfare(_room: int, text: str) -> bytes:
    return binary_frame(b"\x01\x00" + text.encode())


def _say_to_centrifuge(room: int, text: str) -> bytes:
    return text_frame(json.dumps({"id": 3, "publish": {"channel": f"room-{room}", "data": text}}).encode())
