"""Three real nats-servers in a cluster, with every lasting stream on all three; a test may do to each what it likes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any, Self

import nats
from nats.errors import Error as NatsError

from shared.broker.provision import configs, provision
from shared.runtime.embedded_cluster import EmbeddedCluster
from tests.support.nats_server import NatsNode

SIZE = 3
POLL_S = 0.05
SETTLE_S = 40.0
_API = "$JS.API.STREAM"


class NatsCluster(EmbeddedCluster[NatsNode]):
    """`async with NatsCluster(tmp_path) as cluster: cluster.url`; a node is one of `cluster.nodes`, by name."""

    def __init__(self, data_dir: Path, *, extra_config: str = "") -> None:
        super().__init__(data_dir, SIZE, NatsNode, extra_config=extra_config)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        await provision(self.url, replicas=SIZE)
        await self.settled()
        return self

    # -- what it says of itself ---------------------------------------------------------------------------------------

    async def leader(self, stream: str) -> str:
        """Return the name of the node that leads `stream`, once one does."""
        async with asyncio.timeout(SETTLE_S):
            while not (name := (await self._placement(stream)).get("leader")):
                await asyncio.sleep(POLL_S)
        return str(name)

    async def followers(self, stream: str) -> list[str]:
        """Return the names of the nodes that hold a copy of `stream` and do not lead it."""
        await self.leader(stream)
        return [replica["name"] for replica in (await self._placement(stream)).get("replicas", [])]

    async def settled(self) -> None:
        """Return when every stream has a leader, and each copy of it is up to date."""
        async with asyncio.timeout(SETTLE_S):
            for config in configs(SIZE):
                while not _is_whole(await self._placement(config["name"]), config["num_replicas"]):
                    await asyncio.sleep(POLL_S)

    # -- what is done to it -------------------------------------------------------------------------------------------

    async def step_down(self, stream: str) -> str:
        """Have the leader of `stream` hand over, and return the new leader's name."""
        before = await self.leader(stream)
        await self._ask(f"LEADER.STEPDOWN.{stream}")
        return await self.leader_after(stream, before)

    async def leader_after(self, stream: str, before: str) -> str:
        """Return who leads `stream` once it is not `before`."""
        async with asyncio.timeout(SETTLE_S):
            while (name := await self.leader(stream)) == before:
                await asyncio.sleep(POLL_S)
        return name

    # -- private ------------------------------------------------------------------------------------------------------

    async def _placement(self, stream: str) -> dict[str, Any]:
        """Return the `cluster` part of a stream's information; empty while nobody answers."""
        return dict((await self._ask(f"INFO.{stream}")).get("cluster", {}))

    async def _ask(self, call: str) -> dict[str, Any]:
        """Ask any node that can answer, by a connection of its own."""
        awake = [node.url for node in self.nodes.values() if node.pid and not node.frozen]
        with contextlib.suppress(NatsError, OSError):
            client = await nats.connect(awake, connect_timeout=1, allow_reconnect=False)
            try:
                return dict(json.loads((await client.request(f"{_API}.{call}", b"", timeout=1)).data))
            finally:
                await client.close()
        return {}


def _is_whole(placement: dict[str, Any], copies: int) -> bool:
    replicas = placement.get("replicas") or []
    return (
        bool(placement.get("leader"))
        and len(replicas) == copies - 1
        and all(replica["current"] and not replica.get("offline") for replica in replicas)
    )
