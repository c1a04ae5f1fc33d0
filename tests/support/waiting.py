"""Waiting for what no frame announces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

DEADLINE_S = 10.0
POLL_S = 0.02


async def eventually(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]], *, deadline_s: float = DEADLINE_S
) -> None:
    """Return once `condition` holds, which is asked every few milliseconds."""
    async with asyncio.timeout(deadline_s):
        while True:
            held = condition()
            if held if isinstance(held, bool) else await held:
                return
            await asyncio.sleep(POLL_S)
