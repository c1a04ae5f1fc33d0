"""What every accepted socket inherits from the one that listens."""

from __future__ import annotations

import socket

from shared.runtime.server import UNSENT_BYTES, listen
from shared.runtime.settings import ServiceSettings

WINDOW_BYTES = 64 * 1024


def test_the_kernel_takes_little_of_what_a_client_does_not_read() -> None:
    with listen(ServiceSettings(host="127.0.0.1", port=0)) as listener, socket.socket() as client:
        listener.listen()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, WINDOW_BYTES)
        client.connect(listener.getsockname())
        listener.setblocking(True)
        edge, _ = listener.accept()
        with edge:
            edge.setblocking(False)
            taken = 0
            try:
                while taken < 100 * UNSENT_BYTES:
                    taken += edge.send(bytes(4096))
            except BlockingIOError:
                pass

    assert taken < 2 * (UNSENT_BYTES + 2 * WINDOW_BYTES)  # SO_RCVBUF is doubled by the kernel
