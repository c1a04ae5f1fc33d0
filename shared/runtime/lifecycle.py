"""A process from ready to gone: readiness checks, the drain before the stop, and the end that cannot be mended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from shared.errors import FanfareError, Unavailable
from shared.telemetry.live_logs import LiveLogs
from shared.telemetry.logs import get_logger

Check = Callable[[], Awaitable[None]]
Hook = Callable[[], Awaitable[None]]


class Shedder(Protocol):
    """Whoever can send some of this process's clients elsewhere."""

    def __len__(self) -> int:
        """How many clients there are."""

    def shed(self, count: int, *, per_s: float) -> None:
        """Begin to ask `count` of them to leave, `per_s` in a second. Raises Conflict while that is going on."""


CHECK_TIMEOUT_S = 2.0


class Lifecycle:
    """One per process. Services add what must hold for them to be ready, and what they do before a stop.

    Attributes:
        draining: a stop has begun: readiness is false, connections are being asked to leave.
        failure: why the process must end, once it must.
        live_logs: the log records that wait to be told; None if they are not, or somebody has taken that on.
        shedder: what an operator sheds clients by; None where there are none.
    """

    def __init__(self) -> None:
        self.draining = False
        self.failure: str | None = None
        self.live_logs: LiveLogs | None = None
        self.shedder: Shedder | None = None
        self._checks: dict[str, Check] = {}
        self._hooks: list[Hook] = []
        self._log = get_logger()

    def add_check(self, name: str, check: Check) -> None:
        """Make readiness depend on `check`, which raises a FanfareError while it does not hold."""
        self._checks[name] = check

    def on_drain(self, hook: Hook) -> None:
        """Run `hook` at a stop, while every socket is still open; all hooks run at once, begun in the order given."""
        self._hooks.append(hook)

    def fail(self, reason: str) -> None:
        """Note that this process cannot go on; the server ends it with status 1, and an orchestrator starts anew."""
        self._log.error("process_failed", reason=reason)
        self.failure = self.failure or reason

    async def readiness(self) -> dict[str, str]:
        """Return what is not ready, by name, with the reason; empty when all is."""
        if self.draining:
            return {"drain": "this process is stopping"}
        if self.failure:
            return {"process": self.failure}
        names = list(self._checks)
        results = await asyncio.gather(*(self._ask(name) for name in names))
        return {name: reason for name, reason in zip(names, results, strict=True) if reason}

    async def drain(self) -> None:
        """Run the hooks; one that fails does not keep the others from running."""
        self.draining = True
        results = await asyncio.gather(*(hook() for hook in self._hooks), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                self._log.error("drain_hook_failed", exc_info=result)

    async def _ask(self, name: str) -> str:
        try:
            async with asyncio.timeout(CHECK_TIMEOUT_S):
                await self._checks[name]()
        except TimeoutError:
            return str(Unavailable(f"no answer in {CHECK_TIMEOUT_S:g} s"))
        except FanfareError as error:
            return str(error)
        return ""
