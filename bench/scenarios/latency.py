"""latency: from when a message was to be sent at one edge until a client of another edge has it, at a fixed rate.

The stamp in a message is the time on the schedule, not the time it really left: a sender that falls behind shows as
latency instead of hiding it (coordinated omission).
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import AsyncExitStack
from pathlib import Path

from bench import fanfare
from bench.load import Crowd, StampedClient, content, text_frame
from bench.machine import cpu_s
from bench.report import Check, Report, Row, percentile

NAME = "latency"
ROOMS, MEMBERS = 20, 10
RATE_HZ = 100
WARM_UP_S = 1.0
CONTENT_BYTES = 200
QUICK_S, FULL_S = 5.0, 20.0
P50_MS, P99_MS = 3.0, 15.0


async def run(report: Report, directory: Path, *, quick: bool) -> None:
    """Speak at one edge, and time what the members at the other hear."""
    messages = int(RATE_HZ * (QUICK_S if quick else FULL_S))
    async with AsyncExitStack() as stack:
        suite = await stack.enter_async_context(fanfare.fanfare(directory))
        here, there = await suite.chat(_own_room), await suite.chat(lambda number: _own_room(number // MEMBERS))
        speakers, members = Crowd(here.name, here.door), Crowd(there.name, there.door, StampedClient)
        stack.callback(speakers.close)
        stack.callback(members.close)
        await speakers.connect(range(ROOMS))
        await members.connect(range(ROOMS * MEMBERS))
        await _speak(speakers, int(RATE_HZ * WARM_UP_S))
        await members.reach(int(RATE_HZ * WARM_UP_S) * MEMBERS)
        members.delays_s.clear()
        before_s, began_s = (cpu_s(here.pid), cpu_s(there.pid)), time.perf_counter()
        await _speak(speakers, messages)
        await members.reach((int(RATE_HZ * WARM_UP_S) + messages) * MEMBERS)
        taken_s = time.perf_counter() - began_s
        busy = [(cpu_s(server.pid) - cpu) / taken_s for server, cpu in zip((here, there), before_s, strict=True)]
    delays_ms = sorted(delay * 1e3 for delay in members.delays_s)
    figures = {
        "p50_ms": percentile(delays_ms, 0.5),
        "p99_ms": percentile(delays_ms, 0.99),
        "p999_ms": percentile(delays_ms, 0.999),
        "max_ms": delays_ms[-1],
        "messages_per_s": RATE_HZ,
        "deliveries": len(delays_ms),
        "busy_sending_edge": busy[0],
        "busy_delivering_edge": busy[1],
    }
    report.rows.append(Row(NAME, "Fanfare, edge to edge", there.version, figures))
    if not quick:
        report.checks += [
            Check("ms from schedule to another edge's client, p50", figures["p50_ms"], P50_MS),
            Check("ms from schedule to another edge's client, p99", figures["p99_ms"], P99_MS),
        ]


async def _speak(speakers: Crowd, messages: int) -> None:
    """Send one message every 1/RATE_HZ, each speaker in turn, late if it must be but stamped as if it were not."""
    began_s = time.perf_counter()
    for number in range(messages):
        at_s = began_s + number / RATE_HZ
        await asyncio.sleep(max(0.0, at_s - time.perf_counter()))
        room = number % ROOMS
        data = {"content": content(CONTENT_BYTES, at_s), "room": _own_room(room)}
        speakers.clients[room].send(text_frame(json.dumps({"type": "send_message", "data": data}).encode()))


def _own_room(number: int) -> str:
    return f"room-{number}"
