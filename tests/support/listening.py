"""What a test hears on the bus, and how it waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shared.broker.port import Message

DEADLINE_S = 10.0


class Ear:
    """A handler that keeps what it hears."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._stirred = asyncio.Event()

    def __call__(self, message: Message) -> None:
        self.messages.append(message)
        self._stirred.set()

    @property
    def data(self) -> list[bytes]:
        """The payloads in the order of their arrival."""
        return [message.data for message in self.messages]

    async def hears(self, count: int) -> list[Message]:
        """Return all messages once there are `count` of them."""
        await self.until(lambda: len(self.messages) >= count)
        return self.messages

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return once `condition` holds; it is looked at whenever a message came."""
        async with asyncio.timeout(DEADLINE_S):
            while not condition():
                self._stirred.clear()
                await self._stirred.wait()
