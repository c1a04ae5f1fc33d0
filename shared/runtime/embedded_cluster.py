"""A NATS cluster of this process's own, for `make run NATS_NODES=3` and for tests: one `EmbeddedNats` a node.

On one machine it shows how the suite lives through the loss of a node; it does not outlive the loss of the machine.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Generic, Self, TypeVar

from shared.runtime.embedded import EmbeddedNats

CLUSTER = """\
cluster {{
  name: {cluster}
  listen: "127.0.0.1:{port}"
  routes: [{routes}]
}}
"""

NodeT = TypeVar("NodeT", bound=EmbeddedNats)


class EmbeddedCluster(Generic[NodeT]):
    """Nodes that know each other: `async with EmbeddedCluster(data_dir, 3, EmbeddedNats) as cluster: cluster.url`.

    Attributes:
        nodes: by name, `node-1` and so on. Each may be stopped and started by itself; it keeps its ports and its data.
    """

    def __init__(
        self, data_dir: Path, size: int, kind: type[NodeT], *, first_port: int = 0, extra_config: str = ""
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            first_port: where the first node listens for clients, the second on the next; 0 lets the system choose.
            extra_config: lines for the end of each node's configuration.
        """
        ports = _free_ports(size)
        routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
        self.nodes: dict[str, NodeT] = {}
        for number, port in enumerate(ports):
            name = f"node-{number + 1}"
            cluster = CLUSTER.format(cluster="fanfare", port=port, routes=routes)
            self.nodes[name] = kind(
                data_dir / name,
                first_port + number if first_port else 0,
                name=name,
                extra_config=cluster + extra_config,
            )

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Start every node; clients can connect when this returns, and streams can be made a few seconds later.

        Raises:
            Unavailable: a node does not run; the message says why. The others are stopped.
        """
        try:
            async with asyncio.TaskGroup() as group:
                for node in self.nodes.values():
                    group.create_task(node.start())
        except ExceptionGroup as failures:
            await self.stop()
            raise failures.exceptions[0] from None

    async def stop(self) -> None:
        """End every node cleanly, or by force if it does not go."""
        await asyncio.gather(*(node.stop() for node in self.nodes.values()))

    @property
    def url(self) -> str:
        """Every node's address, comma separated, as `NATS_URL` takes it."""
        return ",".join(node.url for node in self.nodes.values())


def _free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now: each node must know the others' before any of them runs."""
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports: list[int] = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports
