"""An edge that cannot compare itself with the broker is not ready for new clients."""

from __future__ import annotations

import asyncio

import pytest

from shared.edge.continuity import reconciler as reconciler_module
from shared.edge.continuity.reconciler import STALE_AFTER_S, Reconciler
from shared.errors import Unavailable


async def test_readiness_ends_while_nothing_can_be_compared_and_returns_with_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reconciler_module, "RECONCILE_EVERY_S", 0.01)
    now_s, away, compared = 0.0, True, asyncio.Event()

    async def compare(_everything: bool) -> None:
        if away:
            raise Unavailable
        compared.set()

    reconciler = Reconciler(compare, lambda: now_s)
    running = asyncio.ensure_future(reconciler.run())
    now_s = STALE_AFTER_S
    await reconciler.ready()
    now_s += 0.1
    with pytest.raises(Unavailable, match="not compared"):
        await reconciler.ready()

    away = False
    async with asyncio.timeout(5):
        await compared.wait()
    await asyncio.sleep(0)
    await reconciler.ready()
    running.cancel()
