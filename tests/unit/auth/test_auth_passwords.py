"""Passwords: what is hashed, how much at once, and that nobody is told who exists."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from argon2 import PasswordHasher

from services.auth.passwords import Passwords, check_password
from shared.errors import BadInput, RateLimited
from shared.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def passwords(metrics: Metrics) -> Iterator[Passwords]:
    made = Passwords(concurrency=1, waiting=2, metrics=metrics)
    yield made
    made.close()


async def test_a_hash_is_argon2id_with_the_parameters_of_owasp(passwords: Passwords) -> None:
    assert (await passwords.hash("correct horse")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_the_right_password_fits_and_no_other(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")

    assert await passwords.verify(stored, "correct horse")
    assert not await passwords.verify(stored, "Correct horse")
    assert not await passwords.verify("not a hash", "correct horse")


async def test_for_an_unknown_user_the_same_work_is_done(passwords: Passwords, monkeypatch: pytest.MonkeyPatch) -> None:
    known = await passwords.hash("correct horse")
    verified: list[str] = []
    verify = PasswordHasher.verify

    def watched(hasher: PasswordHasher, stored: str, password: str) -> bool:
        verified.append(stored.rpartition("$")[0].rpartition("$")[0])
        return verify(hasher, stored, password)

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    assert not await passwords.verify(known, "nobody has this password")
    assert not await passwords.verify(None, "nobody has this password")

    assert verified == ["$argon2id$v=19$m=19456,t=2,p=1"] * 2


async def test_when_too_many_wait_the_next_is_told_to_come_back(passwords: Passwords) -> None:
    stored = await passwords.hash("correct horse")
    results = await asyncio.gather(*(passwords.verify(stored, "x" * 8) for _ in range(5)), return_exceptions=True)

    assert [type(result) for result in results].count(RateLimited) == 2
    assert await passwords.verify(stored, "correct horse")


async def test_a_hash_of_other_parameters_is_outdated(passwords: Passwords) -> None:
    assert passwords.outdated(PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash("x"))
    assert not passwords.outdated(await passwords.hash("x"))


@pytest.mark.parametrize("password", ["", "short77", "x" * 129, "x" * 100_000, "\U0001f600" * 7])
def test_passwords_too_short_or_too_long_are_refused(password: str) -> None:
    with pytest.raises(BadInput):
        check_password(password)


@pytest.mark.parametrize("password", ["12345678", "x" * 128, "пароль-пароль", " " * 8])
def test_any_characters_make_a_password(password: str) -> None:
    check_password(password)
