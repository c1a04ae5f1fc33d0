"""A lease: at any time at most one process acts under a name, and another takes over when it is gone.

How it holds. The lease is one key with a time to live. Whoever creates it (the key must not exist) holds it, and
renews it by naming the revision that it wrote last, so a key that expired or changed hands meanwhile refuses. The
holder counts its own time from *before* each renewal was sent and stops `margin_s` early: it has always stopped
before the server lets anybody else in, also when the process was frozen (SIGSTOP, a paused machine) and wakes up.

What remains. `held()` is asked right before each act, so only what lies between that answer and the socket can come
late: acts that a process which freezes in that very moment has handed to its client library and not yet written (for
the price feed: the rest of one batch). Each act therefore carries the fence, the revision at which the lease was
acquired, which only goes up. A receiver that drops what is below the highest fence it has seen is exact; one that
does not may see those late acts. Fences start anew with the bucket, which an unreplicated broker loses when it
restarts: so a receiver forgets the highest fence when its link breaks, and the holder stops at such a break until the
bucket has confirmed its lease.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from shared.broker.port import Broker, Message
from shared.clock import Clock
from shared.contracts import subjects
from shared.errors import Conflict, NotFound, Unavailable

FENCE_HEADER = "Fanfare-Fence"
"""Header that carries the fence of the writer with what it publishes."""

_NO_ANSWER = (Unavailable, NotFound)
"""The broker is away, or has no bucket (yet, or not any more): wait, it will be provisioned."""

Act = Callable[[int], Coroutine[Any, Any, NoReturn]]
"""What the holder does, given its fence; it runs until it is cancelled, and asks `held()` before each act."""


def steady_s() -> float:
    """Return seconds that never jump and, where the system can tell, go on while the machine is suspended."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class Lease:
    """One process's part in a lease: it waits for it, holds it, loses it, and waits again."""

    def __init__(
        self,
        broker: Broker,
        name: str,
        holder: str,
        *,
        ttl_s: int = 4,
        renew_every_s: float = 1.0,
        margin_s: float = 0.5,
        clock: Clock = steady_s,
    ) -> None:
        """Prepare; nothing is asked of the broker before `run`.

        Args:
            name: what only one may do; an id.
            holder: who this is, for people who read the key.
            ttl_s: how long after its last renewal a holder that died keeps the others out.
            renew_every_s: how often it is renewed, and how often the others look whether it is free. They also hear
                of a release and of an expiry at once.
            margin_s: how much earlier than the server the holder counts its lease as over.
        """
        self._broker, self._name = broker, name
        self._token = f"{holder}:{secrets.token_hex(8)}".encode()
        self._ttl_s, self._renew_every_s, self._margin_s = ttl_s, renew_every_s, margin_s
        self._clock = clock
        self._revision = 0
        self._held_until_s = -math.inf
        self._stirred = asyncio.Event()

    def held(self) -> bool:
        """Say whether this process may act now. Cheap: ask before each act."""
        return self._clock() < self._held_until_s

    async def run(self, act: Act) -> NoReturn:
        """Run `act` whenever the lease is ours, and cancel it when that ends. Cancelled, it releases the lease."""
        self._broker.on_reconnect(self._doubt)
        changes = await self._broker.subscribe(subjects.bucket_changes(subjects.LEASES), self._notice)
        try:
            while True:
                fence = await self._acquire()
                await self._act_while_ours(act, fence)
        finally:
            await changes.close()

    # -- acquire, renew, release ----------------------------------------------------------------------------------

    async def _acquire(self) -> int:
        while True:
            try:
                await self._claim()
            except (Conflict, *_NO_ANSWER):
                await self._pause()
            else:
                return self._revision

    async def _act_while_ours(self, act: Act, fence: int) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                acting = group.create_task(act(fence))
                await self._renew_until_lost()
                acting.cancel()
        finally:
            await self._release()

    async def _renew_until_lost(self) -> None:
        while True:
            await self._pause()
            try:
                await self._claim()
            except Conflict:
                self._held_until_s = -math.inf
                return
            except _NO_ANSWER:
                if not self.held():
                    return

    async def _claim(self) -> None:
        """Create the key (revision 0) or renew it.

        Raises:
            Conflict: somebody else holds it, or ours has expired.
        """
        sent_s = self._clock()
        try:
            revision = await self._put(self._revision)
        except Conflict:
            revision = await self._put(await self._revision_of_a_lost_answer())
        self._revision = revision
        self._held_until_s = sent_s + self._ttl_s - self._margin_s

    async def _put(self, expect: int) -> int:
        return await self._broker.put(subjects.LEASES, self._name, value=self._token, expect=expect, ttl_s=self._ttl_s)

    async def _revision_of_a_lost_answer(self) -> int:
        """Return the revision of a write of ours whose answer never arrived."""
        entry = await self._broker.get(subjects.LEASES, self._name)
        if entry is None or entry.value != self._token:
            raise Conflict(f"the lease {self._name} is not ours")
        return entry.revision

    async def _release(self) -> None:
        revision, self._revision, self._held_until_s = self._revision, 0, -math.inf
        # Refused or unanswered, the key goes by itself within ttl_s.
        with contextlib.suppress(Conflict, *_NO_ANSWER):
            await self._broker.delete(subjects.LEASES, self._name, expect=revision)

    # -- reasons to look before it is time ------------------------------------------------------------------------

    def _doubt(self) -> None:
        """Stop acting until the broker, which may have restarted empty, confirms that the lease is still ours."""
        self._held_until_s = -math.inf
        self._stirred.set()

    def _notice(self, change: Message) -> None:
        """Look at once when a lease was released or has expired; a needless look costs one request."""
        if change.gone:
            self._stirred.set()

    async def _pause(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._renew_every_s):
                await self._stirred.wait()
        self._stirred.clear()
