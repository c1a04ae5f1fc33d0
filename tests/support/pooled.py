"""The peer's end of a connection in the pool."""

from __future__ import annotations

import socket

from shared.edge.wire.writer import PooledWriter


def read_all(peer: socket.socket, edge: PooledWriter) -> bytes:
    """Take what is there, and what the edge writes thereupon."""
    found = b""
    while True:
        try:
            found += peer.recv(1 << 20)
        except BlockingIOError:
            if edge.congestion is None:
                return found
            edge.writable_again()
