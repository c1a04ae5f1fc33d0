"""A real nats-server for tests, which they may stop, kill, freeze and start again."""

from __future__ import annotations

import os
import signal

from shared.broker.provision import provision
from shared.runtime.embedded import EmbeddedNats


class NatsServer(EmbeddedNats):
    """`shared.runtime.embedded.EmbeddedNats` with the suite's streams, and with what a test does to a server."""

    async def __aenter__(self) -> NatsServer:
        await super().__aenter__()
        await provision(self.url)
        return self

    async def crash_and_restart(self) -> None:
        """End it as `kill -9` does, and start it again: same port, same data."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """Stop it from answering; its connections stay open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)
