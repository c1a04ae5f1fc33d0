"""What a topic delivers to."""

from __future__ import annotations

from typing import Protocol

from shared.edge.delivery.event import Event


class Outlet(Protocol):
    """Where events go; hashable by identity."""

    def deliver(self, event: Event) -> None:
        """Take an event: write it, keep it or drop it by its class; never block, never raise."""


class Listener(Outlet, Protocol):
    """One client's interest."""

    @property
    def user_id(self) -> str:
        """Whose client it is."""

    async def writable(self) -> None:
        """Return when a replay may go on: the client has taken most of what it was sent."""
