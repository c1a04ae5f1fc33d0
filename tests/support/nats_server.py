"""A real nats-server for tests, which they may stop, kill, freeze and start again."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Self

from shared.broker.provision import provision
from shared.runtime.embedded import EmbeddedNats


class NatsNode(EmbeddedNats):
    """`shared.runtime.embedded.EmbeddedNats` with what a test does to a server."""

    frozen = False

    async def stop(self) -> None:
        """End it cleanly; one that stands still could not."""
        if self.frozen:
            self.thaw()
        await super().stop()

    async def crash_and_restart(self) -> None:
        """End it as `kill -9` does, and start it again: same port, same data."""
        await self.kill()
        await self.start()

    async def freeze(self) -> None:
        """Stop it from answering; its connections stay open. Returns when every thread stands still."""
        self.frozen = True
        os.kill(self.pid, signal.SIGSTOP)
        while any(_state(thread) != "T" for thread in Path(f"/proc/{self.pid}/task").iterdir()):
            await asyncio.sleep(0)

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        os.kill(self.pid, signal.SIGCONT)


class NatsServer(NatsNode):
    """A server that stands alone, with the suite's streams."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await provision(self.url)
        return self

    async def lose_everything_and_restart(self) -> None:
        """Take its disk away, and start it again: same port, no stream."""
        await self.kill()
        shutil.rmtree(self._dir / "store")
        await self.start()


def _state(thread: Path) -> str:
    """Return the state of a thread, one letter (proc(5))."""
    return (thread / "stat").read_text().rpartition(")")[2].split()[0]
