"""The machine: what it is, and what a process on it has used, read from /proc (proc(5))."""

from __future__ import annotations

import asyncio
import os
import platform
import resource
import time
import timeit
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

SETTLE_POLL_S = 0.5
SETTLED_POLLS = 4
SETTLED_WITHIN_BYTES = 256 * 1024
SETTLE_TIMEOUT_S = 15.0


def cpu_s(pid: int) -> float:
    """Return the processor time of a process so far, user and system, all threads; to the nanosecond.

    This is the clock that clock_getcpuclockid(3) names, which Python has no function for.
    """
    cpu_clock_of_pid = (~pid << 3) | 2
    return time.clock_gettime(cpu_clock_of_pid)


def user_and_sys_s(pid: int) -> tuple[float, float]:
    """Return the same in its two parts. The kernel samples which part each tick falls in: read them as a tendency."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / TICKS_PER_S, int(fields[12]) / TICKS_PER_S


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


async def settled_rss_bytes(pid: int) -> int:
    """Return the resident memory once it stands still, or after SETTLE_TIMEOUT_S."""
    last, still = rss_bytes(pid), 0
    for _ in range(int(SETTLE_TIMEOUT_S / SETTLE_POLL_S)):
        await asyncio.sleep(SETTLE_POLL_S)
        now = rss_bytes(pid)
        still = still + 1 if abs(now - last) <= SETTLED_WITHIN_BYTES else 0
        last = now
        if still >= SETTLED_POLLS:
            break
    return last


def slab_bytes() -> int:
    """Return the kernel's slab memory: where its sockets live, of all processes on the machine."""
    return _kilobytes("/proc/meminfo", "Slab") * 1024


def socket_buffer_bytes() -> int:
    """Return what TCP holds in buffers, of all processes on the machine (/proc/net/sockstat, in pages)."""
    line = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    return int(line.split()[-1]) * PAGE_BYTES


def available_bytes() -> int:
    """Return the memory that processes could still get without swapping."""
    return _kilobytes("/proc/meminfo", "MemAvailable") * 1024


def raise_descriptor_limit() -> int:
    """Allow this process and its children as many file descriptors as they may have; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def describe() -> dict[str, str | int | float]:
    """Return what a reader must know of the machine; the load average tells whether it was busy with something else.

    And `python_step_ns` tells how the interpreter was built: one compiled without profile-guided optimisation (pyenv's
    default) takes one and a half to two times as long as one that is (the images of Docker Hub, Debian).
    """
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gib": round(_kilobytes("/proc/meminfo", "MemTotal") / 1024**2, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "python_step_ns": round(_python_step_ns()),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _python_step_ns() -> float:
    """Return what a step of plain Python takes: an object with a slot, a method, a dict."""
    steps, rounds = 1_000, 20
    return (
        min(
            timeit.repeat(
                "for i in range(steps): Thing(i).act()",
                number=1,
                repeat=rounds,
                globals={"steps": steps, "Thing": _Thing},
            )
        )
        / steps
        * 1e9
    )


class _Thing:
    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def act(self) -> dict[str, int]:
        return {"number": self.number}


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _kilobytes(file: str, name: str) -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1])
    return 0
