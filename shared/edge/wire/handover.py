"""Hand-over: after the handshake a connection leaves uvicorn, its transport and its task, as a bare descriptor.

uvicorn lets a service name its own protocol classes; these put a callable into
`scope["extensions"]["fanfare.handover"]`. An endpoint authenticates and accepts in plain FastAPI, calls it, gives what
it gets to the pool, and returns. Where the extension is missing (another server, a test client, TLS in this process)
the endpoint goes on over ASGI.

What has to hold, each with a test: the response's head is on the wire before the descriptor leaves; bytes that came
with or right after the handshake go with it; the descriptor is duplicated before the transport is aborted, so that no
FIN is sent; nothing of the scope, the request or the task stays behind.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, cast

EXTENSION = "fanfare.handover"


class Departed(NamedTuple):
    """A connection that has left uvicorn.

    Attributes:
        fd: its descriptor, non-blocking; the taker closes it.
        early: what the client has sent already and nobody has read.
        unsent: what the server has said and not written yet: it comes before all that the taker writes.
    """

    fd: int
    early: bytes
    unsent: bytes = b""


HandOver = Callable[[], Departed | None]
"""Take the connection out of uvicorn; None if it cannot be now, and the endpoint goes on over ASGI."""


def handover_of(scope: Mapping[str, Any]) -> Departed | None:
    """Take a connection out of its server, if that can be done."""
    hand_over = cast("HandOver | None", scope.get("extensions", {}).get(EXTENSION))
    return hand_over() if hand_over is not None else None


def can_leave(transport: Any) -> bool:
    """Whether all that was written is on the wire and nothing stands between us and the socket."""
    encrypted = transport.get_extra_info("sslcontext") is not None
    return not encrypted and not transport.is_closing() and transport.get_write_buffer_size() == 0


def depart(transport: Any, early: bytes, max_fd: int) -> Departed:
    """Take the socket away from its transport: duplicated first, so that no FIN is sent when the transport ends.

    Raises:
        OSError: this process has no descriptor below `max_fd` left for it.
    """
    held: socket.socket = transport.get_extra_info("socket")
    fd = os.dup(held.fileno())
    if fd >= max_fd:
        os.close(fd)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
    os.set_blocking(fd, False)
    transport.abort()
    return Departed(fd, early)
