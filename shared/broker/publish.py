"""Publish one message as a producer would: `python -m shared.broker.publish SUBJECT JSON` (NATS_URL names the server).

For those who have no `nats` tool at hand. It waits for the broker's word that the message is stored.
"""

from __future__ import annotations

import asyncio
import sys

from shared.broker.jetstream import JetStreamBroker
from shared.broker.provision import ProvisionSettings
from shared.contracts.ids import new_id
from shared.errors import FanfareError

USAGE = 'usage: NATS_URL=nats://127.0.0.1:4222 python -m shared.broker.publish notify.user.<id> \'{"title":"hi"}\'\n'


async def publish(nats_url: str, subject: str, data: bytes) -> int:
    """Store one message and return its sequence."""
    broker = await JetStreamBroker.connect(nats_url, name="producer", timeout_s=5, append_deadline_s=5)
    try:
        return (await broker.append(subject, data, msg_id=new_id())).seq
    finally:
        await broker.close()


def main() -> int:
    """Publish what the command line says; return the process's status."""
    if len(sys.argv) != 3:
        sys.stderr.write(USAGE)
        return 2
    try:
        seq = asyncio.run(publish(ProvisionSettings().nats_url, sys.argv[1], sys.argv[2].encode()))
    except FanfareError as error:
        sys.stderr.write(f"publish: {error}\n")
        return 1
    sys.stdout.write(f"stored as {seq}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
