"""How an edge keeps up with revocations, whatever of the live messages is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from shared.auth import revocations as module
from shared.auth.principal import Principal
from shared.auth.revocations import Revocations
from shared.broker.memory import MemoryBroker, MemoryServer
from shared.broker.port import Handler, Subscription
from shared.contracts import subjects
from shared.contracts.events import Revocation
from shared.contracts.ids import new_id
from shared.errors import SessionRevoked, Unavailable
from shared.tasks import TaskKeeper
from shared.telemetry.metrics import Metrics


class LossyBroker(MemoryBroker):
    """A broker whose live messages a test can keep back."""

    deaf = False

    async def subscribe(self, pattern: str, handler: Handler) -> Subscription:
        return await super().subscribe(pattern, lambda message: None if self.deaf else handler(message))


@pytest.fixture
def broker() -> LossyBroker:
    return LossyBroker(MemoryServer())


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@asynccontextmanager
async def following(made: Revocations) -> AsyncIterator[Revocations]:
    keeper = TaskKeeper()
    keeper.spawn(made.run(), "revocations")
    yield made
    await keeper.close()


@pytest.fixture
async def revocations(broker: LossyBroker, metrics: Metrics) -> AsyncIterator[Revocations]:
    async with following(Revocations(broker, metrics=metrics)) as made:
        yield made


def holder(session: str, user: str = "u1") -> Principal:
    return Principal(user, "Ann", session, frozenset(), 2000, 1000)


def revoked(revocations: Revocations, principal: Principal) -> bool:
    try:
        revocations.check(principal)
    except SessionRevoked:
        return True
    return False


async def revoke(broker: MemoryBroker, session: str | None, user: str = "u1", before: int = 1) -> None:
    event = Revocation(user_id=user, session=session, before=before)
    await broker.append(subjects.revoked(user), event.to_json(), msg_id=new_id())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def loaded(revocations: Revocations) -> None:
    async with asyncio.timeout(5):
        while True:
            try:
                return await revocations.ready()
            except Unavailable:
                await asyncio.sleep(0.005)


async def test_what_was_stored_before_is_known_when_it_is_ready(broker: LossyBroker) -> None:
    for number in range(250):
        await revoke(broker, f"s{number}", user=f"u{number % 3}")
    await revoke(broker, None, user="u9", before=1_000_000)
    revocations = Revocations(broker)
    with pytest.raises(Unavailable):
        await revocations.ready()
    async with following(revocations):
        await loaded(revocations)

    assert all(revoked(revocations, holder(f"s{number}", f"u{number % 3}")) for number in range(250))
    assert revoked(revocations, holder("any", "u9"))
    assert not revoked(revocations, holder("s0", "u1"))


async def test_a_live_one_is_told_to_live_connections(broker: LossyBroker, revocations: Revocations) -> None:
    told: list[Revocation] = []
    revocations.on_revoked(told.append)
    await loaded(revocations)
    await revoke(broker, "s1")
    await until(lambda: revoked(revocations, holder("s1")))

    assert [one.session for one in told] == ["s1"]
    assert not revoked(revocations, holder("s2"))


async def test_a_gap_in_the_chain_is_filled_at_once(broker: LossyBroker, revocations: Revocations) -> None:
    told: list[Revocation] = []
    revocations.on_revoked(told.append)
    await loaded(revocations)
    await revoke(broker, "s1")
    await until(lambda: revoked(revocations, holder("s1")))

    broker.deaf = True
    await revoke(broker, "lost")
    await asyncio.sleep(0)
    broker.deaf = False
    await revoke(broker, "s3")

    await until(lambda: revoked(revocations, holder("lost")))
    assert {one.session for one in told} == {"s1", "lost", "s3"}


async def test_one_lost_in_silence_is_found_by_reading_again(broker: LossyBroker) -> None:
    async with following(Revocations(broker, reconcile_s=0.05)) as revocations:
        await loaded(revocations)
        broker.deaf = True
        await revoke(broker, "lost")

        await until(lambda: revoked(revocations, holder("lost")))
        assert not revoked(revocations, holder("another"))


async def test_after_the_stream_was_made_anew_what_comes_is_heard_and_what_was_missed_is_read(
    broker: LossyBroker, revocations: Revocations
) -> None:
    await loaded(revocations)
    for number in range(5):
        await revoke(broker, f"s{number}")
    await until(lambda: revoked(revocations, holder("s4")))
    broker._server.recreate(subjects.REVOKED)

    broker.deaf = True
    await revoke(broker, "missed")
    await asyncio.sleep(0)
    broker.deaf = False
    await revoke(broker, "heard")

    await until(lambda: revoked(revocations, holder("heard")) and revoked(revocations, holder("missed")))
    assert revoked(revocations, holder("s0"))  # what was revoked in its earlier life stays so


async def test_what_is_no_revocation_is_counted_and_harms_nobody(
    broker: LossyBroker, revocations: Revocations, metrics: Metrics
) -> None:
    await loaded(revocations)
    await broker.append(subjects.revoked("u1"), b"[1, 2", msg_id=new_id())
    await revoke(broker, "s1")
    await until(lambda: revoked(revocations, holder("s1")))

    assert metrics.registry.get_sample_value("fanfare_revocations_invalid_total") == 1


async def test_what_is_remembered_is_bounded_and_the_oldest_goes(
    broker: LossyBroker, revocations: Revocations, metrics: Metrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_KEPT", 10)
    await loaded(revocations)
    for number in range(12):
        await revoke(broker, f"s{number}")
    await until(lambda: revoked(revocations, holder("s11")))

    assert not revoked(revocations, holder("s1"))
    assert revoked(revocations, holder("s2"))
    assert metrics.registry.get_sample_value("fanfare_revocations_forgotten_total") == 2
