"""slow: one client in a hundred stops reading. What the others notice of it, and what it costs the edge.

Spells in which all read take turns with spells in which the slow ones do not. Such a spell brings more than the kernel
holds for a client and its backlog at the edge, so by its end each slow client must have been cut off,
as its class of back-pressure says (lossless: ADR 0007). It comes back with its cursor, and must get everything that it
has missed, once and in order. The others must get everything as ever.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.request import urlopen

from bench import fanfare
from bench.load import Crowd, StampedClient, until
from bench.machine import rss_bytes
from bench.report import Check, Report, Row, percentile
from bench.resuming import ResumingClient, Speaker, check_nothing_astray, come_back, until_each_has
from bench.servers import Server

NAME = "slow"
ONE_SLOW_IN = 100
WARM_UP_S = 1.0
CHARACTERS, FILL = 4_000, "\N{TRUMPET}"  # 16 KB: each is four bytes in UTF-8
SMALL_BUFFER_BYTES, USUAL_BUFFER_BYTES = 4096, 1024 * 1024
HELD = "fanfare_pool_connections "
NEVER_PINGED = {"HEARTBEAT_S": "600"}
"""A slow client is cut off because it is slow, not because it answers no ping."""
P99_RATIO, QUICK_P50_RATIO = 1.25, 1.5
"""Of one spell of eight seconds the 99th percentile is a few messages: what the quick run can hold is the median."""
MIB_BESIDE_BACKLOG = 8.0


@dataclass(frozen=True)
class Size:
    """How long a trial is.

    Attributes:
        spell_s: long enough for what is said in it to overflow a backlog and the kernel's buffers before it.
        backlog_bytes: what one client may have waiting at the edge (BACKLOG_BYTES).
    """

    clients: int
    rounds: int
    rate_hz: float
    spell_s: float
    backlog_bytes: int


QUICK, FULL = Size(200, 1, 40.0, 8.0, 256 * 1024), Size(500, 3, 25.0, 16.0, 1024 * 1024)


class SlowClient(ResumingClient):
    """One that can stop reading, with little room in its socket."""

    __slots__ = ()

    def stop_reading(self) -> None:
        """Take nothing more from the kernel."""
        self._resize(SMALL_BUFFER_BYTES)
        if self.transport is not None:
            self.transport.pause_reading()

    def read_again(self) -> None:
        """Take what has come meanwhile, and see the end if there was one."""
        self._resize(USUAL_BUFFER_BYTES)
        if self.transport is not None:
            self.transport.resume_reading()

    def _resize(self, buffer_bytes: int) -> None:
        if self.transport is not None:
            wire: socket.socket = self.transport.get_extra_info("socket")
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


@dataclass
class Trial:
    """One transport's run.

    Attributes:
        without_s, with_s: the delays that the others saw in each spell without slow clients, and with them.
        peak_bytes: the most by which the edge's memory grew in a spell with slow clients.
    """

    edge: Server
    others: Crowd
    slow: Crowd
    cursors: list[str]
    size: Size
    without_s: list[list[float]] = field(default_factory=list)
    with_s: list[list[float]] = field(default_factory=list)
    peak_bytes: int = 0
    _resting_bytes: int = 0

    async def run(self) -> None:
        """Bring the clients in, and speak to them in turns.

        Raises:
            BenchFailed: somebody did not get each message once, or a slow client was not cut off.
        """
        speaker = Speaker(self.edge.publish, rate_hz=self.size.rate_hz, characters=CHARACTERS, fill=FILL)
        slow = self.size.clients // ONE_SLOW_IN
        await self.slow.connect(range(slow))
        await self.others.connect(range(slow, slow + self.size.clients))
        await self._spell(speaker, WARM_UP_S)
        for _ in range(self.size.rounds):
            self.without_s.append(await self._spell(speaker, self.size.spell_s))
            await until_each_has(self.slow, speaker.sent)
            self.with_s.append(await self._spell_with_slow(speaker))
            await until_each_has(self.slow, speaker.sent)
        self.others.check_each_got(speaker.sent)
        check_nothing_astray(self.slow, speaker.sent)

    def close(self) -> None:
        """Leave at once."""
        self.others.close()
        self.slow.close()

    async def _spell(self, speaker: Speaker, seconds: float) -> list[float]:
        """Speak for a while, and return the delays of the others once they have it all."""
        self.others.delays_s.clear()
        await speaker.say_for(seconds, self._note_memory)
        await until_each_has(self.others, speaker.sent)
        return list(self.others.delays_s)

    async def _spell_with_slow(self, speaker: Speaker) -> list[float]:
        """Do the same while the slow ones do not read, then have them see that they are cut off, and come back."""
        self._resting_bytes = rss_bytes(self.edge.pid)
        for client in self._slow_clients:
            client.stop_reading()
        delays_s = await self._spell(speaker, self.size.spell_s)
        self._resting_bytes = 0
        await until(self._slow_are_out, f"{self.slow.name}: the edge did not cut them off")
        for client in self._slow_clients:
            client.read_again()
        self.slow = (await come_back(self.slow, self.edge.door, self.cursors, at_once=len(self.slow.clients))).crowd
        return delays_s

    def _slow_are_out(self) -> bool:
        """Whether the edge holds the others only, as it says itself."""
        page = urlopen(f"http://127.0.0.1:{self.edge.door.port}/metrics").read().decode()
        held = next(line for line in page.splitlines() if line.startswith(HELD))
        return float(held.split()[1]) == len(self.others.clients)

    def _note_memory(self) -> None:
        if self._resting_bytes:
            self.peak_bytes = max(self.peak_bytes, rss_bytes(self.edge.pid) - self._resting_bytes)

    @property
    def _slow_clients(self) -> Sequence[SlowClient]:
        return cast("Sequence[SlowClient]", self.slow.clients)


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Try both transports."""
    size = QUICK if quick else FULL
    for name in (fanfare.WEBSOCKET, fanfare.SSE):
        row = await _try(name, directory / name.replace(" ", "-"), size)
        report.rows.append(row)
        share, bound = ("p50", QUICK_P50_RATIO) if quick else ("p99", P99_RATIO)
        ratio = row.figures[f"{share}_ms"] / row.figures[f"{share}_ms_without_slow"]
        mib = row.figures["slow"] * size.backlog_bytes / 1024**2 + MIB_BESIDE_BACKLOG
        report.checks += [
            Check(f"{share} of those who read, with 1 % slow / without, {name}", ratio, bound),
            Check(f"MiB of RSS that the slow clients cost, {name}", row.figures["peak_mib"], mib),
        ]


