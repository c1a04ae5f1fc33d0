"""nats-py's client, thinned: no task and no queue per subscription, and three of its traps closed.

It keeps what nats-py is good at (the protocol, reconnects, TLS, credentials) and replaces, by overriding:

1. `_ps`, the parser (`jetstream_parser`): a message goes straight to its receiver, with raw headers. nats-py makes a
   task and a queue of 524,288 places for each subscription and parses every header, which is 3 KB for each of ten
   thousand rooms and several times the work (`python -m bench nats`). Where receivers cannot keep up, TCP pushes back
   and the server cuts the link, which is a reconnect like any other; nothing is dropped silently in between.
2. `_send_ping`: PING takes its place behind what was written before. nats-py writes it past the pending buffer, so
   that its PONG does not prove that the server has seen an earlier SUB.
3. `barrier`, in place of `flush`: it does not cancel the future that waits for the PONG. nats-py does when its time is
   over, and when the PONG comes late, setting the result of the cancelled future ends the read loop: the client stays
   connected, and deaf.
4. `forget_pending`: what was not sent when the link broke is not sent later. A price that is late is worse than none,
   what must arrive is repeated with its id by its owner, and subscriptions are replayed anyway.
5. `give_up`, before a reconnect and before a close that the server does not answer: the socket is cut. nats-py closes
   it and waits until what was written is sent, which to a peer that takes nothing is a matter of minutes.
6. `post`, in place of `publish`: a message is written as it stands. nats-py checks the subject again, builds headers
   field by field and awaits twice, for twice the cost.
7. `_connect_to_server`: the socket of a try that failed is closed before the next; nats-py leaves it to the collector.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from nats.aio.client import Client, Srv
from nats.errors import StaleConnectionError
from nats.protocol import command

from shared.broker.jetstream_parser import BurstParser, Receiver

MAX_PENDING_BYTES = 4 << 20
"""Written but not yet taken by the socket; what comes on top is dropped (`publish`) or refused (all else)."""

_PING = b"PING\r\n"


class Interest:
    """One subscription, as much of nats-py's `Subscription` as its client looks at when it reconnects or closes."""

    __slots__ = ("_id", "_subject", "receive")

    _queue = ""
    _max_msgs = _received = 0
    _wait_for_msgs_task = _message_iterator = _pending_next_msgs_calls = None

    def __init__(self, sid: int, subject: str, receive: Receiver) -> None:
        self._id, self._subject, self.receive = sid, subject, receive


class ThinClient(Client):
    """See the module's docstring for what differs from nats-py's client. `on_failure`: see BurstParser."""

    def __init__(self, on_failure: Callable[[bytes], None]) -> None:
        super().__init__()
        self._interests = cast("dict[int, Interest]", self._subs)  # the same dict: nats-py replays and clears it
        self._ps = BurstParser(self, self._interests, on_failure)

    async def add_interest(self, subject: str, receive: Receiver) -> int:
        """Call `receive` for each message from now on, through reconnects, and return the interest's number."""
        self._sid += 1
        self._interests[self._sid] = Interest(self._sid, subject, receive)
        if self.is_connected:
            await self._send_command(command.sub_cmd(subject, "", self._sid))
            await self._kick()
        return self._sid

    async def drop_interest(self, sid: int) -> None:
        """Stop at once; the server is told if it can be."""
        if self._interests.pop(sid, None) is not None and self.is_connected:
            await self._send_command(command.unsub_cmd(sid, 0))
            await self._kick()

    def post(self, subject: str, reply: str, headers: bytes, data: bytes) -> bool:
        """Send one message, and say whether it was: False if the link is down or does not take more.

        Subject, size and headers (encoded, or empty) are as the server allows them.
        """
        if not self.is_connected or self._pending_data_size > MAX_PENDING_BYTES:
            return False
        if headers:
            size = f"{len(headers)} {len(headers) + len(data)}"
            message = b"HPUB %b\r\n%b%b\r\n" % (f"{subject} {reply} {size}".encode(), headers, data)
        else:
            message = b"PUB %b\r\n%b\r\n" % (f"{subject} {reply} {len(data)}".encode(), data)
        self._pending.append(message)
        self._pending_data_size += len(message)
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(asyncio.get_running_loop().create_future())
        return True

    async def barrier(self, timeout_s: float) -> bool:
        """Say whether the server has processed all that was sent until now; False if it does not say so in time."""
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._send_ping(pong)
        # Not wait_for, which would cancel the future: see 3.
        await asyncio.wait({pong}, timeout=timeout_s)
        return pong.done() and not pong.cancelled()

    def forget_pending(self) -> None:
        """Drop what was not sent, and wake those who wait for a PONG that will not come."""
        self._pending.clear()
        self._pending_data_size = 0
        for pong in self._pongs:
            pong.cancel()

    def give_up(self) -> None:
        """Cut the connection, with all that was not sent."""
        self.forget_pending()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    async def renew(self) -> None:
        """Reconnect as if the server had stopped answering, whether or not the read loop still lives."""
        await self._process_op_err(StaleConnectionError())

    async def _process_op_err(self, e: Exception) -> None:
        if not (self.is_closed or self.is_reconnecting):
            self.give_up()
        await super()._process_op_err(e)

    async def _kick(self) -> None:
        """Wake the flusher, unless it is about to run: then it takes this along."""
        if self._flush_queue is not None and self._flush_queue.empty():
            await self._flush_pending()

    async def _connect_to_server(self, s: Srv) -> None:
        if self._transport is not None:
            self._transport.close()  # type: ignore[no-untyped-call]
        await super()._connect_to_server(s)

    async def _send_ping(self, future: asyncio.Future[Any] | None = None) -> None:
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(_PING)
        await self._kick()
