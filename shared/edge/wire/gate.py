"""The gate: accepts connections, and lets in at once whose first words are a whole request for one that stays.

Such a one needs nothing of the server: its head is read here, the app is asked in plain ASGI, and it leaves with its
descriptor (`handover.py`) without ever having had a transport or a protocol. Everything else goes on to uvicorn with
what it has said: other paths, heads in pieces or not to be read, and who says nothing for SILENCE_S. uvicorn's guarded
protocol (`guards.py`) has the limits and the deadlines, and offers the same hand-over for later requests.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any, NamedTuple

from shared.edge.wire.arrival import App, Arrival, answer
from shared.edge.wire.guards import GuardedHttpProtocol
from shared.edge.wire.handshake import BadHandshake, Handshake, Headers, read_handshake, refusal
from shared.edge.wire.head import Head, path_of, read_head
from shared.tasks import TaskKeeper

READ_BYTES = 64 * 1024
ACCEPTS_PER_ROUND = 6
"""So that a herd does not stop those who are in: each costs an authentication and a first answer.

Fewer than `turns.py` lets through, so that nobody waits a second time there; the herd waits in the kernel's backlog.
"""

SILENCE_S = 1.0
REST_S = 1.0


class Door(NamedTuple):
    """What stands behind the gate.

    Attributes:
        app: an ASGI app, and `state` that of its lifespan.
        staying: the paths whose GET requests take the hand-over as soon as they are admitted.
        make_protocol: makes uvicorn's protocol for a connection that is passed on.
        own_headers: returns the server's headers of each response.
    """

    app: App
    staying: frozenset[str]
    state: dict[str, Any]
    make_protocol: Callable[[], GuardedHttpProtocol]
    own_headers: Callable[[], Headers]


class Gate:
    """One listening socket of a service."""

    def __init__(self, listener: socket.socket, door: Door) -> None:
        self._listener, self._door = listener, door
        self._staying = {path.encode() for path in door.staying}
        self._limits = type(door.make_protocol())
        self._server = listener.getsockname()[:2]
        self._loop = asyncio.get_running_loop()
        self._silent: dict[socket.socket, asyncio.TimerHandle] = {}
        self._rest: asyncio.TimerHandle | None = None
        self._tasks = TaskKeeper()

    def open(self) -> None:
        """Begin to accept."""
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def close(self) -> None:
        """Accept no more, and end what has not left."""
        if self._rest is not None:
            self._rest.cancel()
        self._loop.remove_reader(self._listener.fileno())
        for one in list(self._silent):
            self._attend(one)
            one.close()
        await self._tasks.close()

    # -- private ------------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(ACCEPTS_PER_ROUND):
            try:
                one, peer = self._listener.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptors, no memory: whoever waits in the backlog waits a little longer
                self._limits.count_refused("accept")
                self._loop.remove_reader(self._listener.fileno())
                self._rest = self._loop.call_later(REST_S, self.open)
                return
            one.setblocking(False)
            if one.fileno() < self._limits.max_fd:
                self._hear(one, peer)
            else:
                self._pass_on(one, b"")  # to be refused

    def _hear(self, one: socket.socket, peer: tuple[Any, ...]) -> None:
        try:
            data = one.recv(READ_BYTES)
        except BlockingIOError:
            self._wait(one, peer)
            return
        except OSError:
            data = b""
        if data:
            self._sort(one, peer, data)
        else:
            one.close()

    def _sort(self, one: socket.socket, peer: tuple[Any, ...], data: bytes) -> None:
        head = self._staying_head(data)
        if head is None:
            self._pass_on(one, data)
            return
        try:
            handshake = read_handshake(b"GET", "1.1", head.headers) if head.upgrades else None
        except BadHandshake as error:
            self._limits.count_refused("handshake")
            answer(one, refusal(error.status, error.headers, str(error).encode()))
            return
        self._limits.count_begun("direct")
        arrival = Arrival(one, handshake, head.rest, () if head.upgrades else self._door.own_headers())
        self._tasks.spawn(arrival.run(self._door.app, self._scope(head, peer, handshake)), "arrival")

    def _staying_head(self, data: bytes) -> Head | None:
        head = read_head(data, self._limits.max_header_bytes) if path_of(data) in self._staying else None
        if head is not None and head.rest and not head.upgrades:
            return None  # another request behind it
        return head

    def _scope(self, head: Head, peer: tuple[Any, ...], handshake: Handshake | None) -> dict[str, Any]:
        kind: dict[str, Any] = {"type": "http", "scheme": "http", "method": "GET"}
        if handshake is not None:
            kind = {"type": "websocket", "scheme": "ws", "subprotocols": list(handshake.subprotocols)}
        return kind | {
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "server": self._server,
            "client": peer[:2],
            "root_path": "",
            "path": head.path.decode("ascii"),
            "raw_path": head.path,
            "query_string": head.query,
            "headers": head.headers,
            "state": self._door.state.copy(),
        }

    # -- those who say nothing, and those for uvicorn -----------------------------------------------------------------

    def _wait(self, one: socket.socket, peer: tuple[Any, ...]) -> None:
        """Hear what `one` says when it does, or leave it to uvicorn, which has a deadline for it."""

        def speaks() -> None:
            self._attend(one)
            self._hear(one, peer)

        def is_silent() -> None:
            self._attend(one)
            self._pass_on(one, b"")

        self._loop.add_reader(one.fileno(), speaks)
        self._silent[one] = self._loop.call_later(SILENCE_S, is_silent)

    def _attend(self, one: socket.socket) -> None:
        """Wait for it no more."""
        self._loop.remove_reader(one.fileno())
        self._silent.pop(one).cancel()

    def _pass_on(self, one: socket.socket, data: bytes) -> None:
        self._limits.count_begun("uvicorn")
        self._tasks.spawn(self._give_to_uvicorn(one, data), "pass-on")

    async def _give_to_uvicorn(self, one: socket.socket, data: bytes) -> None:
        protocol = self._door.make_protocol()
        protocol.first_words = data
        await self._loop.connect_accepted_socket(lambda: protocol, one)
