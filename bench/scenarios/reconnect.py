"""reconnect: an edge is killed with all its clients, and they come back to another at once, each with its cursor.

Messages are sent all the while. Nothing may be lost, nothing come twice or out of order; else the run is void. It
counts how long it takes from the kill until every client is in again and has all that was said by then. Each comes
back as soon as it is cut off, AT_ONCE of them at a time, and one that is refused again at once, where a browser would
wait a little.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from bench import fanfare
from bench.load import BenchFailed, Crowd
from bench.machine import cpu_s
from bench.report import Check, Report, Row
from bench.resuming import (
    ResumingClient,
    Speaker,
    check_nothing_astray,
    come_back,
    until_each_has,
)
from bench.servers import Server

NAME = "reconnect"
QUICK_CLIENTS, FULL_CLIENTS = 1_000, 10_000
AT_ONCE = 1_000
RATE_HZ = 1.0
CHARACTERS = 200
BEFORE_S = AFTER_S = 2.0
RESUMED_S, QUICK_RESUMED_S = 5.0, 10.0


@dataclass
class Cut:
    """One transport's run: `here` dies, `there` takes its clients."""

    here: Server
    there: Server
    crowd: Crowd
    cursors: list[str]
    figures: dict[str, float] = field(default_factory=dict)

    async def run(self, clients: int) -> None:
        """Bring the clients in, kill their edge, and see them all come back.

        Raises:
            BenchFailed: one did not, or did not get each message once and in order.
        """
        speaker = Speaker(self.there.publish, rate_hz=RATE_HZ, characters=CHARACTERS)
        await self.crowd.connect(range(clients))
        await speaker.say_for(BEFORE_S)
        await until_each_has(self.crowd, speaker.sent)
        async with speaker.speaking():
            await self._cut(speaker)
        await speaker.say_for(AFTER_S)
        await until_each_has(self.crowd, speaker.sent)
        check_nothing_astray(self.crowd, speaker.sent)

    def close(self) -> None:
        """Leave at once."""
        self.crowd.close()

    async def _cut(self, speaker: Speaker) -> None:
        sent_before, there_s, generator_s = speaker.sent, cpu_s(self.there.pid), time.process_time()
        began_s = time.perf_counter()
        os.kill(self.here.pid, signal.SIGKILL)
        back = await come_back(self.crowd, self.there.door, self.cursors, at_once=AT_ONCE)
        all_in_s, self.crowd = time.perf_counter() - began_s, back.crowd
        await until_each_has(self.crowd, speaker.sent)
        resumed_s = time.perf_counter() - began_s
        clients = len(self.crowd.clients)
        self.figures = {
            "all_resumed_s": resumed_s,
            "all_in_s": all_in_s,
            "all_cut_s": back.cut_at_s - began_s,
            "cpu_us_per_resume": (cpu_s(self.there.pid) - there_s) / clients * 1e6,
            "refusals": back.refusals,
            "generator_busy": (time.process_time() - generator_s) / resumed_s,
            "sent_meanwhile": speaker.sent - sent_before,
            "clients": clients,
        }


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Cut off the clients of a chat edge, then those of a notifications edge."""
    clients = QUICK_CLIENTS if quick else FULL_CLIENTS
    for name in (fanfare.WEBSOCKET, fanfare.SSE):
        try:
            row = await _cut_off(name, clients, directory / name.replace(" ", "-"))
        except BenchFailed as error:
            report.void.append(f"{NAME}: {error}")
            continue
        report.rows.append(row)
        what = f"s until {clients:,} clients that were cut off at once have resumed, {name}"
        report.checks.append(Check(what, row.figures["all_resumed_s"], QUICK_RESUMED_S if quick else RESUMED_S))


async def _cut_off(name: str, clients: int, directory: Path) -> Row:
    cursors = [""] * clients
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        if name == fanfare.SSE:
            here, there = [await suite.notifications(cursor_of=cursors.__getitem__) for _ in range(2)]
        else:
            here, there = [await suite.chat(cursor_of=cursors.__getitem__) for _ in range(2)]
        cut = Cut(here, there, Crowd(name, here.door, ResumingClient), cursors)
        stack.callback(cut.close)
        await cut.run(clients)
    return Row(NAME, name, there.version, cut.figures)
