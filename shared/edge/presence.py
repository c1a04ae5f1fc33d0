"""Presence: who is in a room, over all edges, with a lease for each edge so that a crash leaves nobody behind.

Each edge keeps one key for each room that it has users in (its roster), and one lease for itself.
Who is online in a room is the union of the rosters whose edge holds a lease. Every edge computes it from the same
keys, and tells its own clients the difference; nothing is announced that the keys do not say. When a lease lapses,
its rosters count no more, which makes exactly one `offline` for each user whom no other edge has (ADR 0008).
Backends hear of those who left by `departures`.
"""

from __future__ import annotations

import asyncio
import random
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from shared.broker.port import Broker, Message
from shared.clock import Clock, monotonic_s
from shared.contracts import subjects
from shared.edge.departures import Departures
from shared.edge.lately import Lately, Reading
from shared.edge.living import Living
from shared.edge.pauses import Pauses
from shared.edge.roster import MAX_ROSTER_USERS, roster, users_in
from shared.edge.settling import Settling
from shared.edge.timers import Wheel
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger

FLUSH_S = 0.1
FLUSH_BATCH = 64
GRACE_S = 1.0
MOVING_GRACE_S = 8.0
"""The grace for those who were asked to move: they come back within 2 s, and some need a second try."""

ROSTER_TTL_S = 24 * 3600
RECONCILE_EVERY_S = 10.0

OnChange = Callable[[str, str, str, bool], None]
"""Called with room, user, user's name, and whether they are online now."""

Online = Mapping[str, str]
"""Who is online in a room, with names. Never changed: who comes or goes makes it another one."""

NOBODY: Online = {}


