"""A ring for a pool, and the peer's end of a connection in it."""

from __future__ import annotations

import socket

import pytest

from shared.edge.wire.ring import RingRefused, SendRing
from shared.edge.wire.writer import PooledWriter


def open_ring(entries: int = 8) -> SendRing:
    """Open a small ring; skip the test where this machine forbids it, as the product does without it there."""
    try:
        return SendRing(entries)
    except RingRefused as refused:
        if refused.__cause__ is None:  # it was given, and did not do what it should
            raise
        pytest.skip(f"this kernel gives no ring: {refused}")


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
