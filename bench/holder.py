"""`python -m bench.holder`: holds the idle clients of one edge, as bare sockets in one epoll set.

The first line of its input is a plan as JSON. It answers in lines: `held N` as clients get in, `heard K AT` when all of
them have got the K-th message, with the time on the monotonic clock, and `lost N` when some were cut off. It ends with
its input, so that it never outlives whoever started it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import socket
import sys
import time
from array import array
from dataclasses import asdict, dataclass

from bench.load import MARK, get, upgrade
from bench.machine import raise_descriptor_limit
from tests.support.tokens import Mint

AT_ONCE = 256
MAX_FD = 1 << 16
READ_BYTES = 4096
TELL_EVERY = 1_000
TOKEN_TTL_S = 12 * 3600
PING, PONG = b"\x89\x00", b"\x8a\x80" + bytes(4)
WELCOME = b'"connected"'
IP_BIND_ADDRESS_NO_PORT = 24
"""Lets the kernel choose the port at `connect`, where it need differ only from others to the same server (ip(7))."""


@dataclass(frozen=True)
class Plan:
    """What one holder is to do.

    Attributes:
        port: of its edge on 127.0.0.1.
        address: where its clients come from, one of 127.0.0.0/8.
        first, clients: the numbers of its clients.
        path: what they ask for; a WebSocket's if it begins with `/ws`.
        secret: what their tokens are signed with, in hex.
    """

    port: int
    address: str
    first: int
    clients: int
    path: str
    secret: str

    def to_line(self) -> bytes:
        """Return what a holder reads."""
        return json.dumps(asdict(self)).encode() + b"\n"


class Holder:
    """The clients, by descriptor: nothing is kept for each but a state and a count."""

    def __init__(self, plan: Plan) -> None:
        self._plan, self._mint = plan, Mint(bytes.fromhex(plan.secret))
        self._epoll = select.epoll()
        self._welcomed = bytearray(MAX_FD)
        self._heard = array("L", [0]) * MAX_FD
        self._begun = self._asked = self.held = self.lost = self._arrived = 0

    def run(self) -> None:
        """Connect all, then hold them until the input ends."""
        stdin = sys.stdin.fileno()
        self._epoll.register(stdin, select.EPOLLIN)
        while True:
            while self._begun < self._plan.clients and self._begun - self.held - self.lost < AT_ONCE:
                self._connect()
            for fd, events in self._epoll.poll():
                if fd == stdin:
                    return
                if events & select.EPOLLOUT:
                    self._ask(fd)
                else:
                    self._read(fd)

    def _connect(self) -> None:
        wire = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        wire.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
        wire.bind((self._plan.address, 0))
        refused = wire.connect_ex(("127.0.0.1", self._plan.port))
        if refused not in {0, errno.EINPROGRESS}:
            raise OSError(refused, os.strerror(refused))
        self._begun += 1
        self._epoll.register(wire.detach(), select.EPOLLOUT)

    def _ask(self, fd: int) -> None:
        """Send the handshake, once the connection is there, with a token of a user of its own."""
        user = f"user-{self._plan.first + self._asked:07d}"
        self._asked += 1
        bearer = f"Authorization: Bearer {self._mint.token(user, ttl_s=TOKEN_TTL_S)}"
        make = upgrade if self._plan.path.startswith("/ws") else get
        os.write(fd, make(self._plan.path, bearer))
        self._epoll.modify(fd, select.EPOLLIN)

    def _read(self, fd: int) -> None:
        try:
            data = os.read(fd, READ_BYTES)
        except BlockingIOError:
            return  # the kernel has said that something is there, and has had to throw it away again
        except OSError:
            data = b""
        if not data:
            self._lose(fd)
        elif not self._welcomed[fd]:
            self._enter(fd, data)
        else:
            self._count(fd, data.count(MARK))
            if data.endswith(PING):
                os.write(fd, PONG)

    def _enter(self, fd: int, data: bytes) -> None:
        """The answer's head and the welcome may come in two reads: the second has it."""
        if WELCOME in data:
            self._welcomed[fd] = 1
            self.held += 1
            if self.held % TELL_EVERY == 0 or self.held == self._plan.clients:
                _tell(f"held {self.held}")

    def _count(self, fd: int, marks: int) -> None:
        """Note what one client got; after the last delivery of the K-th message, see whether each has K."""
        self._heard[fd] += marks
        self._arrived += marks
        if marks and self._arrived % self._plan.clients == 0:
            now_s, messages = time.perf_counter(), self._arrived // self._plan.clients
            if self._heard.count(messages) == self._plan.clients:
                _tell(f"heard {messages} {now_s}")

    def _lose(self, fd: int) -> None:
        self._epoll.unregister(fd)
        os.close(fd)
        self.lost += 1
        self.held -= self._welcomed[fd]
        self._welcomed[fd] = 0
        _tell(f"lost {self.lost}")


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise_descriptor_limit()
    Holder(Plan(**json.loads(sys.stdin.readline()))).run()