class Presence:
    """The rooms that this edge has users in, and who else is there.

    A user who leaves is kept for GRACE_S, so that a reload or a change of edge is no leave. A roster names at most
    MAX_ROSTER_USERS users, and a room with as many is an audience: telling each of thousands of every other who comes
    or goes is work that grows with the square of them, so nobody is told, and nobody gets a list.
    """

    def __init__(
        self, broker: Broker, edge: str, *, wheel: Wheel, on_change: OnChange, clock: Clock = monotonic_s
    ) -> None:
        self._broker, self._edge, self._wheel = broker, edge, wheel
        self._on_change = on_change
        # Of each room that somebody here is in: who is here, with names (and, apart, how many connections more than one
        # they have), the stored roster of each edge, and what clients were told. Nearly all rooms are small, and there
        # is one for every ten clients or so: what is kept of one is kept small.
        self._here: dict[str, dict[str, str]] = {}
        self._further: Counter[tuple[str, str]] = Counter()
        self._rosters: dict[str, dict[str, bytes]] = {}
        self._online: dict[str, Online] = {}
        self._lately = Lately(clock)
        self._gone: dict[str, dict[str, str]] = {}
        self._dirty: set[str] = set()
        self._flush = asyncio.Event()
        self._tasks = TaskKeeper()
        self._living = Living(
            broker, edge, on_came=self._came, on_lost=self._lost, on_lapsed=self._write_all, clock=clock
        )
        self._settling = Settling(broker, self._tasks, self._write_lost)
        self._departures = Departures(broker, edge, lambda: self._living.edges, wheel, self._tasks)
        self._log = get_logger()

    async def start(self) -> None:
        """Take the lease and follow everyone's leases and rosters."""
        await self._departures.sweep(self._edge)  # of an earlier life under the same name
        await self._broker.subscribe(subjects.bucket_changes(subjects.PRESENCE), self._roster_changed)
        self._broker.on_disconnect(self._lately.note_break)
        self._settling.start()
        await self._living.start()
        if self._living.edges == {self._edge}:
            await self._departures.sweep_all()
        self._tasks.keep(self._living.renew_for_ever, "presence-lease")
        self._tasks.keep(self._flush_for_ever, "presence-flush")
        self._tasks.keep(self._reconcile_for_ever, "presence-reconcile")

    async def close(self) -> None:
        """Let the lease lapse soon: those who are still on the roster then did not come to another edge.

        The others sweep up after this edge as after one that died, but earlier.
        """
        await self._tasks.close()
        await self._living.give_up(linger=bool(self._here))

    # -- what sessions ask --------------------------------------------------------------------------------------------

    async def join(self, room: str, user: str, name: str) -> None:
        """Note a connection of `user` in `room`, and know who else is there."""
        first = room not in self._here
        here = self._here.setdefault(room, {})
        known = here.get(user)
        if known is not None:
            self._further[room, user] += 1
        if known != name:
            here[user] = name
            self._gone.get(room, {}).pop(user, None)
            if known is not None or len(here) <= MAX_ROSTER_USERS:  # beyond that, the roster stays as it is
                self._mark(room)
        if first:
            await self._read_rosters([room])

    def leave(self, room: str, user: str, *, moving: bool = False) -> None:
        """End a connection of `user` in `room`; the room hears of it after the grace time, unless they are back.

        Args:
            moving: they were asked to come back at another edge, and get more time to.
        """
        self._wheel.after(MOVING_GRACE_S if moving else GRACE_S, lambda: self._left(room, user))

    def listed(self, room: str, user: str) -> list[str]:
        """Return who is online in a room that this edge has users in, `user` among them, in order.

        Nobody of an audience: the list would be out of date at once, and it is four KB for each of thousands who come.
        """
        online = self.online(room)
        if len(online) >= MAX_ROSTER_USERS:
            return []
        members = list(online)
        if user not in online:
            insort(members, user)
        return members

    def online(self, room: str) -> Online:
        """Return who is online in a room, as far as the clients here have been told; for `changes`."""
        return self._online.get(room, NOBODY)

    def changes(self, room: str, since: Online) -> Iterable[tuple[str, str, bool]]:
        """Return what a client has yet to be told that was told `since`, and nothing of what changed until now."""
        return _difference(since, self.online(room))

    async def members(self, room: str) -> Online:
        """Return who is online in `room`, with their names, whether or not this edge has users there."""
        if room in self._here:
            return self.online(room)
        rosters = await self._stored_rosters([room])
        return self._union(room, rosters.get(room, {}))

    # -- changes from here --------------------------------------------------------------------------------------------

    def _left(self, room: str, user: str) -> None:
        here = self._here.get(room)
        if here is None or user not in here:
            return
        further = self._further.pop((room, user), 0)
        if further > 1:
            self._further[room, user] = further - 1
        elif not further:
            self._gone.setdefault(room, {})[user] = here.pop(user)
            self._mark(room)

    def _mark(self, room: str) -> None:
        self._dirty.add(room)
        self._flush.set()

    async def _flush_for_ever(self) -> None:
        while True:
            await self._flush.wait()
            self._flush.clear()
            while self._dirty:
                batch = [self._dirty.pop() for _ in range(min(len(self._dirty), FLUSH_BATCH))]
                await asyncio.gather(*(self._write_or_retry(room) for room in batch))
            await asyncio.sleep(FLUSH_S)

    async def _write_or_retry(self, room: str) -> None:
        gone = self._gone.pop(room, {})
        try:
            await self._write(room)
            if gone and len(gone) + len(self._here.get(room, {})) < MAX_ROSTER_USERS:
                await self._departures.left(room, gone)
        except FanfareError as error:
            self._log.warning("roster_not_written", room=room, reason=str(error))
            here = self._here.get(room, {})
            later = self._gone.get(room, {})
            self._gone[room] = {user: name for user, name in gone.items() if user not in here} | later
            self._wheel.after(1.0, lambda: self._mark(room))

    async def _write(self, room: str) -> None:
        here = self._here.get(room)
        if here:
            await self._broker.put(subjects.PRESENCE, room, self._edge, value=roster(here), ttl_s=ROSTER_TTL_S)
        else:
            await self._broker.delete(subjects.PRESENCE, room, self._edge)
            if not self._here.get(room):
                self._forget(room)

    def _forget(self, room: str) -> None:
        """Nobody is here any more, so there is nobody to tell."""
        for rooms in (self._here, self._rosters, self._online):
            rooms.pop(room, None)

    # -- changes from everywhere --------------------------------------------------------------------------------------

    def _roster_changed(self, message: Message) -> None:
        room, edge = subjects.tokens_after(message.subject, 3)
        if room in self._here:
            self._lately.note(room, edge)
            self._set_roster(room, edge, None if message.gone else message.data)
            self._tell(room)
            self._restore(room)

    def _came(self, edge: str) -> None:
        self._tasks.spawn(self._tell_in_turns(edge), f"presence-tell {edge}")

    def _lost(self, edge: str) -> None:
        self._departures.lost(edge)
        self._came(edge)

    def _set_roster(self, room: str, edge: str, data: bytes | None) -> None:
        rosters = self._rosters.setdefault(room, {})
        if data and users_in(data):
            rosters[edge] = data
        else:
            rosters.pop(edge, None)

    def _union(self, room: str, rosters: dict[str, bytes]) -> dict[str, str]:
        """Return who is online in a room, in order; of whom is here as well, the very texts that the sessions hold."""
        living = self._living.edges
        found = {user: name for edge, data in rosters.items() if edge in living for user, name in users_in(data)}
        here = {user: name for user, name in self._here.get(room, {}).items() if found.get(user) == name}
        return dict(sorted((here | {user: name for user, name in found.items() if user not in here}).items()))

    def _tell(self, room: str) -> None:
        """Announce the difference between what clients were told and what the keys say."""
        before, now = self.online(room), self._union(room, self._rosters.get(room, {}))
        self._online[room] = now
        for user, name, online in _difference(before, now):
            self._on_change(room, user, name, online)

    async def _tell_in_turns(self, edge: str) -> None:
        """Announce what an edge that came or went changes, in all rooms that it has users in."""
        pauses = Pauses()
        for room in [room for room, rosters in self._rosters.items() if edge in rosters]:
            if room in self._here:
                self._tell(room)
            await pauses.when_due()

    def _restore(self, room: str) -> None:
        """Write this edge's roster again if somebody has removed it."""
        if self._here.get(room) and self._edge not in self._rosters.get(room, {}):
            self._mark(room)

    def _write_all(self) -> None:
        """Write all rosters of this edge: while it had no lease, others swept up after it."""
        for room in self._here:
            self._mark(room)

    # -- reading everything again, and writing what the broker has lost -----------------------------------------------

    async def _write_lost(self) -> bool:
        """Have the lease, and all rosters of this edge, stand with the broker; False if that is not known."""
        try:
            await self._living.renew()
            pattern = subjects.rosters_of(self._edge)
            keys = await self._broker.read_last(subjects.bucket_stream(subjects.PRESENCE), [pattern])
        except FanfareError as error:
            self._log.warning("presence_not_written_again", reason=str(error))
            return False
        stored = {subjects.tokens_after(key.subject, 2)[0] for key in keys if not key.gone}
        for room in self._here.keys() - stored:
            self._mark(room)
        return True

    async def _reconcile_for_ever(self) -> None:
        """Changes reach us at most once; what was missed is seen here."""
        while True:
            await asyncio.sleep(RECONCILE_EVERY_S * random.uniform(0.75, 1.25))
            await self._settling.wait()
            self._lately.forget_old()
            try:
                await self._living.read()
                await self._settling.wait()
                await self._read_rosters(list(self._here))
            except FanfareError as error:
                self._log.warning("presence_not_read", reason=str(error))

    async def _read_rosters(self, rooms: list[str]) -> None:
        reading, pauses = self._lately.begin_read(), Pauses()
        for room, read in (await self._stored_rosters(rooms)).items():
            if room in self._here:
                self._merge(room, read, reading)
                self._tell(room)
            await pauses.when_due()

    def _merge(self, room: str, read: dict[str, bytes], reading: Reading) -> None:
        """Take what was read of a room's rosters, but for what is known better; and for ours, if it was lost."""
        heard = self._rosters.get(room, {})
        stands = {edge for edge in heard.keys() | read.keys() if reading.is_outdated(room, edge, found=edge in read)}
        if self._here[room] and self._edge not in read:
            stands.add(self._edge)
            self._mark(room)
        taken = {edge: data for edge, data in read.items() if edge not in stands}
        self._rosters[room] = taken | {edge: data for edge, data in heard.items() if edge in stands}

    async def _stored_rosters(self, rooms: list[str]) -> dict[str, dict[str, bytes]]:
        patterns = [subjects.bucket_keys(subjects.PRESENCE, room) for room in rooms]
        found: dict[str, dict[str, bytes]] = {room: {} for room in rooms}
        for key in await self._broker.read_last(subjects.bucket_stream(subjects.PRESENCE), patterns):
            room, edge = subjects.tokens_after(key.subject, 2)
            if not key.gone and users_in(key.data):
                found[room][edge] = key.data
        return found


def _difference(before: Online, now: Online) -> Iterable[tuple[str, str, bool]]:
    """Return who came and who went, with names; nobody of an audience."""
    if now is before or max(len(before), len(now)) >= MAX_ROSTER_USERS:
        return ()
    came = [(user, now[user], True) for user in now.keys() - before.keys()]
    return came + [(user, before[user], False) for user in before.keys() - now.keys()]
