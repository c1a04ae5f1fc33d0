"""Make the streams what they should be, without losing what they hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Literal

from shared.broker.jetstream_link import Link
from shared.broker.jetstream_log import refusal
from shared.broker.metrics import BrokerMetrics
from shared.errors import FanfareError, NotFound

Outcome = Literal["created", "updated", "unchanged"]
ASK_TIMEOUT_S = 1.0
"""A cluster that has no leader yet does not answer: ask again soon."""

CHANGE_TIMEOUT_S = 10.0
_STREAM = "$JS.API.STREAM"


class JetStreamAdmin:
    """What only the provisioner's user may do."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @classmethod
    async def connect(cls, url: str, *, timeout_s: float) -> JetStreamAdmin:
        """Connect. Raises Unavailable."""
        return cls(await Link.connect(url, name="provision", metrics=BrokerMetrics(), timeout_s=timeout_s))

    async def ensure_stream(self, config: Mapping[str, Any]) -> Outcome:
        """Create a stream, or change it where it differs from `config`; what it holds and its life go on.

        Settings that `config` does not name stay as they are, among them the operator's `metadata`.

        Raises:
            FanfareError: the server refuses it; the message names the stream.
        """
        try:
            info = await self._call("INFO", config["name"], None, timeout_s=ASK_TIMEOUT_S)
        except NotFound:
            await self._call("CREATE", config["name"], config)
            return "created"
        if all(info["config"].get(key) == value for key, value in config.items()):
            return "unchanged"
        await self._call("UPDATE", config["name"], info["config"] | config)
        return "updated"

    async def close(self) -> None:
        """Close the connection."""
        await self._link.close()

    async def _call(
        self, call: str, stream: str, request: Mapping[str, Any] | None, *, timeout_s: float = CHANGE_TIMEOUT_S
    ) -> dict[str, Any]:
        data = json.dumps(request).encode() if request is not None else b""
        reply = await self._link.ask(f"{_STREAM}.{call}.{stream}", data, timeout_s=timeout_s)
        answer: dict[str, Any] = json.loads(reply.data)
        if "error" in answer:
            error: FanfareError = refusal(answer["error"], f"stream {stream}")
            raise error
        return answer
