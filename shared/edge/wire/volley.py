"""A volley: events to many outlets in as few system calls as can be.

Nearly all outlets are pooled connections whose sockets have room. Those are written to from here: all together through
the pool's ring (ADR 0024), or one after the other where the kernel gives none. An outlet that is no pooled connection,
and one whose socket is full, takes each event by itself.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from shared.edge.delivery.event import Event
from shared.edge.delivery.listener import Outlet
from shared.edge.wire.ring import MAX_BYTES
from shared.edge.wire.writer import PooledWriter

WORTH_A_RING = 4
"""Fewer writes than that cost less one by one."""

Delivery = tuple[Sequence[Outlet], Sequence[Event]]
"""Events, and the outlets that get them, in one write each; none of the outlets twice."""


def deliver_to_each(outlets: Sequence[Outlet], events: Sequence[Event]) -> None:
    """Hand `events` to each of `outlets`."""
    deliver_all(((outlets, events),))


def deliver_all(deliveries: Iterable[Delivery]) -> None:
    """Hand each delivery's events to its outlets; who is in several of them gets them in their order."""
    volley = _Volley()
    for outlets, events in deliveries:
        rest = outlets
        while rest:
            rest = _aim_at_one_kind(volley, rest, events)
    volley.fire()


class _Volley:
    """Writes that wait to go out together, no two to one connection: it could take part of one, and then the other."""

    __slots__ = ("_aimed_at", "_shots")

    def __init__(self) -> None:
        self._shots: list[_Shot] = []
        self._aimed_at: set[PooledWriter] = set()

    def aim(self, outlets: Sequence[PooledWriter], events: Sequence[Event]) -> None:
        """Have `events` go to `outlets`, which are of one class, so that their bytes are the same."""
        if self._shots:
            self._aimed_at.update(self._shots[-1].outlets)
            if not self._aimed_at.isdisjoint(outlets):
                self.fire()
        free, fds = outlets, [outlet.fd for outlet in outlets if outlet.congestion is None and not outlet.closing]
        if len(fds) < len(outlets):
            free = [outlet for outlet in outlets if outlet.congestion is None and not outlet.closing]
            for outlet in outlets:
                if outlet.congestion is not None:
                    _deliver_one_by_one(outlet, events)
        if free:
            self._shots.append(_Shot(free, fds, b"".join(map(free[0].encode, events)), events))

    def fire(self) -> None:
        """Write all that waits."""
        shots, self._shots = self._shots, []
        self._aimed_at.clear()
        if not shots:
            return
        ring = shots[0].outlets[0].pool.ring
        few = sum(len(shot.fds) for shot in shots) < WORTH_A_RING
        if ring is None or few or max(len(shot.data) for shot in shots) > MAX_BYTES:
            for shot in shots:
                shot.write_to_each()
            return
        for place, sent in ring.send([(shot.fds, shot.data) for shot in shots]):
            _keep_rest(shots, place, sent)


class _Shot(NamedTuple):
    """`events` for `outlets`: their descriptors, and the bytes."""

    outlets: Sequence[PooledWriter]
    fds: Sequence[int]
    data: bytes
    events: Sequence[Event]

    def write_to_each(self) -> None:
        """Write to one after the other.

        A broadcast is five thousand rounds of this loop; without the call of `deliver` each was 0.5 us less of 13.
        """
        write, data, size = os.write, self.data, len(self.data)
        for outlet in self.outlets:
            try:
                sent = write(outlet.fd, data)
            except OSError:
                sent = 0
            if sent != size:
                self.keep_rest(outlet, sent)

    def keep_rest(self, outlet: PooledWriter, sent: int) -> None:
        """Have an outlet keep what its socket did not take."""
        if sent:
            outlet.keep_rest(self.events, sent)
        else:
            _deliver_one_by_one(outlet, self.events)  # full, or the peer is gone: the first of them finds out which


def _aim_at_one_kind(volley: _Volley, outlets: Sequence[Outlet], events: Sequence[Event]) -> Sequence[Outlet]:
    """Aim at all that are what the first of `outlets` is; return the others, whose bytes are others."""
    first = outlets[0]
    if not isinstance(first, PooledWriter):
        _deliver_one_by_one(first, events)
        return outlets[1:]
    kind = type(first)
    if set(map(type, outlets)) == {kind}:
        volley.aim(cast("Sequence[PooledWriter]", outlets), events)
        return ()
    volley.aim([outlet for outlet in outlets if type(outlet) is kind], events)
    return [outlet for outlet in outlets if type(outlet) is not kind]


def _keep_rest(shots: Sequence[_Shot], place: int, sent: int) -> None:
    """Have the one at `place` of all that was aimed at keep what its socket did not take."""
    for shot in shots:
        if place < len(shot.outlets):
            shot.keep_rest(shot.outlets[place], sent)
            return
        place -= len(shot.outlets)


def _deliver_one_by_one(outlet: Outlet, events: Sequence[Event]) -> None:
    for event in events:
        outlet.deliver(event)
