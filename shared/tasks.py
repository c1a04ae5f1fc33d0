"""Background tasks that are kept, named, logged when they fail, and cancelled together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from shared.telemetry.logs import get_logger

FIRST_REST_S = 1.0
MAX_REST_S = 30.0
STEADY_S = 60.0


class TaskKeeper:
    """Owns the tasks of one part of a process, so that none is lost and none outlives its owner.

    A task that fails is logged with its name.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._log = get_logger()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coro: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Start `coro` as a task that this keeper owns; once it is closed, one that is cancelled before it begins."""
        task = asyncio.get_running_loop().create_task(coro, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        if self._closed:  # what is still heard of the broker at a stop must not begin anything
            task.cancel()
        return task

    def keep(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> asyncio.Task[Any]:
        """Run what a process cannot do without. When it fails, that is logged, and it begins again after a rest.

        The rest doubles from FIRST_REST_S to MAX_REST_S, and is short again after STEADY_S without a failure: what
        stands in the broker's store may fail every process at once, and ending them would not mend it.
        """
        return self.spawn(self._again_and_again(run, name), name)

    async def close(self) -> None:
        """Cancel every task and wait for them to end."""
        self._closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _again_and_again(self, run: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        loop, rest_s = asyncio.get_running_loop(), FIRST_REST_S
        while True:
            began_s = loop.time()
            try:
                return await run()
            except Exception as error:  # noqa: BLE001  # whatever it is, all that depends on it must go on
                self._log.error("task_failed", task=name, exc_info=error)
            if loop.time() - began_s > STEADY_S:
                rest_s = FIRST_REST_S
            await asyncio.sleep(rest_s)
            rest_s = min(2 * rest_s, MAX_REST_S)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("task_failed", task=task.get_name(), exc_info=error)