async def _try(name: str, directory: Path, size: Size) -> Row:
    slow = size.clients // ONE_SLOW_IN
    cursors = [""] * (size.clients + slow)
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(
            fanfare.fanfare(directory, BACKLOG_BYTES=str(size.backlog_bytes), **NEVER_PINGED)
        )
        start = suite.notifications if name == fanfare.SSE else suite.chat
        edge = await start(cursor_of=cursors.__getitem__)
        others, slow_ones = Crowd(name, edge.door, StampedClient), Crowd(f"{name}, slow", edge.door, SlowClient)
        trial = Trial(edge, others, slow_ones, cursors, size)
        stack.callback(trial.close)
        await trial.run()
    figures = {
        "p99_ms": _typical_ms(trial.with_s, 0.99),
        "p99_ms_without_slow": _typical_ms(trial.without_s, 0.99),
        "p50_ms": _typical_ms(trial.with_s, 0.5),
        "p50_ms_without_slow": _typical_ms(trial.without_s, 0.5),
        "peak_mib": trial.peak_bytes / 1024**2,
        "clients": size.clients,
        "slow": slow,
        "messages_per_s": size.rate_hz,
    }
    return Row(NAME, name, edge.version, figures)


def _typical_ms(spells: list[list[float]], share: float) -> float:
    """Return the percentile of the spell in the middle: a hiccup of the machine spoils one spell, not the figure."""
    return statistics.median(percentile(delays_s, share) for delays_s in spells) * 1e3
