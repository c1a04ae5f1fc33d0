"""uvicorn's HTTP protocol, which a connection can leave: a stream after its head, a WebSocket after its handshake."""

from __future__ import annotations

import weakref
from http import HTTPStatus
from typing import Any, cast

from shared.edge.wire.guards import GuardedHttpProtocol
from shared.edge.wire.handover import EXTENSION, Departed, can_leave, depart
from shared.edge.wire.handshake import BadHandshake, Handshake
from shared.edge.wire.upgrade import Upgrade


class HandOverHttpProtocol(GuardedHttpProtocol):
    """One HTTP connection, offering the hand-over (`handover.py`)."""

    def on_message_begin(self) -> None:
        """Offer the extension with each request.

        By a weak reference: the scope is ours, and what refers to itself stays until a collection finds it.
        """
        super().on_message_begin()
        ours = weakref.ref(self)
        cast("dict[str, Any]", self.scope)["extensions"] = {EXTENSION: lambda: _hand_over(ours())}

    def hand_over(self) -> Departed | None:
        """Leave with the descriptor; None if it cannot be now."""
        cycle = self.cycle
        chunked = cycle.response_started and cycle.chunked_encoding and self.scope["http_version"] == "1.1"
        if not chunked or not can_leave(self.transport):
            return None
        try:
            departed = depart(self.transport, b"", self.max_fd)
        except OSError:
            return None  # no descriptors left: it can stay
        cycle.response_complete = True
        cycle.on_response = lambda: None
        self.connections.discard(self)
        self._unset_keepalive_if_required()
        return departed

    def upgrade(self, handshake: Handshake) -> None:
        """Answer the handshake in our own way, if the connection can leave at all."""
        if not can_leave(self.transport):
            super().upgrade(handshake)
            return
        if self.cycle is not None and not self.cycle.response_complete:
            raise BadHandshake(HTTPStatus.BAD_REQUEST, "a request before it has not been answered yet")
        Upgrade(self, handshake, self.after_head).start()
        self.connections.discard(self)
        self.parser = None  # type: ignore[assignment]  # as uvicorn does: they refer to each other


def _hand_over(protocol: HandOverHttpProtocol | None) -> Departed | None:
    return protocol.hand_over() if protocol is not None else None
