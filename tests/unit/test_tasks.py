"""Tasks that a process cannot do without begin again; whoever owns them ends them."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from shared import tasks as module
from shared.tasks import TaskKeeper


async def test_what_is_kept_begins_again_after_each_failure_which_is_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_REST_S", 0.001)
    keeper, begun, goes_on = TaskKeeper(), 0, asyncio.Event()

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun < 3:
            raise ValueError(f"failure {begun}")
        goes_on.set()
        await asyncio.Event().wait()

    with capture_logs() as logs:
        keeper.keep(run, "organ")
        async with asyncio.timeout(3):
            await goes_on.wait()

    assert [(each["event"], each["task"], str(each["exc_info"])) for each in logs] == [
        ("task_failed", "organ", "failure 1"),
        ("task_failed", "organ", "failure 2"),
    ]
    await keeper.close()
    assert (len(keeper), begun) == (0, 3)


async def test_what_fails_at_once_again_and_again_rests_ever_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FIRST_REST_S", 1.0)
    monkeypatch.setattr(module, "MAX_REST_S", 4.0)
    keeper, rests = TaskKeeper(), list[float]()
    enough = asyncio.Event()

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        if len(rests) == 4:
            enough.set()
            await asyncio.Event().wait()

    async def run() -> None:
        raise ValueError

    monkeypatch.setattr(module.asyncio, "sleep", rest)
    keeper.keep(run, "organ")
    async with asyncio.timeout(3):
        await enough.wait()

    assert rests == [1.0, 2.0, 4.0, 4.0]
    await keeper.close()


async def test_a_task_of_its_own_that_fails_is_logged_and_not_begun_again() -> None:
    keeper, begun = TaskKeeper(), 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        raise ValueError

    with capture_logs() as logs:
        await asyncio.wait({keeper.spawn(run(), "once")})
        await asyncio.sleep(0)

    assert ([each["task"] for each in logs], begun, len(keeper)) == (["once"], 1, 0)


async def test_nothing_begins_once_its_owner_has_ended() -> None:
    keeper, begun = TaskKeeper(), False

    async def run() -> None:
        nonlocal begun
        begun = True

    await keeper.close()
    late = keeper.spawn(run(), "late")
    await asyncio.wait({late})

    assert (late.cancelled(), begun, len(keeper)) == (True, False, 0)
