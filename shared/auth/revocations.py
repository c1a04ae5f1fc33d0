"""Revoked sessions, known on every edge within the time a message takes.

The auth service stores each revocation in the stream REVOKED, which repeats it live. An edge listens first, then
reads what is stored; it reads again after every lost link, when the stream has a new leader, when the chain of a
user's revocations shows a gap, and every `RECONCILE_S` whatever happens, since live messages may be lost in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic import ValidationError

from shared.auth.principal import Principal
from shared.broker.port import Broker, Message
from shared.contracts import subjects
from shared.contracts.events import Revocation
from shared.errors import FanfareError, SessionRevoked, Unavailable
from shared.telemetry.logs import get_logger
from shared.telemetry.metrics import Metrics

RECONCILE_S = 30.0
RETRY_S = 1.0
PAGE = 100
MAX_KEPT = 200_000
"""Users and sessions remembered; the oldest go first, whose tokens have long expired. Each that goes is counted."""

Callback = Callable[[Revocation], None]
Key = TypeVar("Key")


class Revocations:
    """What has been revoked, for `check` on each new connection and `on_revoked` for those that live."""

    def __init__(self, broker: Broker, *, metrics: Metrics | None = None, reconcile_s: float = RECONCILE_S) -> None:
        self._broker, self._reconcile_s = broker, reconcile_s
        self._sessions: dict[tuple[str, str], int] = {}
        self._all_before_ms: dict[str, int] = {}
        self._seen_seq: dict[str, int] = {}
        self._epoch = ""
        self._callbacks: list[Callback] = []
        self._stale = asyncio.Event()
        self._listening = self._loaded = False
        self._log = get_logger()
        metrics = metrics or Metrics()
        self._forgotten = metrics.counter("revocations_forgotten", "Revocations dropped because the list was full")
        self._invalid = metrics.counter("revocations_invalid", "Messages that were no revocation")

    async def run(self) -> None:
        """Follow the revocations; never returns."""
        if not self._listening:
            self._broker.on_reconnect(self._stale.set)
            await self._retry(self._listen)
            self._listening = True
        while True:
            self._stale.clear()
            await self._retry(self._load)
            self._loaded = True
            try:
                async with asyncio.timeout(self._reconcile_s):
                    await self._stale.wait()
            except TimeoutError:
                continue

    async def ready(self) -> None:
        """Pass once everything stored has been read: a readiness check.

        Raises:
            Unavailable: it has not.
        """
        if not self._loaded:
            raise Unavailable("revoked sessions are not known yet")

    def check(self, principal: Principal) -> None:
        """Pass if the holder's session still stands.

        Raises:
            SessionRevoked: it does not.
        """
        before_ms = self._all_before_ms.get(principal.user_id, -1)
        if (principal.user_id, principal.session) in self._sessions or principal.issued_at_s * 1000 <= before_ms:
            raise SessionRevoked

    def on_revoked(self, callback: Callback) -> None:
        """Call `callback` for each revocation from now on, at once; it may be called twice for the same one."""
        self._callbacks.append(callback)

    # -- private ------------------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        await self._broker.subscribe(subjects.ALL_REVOKED, self._on_live)
        # A leader that fell may not have repeated what it stored last.
        await self._broker.subscribe(subjects.leader_elected(subjects.REVOKED), lambda _news: self._stale.set())

    async def _load(self) -> None:
        epoch = (await self._broker.state(subjects.REVOKED)).epoch
        if epoch != self._epoch:  # made anew: its numbers begin again
            self._epoch = epoch
            self._seen_seq.clear()
        for last in await self._broker.read_last(subjects.REVOKED, [subjects.STORED_REVOKED]):
            while self._seen_seq.get(last.subject, 0) < last.seq:
                seen = self._seen_seq.get(last.subject, 0)
                page = await self._broker.read_after(subjects.REVOKED, last.subject, seen, limit=PAGE)
                for message in page.messages:
                    self._take(message)
                if not page.messages:
                    break

    def _on_live(self, message: Message) -> None:
        """Take a live one; if its number says that one was missed, or that the stream was made anew, look there."""
        seen = self._seen_seq.get(subjects.stored(message.subject), 0)
        if message.last_seq > seen or message.seq < seen:
            self._stale.set()
            self._apply(message)
        else:
            self._take(message)

    def _take(self, message: Message) -> None:
        """Apply a message that follows what was seen, and note that it was."""
        subject = subjects.stored(message.subject)
        if message.seq > self._seen_seq.get(subject, 0):
            self._keep(self._seen_seq, subject, message.seq)
            self._apply(message)

    def _apply(self, message: Message) -> None:
        try:
            revocation = Revocation.model_validate_json(message.data)
        except ValidationError:
            self._invalid.inc()
            self._log.error("revocation_invalid", subject=message.subject, seq=message.seq)
            return
        user, before = revocation.user_id, revocation.before
        if revocation.session:
            self._keep(self._sessions, (user, revocation.session), before)
        else:
            self._keep(self._all_before_ms, user, max(before, self._all_before_ms.get(user, 0)))
        for callback in self._callbacks:
            callback(revocation)

    def _keep(self, kept: dict[Key, int], key: Key, value: int) -> None:
        if key not in kept and len(kept) >= MAX_KEPT:
            del kept[next(iter(kept))]
            self._forgotten.inc()
        kept[key] = value

    async def _retry(self, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                return await step()
            except FanfareError as error:
                self._log.warning("revocations_not_read", error=str(error))
                await asyncio.sleep(RETRY_S)


def revokes(revocation: Revocation, principal: Principal) -> bool:
    """Say whether `revocation` ends the session of `principal`."""
    if revocation.user_id != principal.user_id:
        return False
    if revocation.session:
        return revocation.session == principal.session
    return principal.issued_at_s * 1000 <= revocation.before
