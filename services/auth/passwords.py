"""Passwords: Argon2id in a bounded pool, and the same work whether or not the account exists."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from argon2 import PasswordHasher, Type
from argon2.exceptions import InvalidHashError, VerificationError

from shared.errors import BadInput, RateLimited
from shared.telemetry.metrics import Metrics

MIN_CHARS, MAX_CHARS, MAX_BYTES = 8, 128, 1024
MEMORY_KIB, ITERATIONS, LANES = 19 * 1024, 2, 1
"""OWASP Password Storage Cheat Sheet: the minimum for Argon2id; about 30 ms of one core."""
RETRY_AFTER_MS = 1_000

T = TypeVar("T")


def check_password(password: str) -> None:
    """Pass if the password may be set: 8 to 128 characters, whatever they are (NIST SP 800-63B).

    Raises:
        BadInput: it may not.
    """
    if not MIN_CHARS <= len(password) <= MAX_CHARS or len(password.encode()) > MAX_BYTES:
        raise BadInput(f"a password has {MIN_CHARS} to {MAX_CHARS} characters and at most {MAX_BYTES} bytes")


class Passwords:
    """Hashes and verifies passwords, so many at once, so many waiting; the next one is refused.

    Memory is bounded by `concurrency` times 19 MiB. Refusing early keeps a flood of logins from making everybody
    wait, and keeps the event loop free for those who are logged in.
    """

    def __init__(self, *, concurrency: int, waiting: int, metrics: Metrics) -> None:
        self._hasher = PasswordHasher(time_cost=ITERATIONS, memory_cost=MEMORY_KIB, parallelism=LANES, type=Type.ID)
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="argon2")
        self._bound = concurrency + waiting
        self._nobody = self._hasher.hash("nobody has this password")
        self._busy = metrics.gauge("argon2_in_flight", "Password hashes being computed or waiting")
        self._refused = metrics.counter("argon2_refused", "Password hashes refused because too many were waiting")
        self._computed = metrics.counter("argon2_computed", "Password hashes computed", ["purpose"])
        self._in_flight = 0

    async def hash(self, password: str) -> str:
        """Return the password's hash with a fresh salt.

        Raises:
            RateLimited: too many are waiting.
        """
        return await self._run("hash", lambda: self._hasher.hash(password))

    async def verify(self, stored: str | None, password: str) -> bool:
        """Say whether the password fits; with no stored hash the same work is done, and the answer is no.

        Raises:
            RateLimited: too many are waiting.
        """
        fits = await self._run("verify", lambda: self._fits(stored or self._nobody, password))
        return fits and stored is not None

    def outdated(self, stored: str) -> bool:
        """Say whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(stored)

    def close(self) -> None:
        """Let the threads end."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    # -- private ------------------------------------------------------------------------------------------------------

    def _fits(self, stored: str, password: str) -> bool:
        try:
            return self._hasher.verify(stored, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _run(self, purpose: str, work: Callable[[], T]) -> T:
        if self._in_flight >= self._bound:
            self._refused.inc()
            raise RateLimited("too many people are logging in", retry_after_ms=RETRY_AFTER_MS)
        self._in_flight += 1
        self._busy.set(self._in_flight)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        finally:
            self._in_flight -= 1
            self._busy.set(self._in_flight)
            self._computed.labels(purpose).inc()
