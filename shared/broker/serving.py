"""Answering requests: the part of `serve` that every adapter shares."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from shared.broker.metrics import BrokerEvent, BrokerMetrics
from shared.broker.port import Message, Responder
from shared.errors import FanfareError, Unavailable
from shared.tasks import TaskKeeper

MAX_AT_ONCE = 100

Answer = Callable[[str, bytes, FanfareError | None], Coroutine[Any, Any, None]]
"""Sends an answer to the one who asked, or says why there is none."""


class Desk:
    """Runs one responder: each request as a task of its own; above `MAX_AT_ONCE` they are refused, not queued."""

    def __init__(self, responder: Responder, metrics: BrokerMetrics, answer: Answer) -> None:
        self._responder, self._metrics, self._answer = responder, metrics, answer
        self._tasks, self._refusals = TaskKeeper(), TaskKeeper()

    def take(self, message: Message, reply_to: str) -> None:
        """Answer `message` soon, or refuse it."""
        if len(self._tasks) < MAX_AT_ONCE:
            self._tasks.spawn(self._run(message, reply_to), f"serve {message.subject}")
            return
        self._metrics.count(BrokerEvent.REQUEST_REFUSED)
        if len(self._refusals) < MAX_AT_ONCE:
            self._refusals.spawn(self._answer(reply_to, b"", Unavailable("too many requests at once")), "refuse")

    async def close(self) -> None:
        """Cancel what is being answered; those who asked hear that it is unavailable."""
        await self._tasks.close()
        await self._refusals.close()

    # -- private --------------------------------------------------------------------------------------------------

    async def _run(self, message: Message, reply_to: str) -> None:
        refusal: FanfareError | None = Unavailable("the request failed")
        try:
            await self._answer(reply_to, await self._responder(message), None)
            refusal = None
        except FanfareError as error:
            refusal = error
        finally:
            # Any other exception goes on to the TaskKeeper, which logs it; whoever asked hears of it at once.
            if refusal is not None:
                self._metrics.count(BrokerEvent.REQUEST_REFUSED)
                await self._answer(reply_to, b"", refusal)
