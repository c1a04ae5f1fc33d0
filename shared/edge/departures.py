"""Departures: `presence.left.<room>.<user>` on NATS, once for each user who has left a room for good, for backends.

An edge that has taken users off its roster reads the rosters of the others, from their leader: of two edges that do so
at once, the one that wrote last sees that nobody has the user any more. Both may see it, and then both say so; so may
two edges that sweep up after a third. So what they say goes into a stream that stores it once for room and user within
its window, shorter than any stay, and the server repeats as `presence.left.…` only what is stored.

An edge that died left rosters behind: the first of the living by name sweeps them, the next in line looks after it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping

from shared.broker.port import Broker
from shared.clock import now_ms
from shared.contracts import subjects
from shared.contracts.events import PresenceLeft
from shared.contracts.ids import is_id, new_id
from shared.edge.roster import users_in
from shared.edge.timers import Wheel
from shared.errors import FanfareError
from shared.tasks import TaskKeeper
from shared.telemetry.logs import get_logger

SWEEP_BATCH = 64
TURN_S = 10.0
"""How long the next in line waits before it looks whether a dead edge was swept up after."""


class Departures:
    """What one edge says of those who left.

    Args:
        living: returns the edges that hold a lease now, this one among them.
    """

    def __init__(
        self, broker: Broker, edge: str, living: Callable[[], Collection[str]], wheel: Wheel, tasks: TaskKeeper
    ) -> None:
        self._broker, self._edge, self._living = broker, edge, living
        self._wheel, self._tasks = wheel, tasks
        self._log = get_logger()

    async def left(self, room: str, users: Mapping[str, str]) -> None:
        """Say of each of `users`, with names, that they left `room`, unless a living edge has them there.

        Raises:
            Unavailable: not all was said; say it again.
        """
        rosters = await asyncio.gather(*(self._broker.get(subjects.PRESENCE, room, edge) for edge in self._living()))
        elsewhere = {user for entry in rosters if entry is not None for user, _name in users_in(entry.value)}
        gone = [user for user in users.keys() - elsewhere if is_id(user)]
        await asyncio.gather(*(self._say(room, user, users[user]) for user in gone))

    def lost(self, edge: str) -> None:
        """Sweep up after an edge that is no more, when it is this one's turn."""
        self._sweep_after(sorted(self._living()).index(self._edge) * TURN_S, edge)

    async def sweep(self, edge: str) -> None:
        """Say who left with an edge that is no more, and remove its rosters; nothing if it is back.

        Raises:
            Unavailable: not all was said; sweep again.
        """
        pattern = subjects.rosters_of(edge)
        keys = await self._broker.read_last(subjects.bucket_stream(subjects.PRESENCE), [pattern])
        rooms = {subjects.tokens_after(key.subject, 2)[0]: dict(users_in(key.data)) for key in keys if not key.gone}
        if rooms and edge not in self._living():
            self._log.info("edge_swept", edge=edge, rooms=len(rooms))
            await self._sweep_rooms(edge, rooms)

    async def sweep_all(self) -> None:
        """Sweep up after every edge that is no more: for the first that comes after all had gone."""
        keys = await self._broker.read_last(
            subjects.bucket_stream(subjects.PRESENCE), [subjects.bucket_keys(subjects.PRESENCE)]
        )
        for edge in {subjects.tokens_after(key.subject, 3)[0] for key in keys if not key.gone} - {*self._living()}:
            await self.sweep(edge)

    # -- private ------------------------------------------------------------------------------------------------------

    def _sweep_after(self, delay_s: float, edge: str) -> None:
        def begin() -> None:
            self._tasks.spawn(self._try_sweep(edge), f"sweep {edge}")

        self._wheel.after(delay_s, begin)

    async def _try_sweep(self, edge: str) -> None:
        try:
            await self.sweep(edge)
        except FanfareError as error:
            self._log.warning("edge_not_swept", edge=edge, reason=str(error))
            self._sweep_after(TURN_S, edge)

    async def _sweep_rooms(self, edge: str, rooms: Mapping[str, Mapping[str, str]]) -> None:
        names = list(rooms)
        for start in range(0, len(names), SWEEP_BATCH):
            batch = names[start : start + SWEEP_BATCH]
            await asyncio.gather(*(self.left(room, rooms[room]) for room in batch))
            await asyncio.gather(*(self._broker.delete(subjects.PRESENCE, room, edge) for room in batch))

    async def _say(self, room: str, user: str, name: str) -> None:
        event = PresenceLeft(id=new_id(), room=room, user_id=user, username=str(name)[:128], timestamp=now_ms())
        await self._broker.append(subjects.presence_gone(room, user), event.to_json(), msg_id=f"{room}.{user}")
