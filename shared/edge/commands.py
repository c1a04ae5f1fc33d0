"""Commands to live sessions: a request at any edge reaches the stream or socket that lives on another.

A session is named `<edge>.<id>`, so its edge is in its name, and each edge serves one wildcard subject.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from pydantic_core import from_json, to_json

from shared.broker.port import Broker, Message, Subscription
from shared.contracts import subjects
from shared.contracts.ids import new_id
from shared.contracts.wire_errors import problem
from shared.errors import (
    BadInput,
    Conflict,
    FanfareError,
    Forbidden,
    Gone,
    NotFound,
    SessionRevoked,
    TokenExpired,
    Unauthorized,
)

CommandHandler = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
COMMAND_TIMEOUT_S = 2.0
ENDED = "the stream has ended; open a new one"

_REFUSALS: dict[str, type[FanfareError]] = {
    kind.code: kind for kind in (BadInput, Conflict, Forbidden, Gone, SessionRevoked, TokenExpired, Unauthorized)
}
"""What a session's refusal becomes again at the edge that asked."""


class Commands:
    """The sessions of this edge by name, and the way to those of others."""

    def __init__(self, broker: Broker, edge: str) -> None:
        self._broker, self._edge = broker, edge
        self._handlers: dict[str, CommandHandler] = {}
        self._subscription: Subscription | None = None

    def __len__(self) -> int:
        return len(self._handlers)

    async def start(self) -> None:
        """Serve the commands to this edge's sessions."""
        self._subscription = await self._broker.serve(subjects.session_commands(self._edge), self._answer)

    async def close(self) -> None:
        """Serve no more."""
        if self._subscription is not None:
            await self._subscription.close()

    def register(self, handler: CommandHandler) -> str:
        """Return the name of a new session whose commands `handler` answers."""
        session = new_id()
        self._handlers[session] = handler
        return f"{self._edge}.{session}"

    def forget(self, name: str) -> None:
        """End a session."""
        self._handlers.pop(name.partition(".")[2], None)

    async def send(self, name: str, command: dict[str, Any]) -> dict[str, Any]:
        """Have the session `name` carry out `command`, wherever it lives, and return its answer.

        Raises:
            NotFound: the name cannot be a session's.
            Gone: its edge or the session itself is no more.
            FanfareError: whatever else the session refuses with.
        """
        edge, dot, session = name.partition(".")
        if not dot:
            raise NotFound("no such session")
        subject = subjects.session_command(edge, session)
        try:
            answer = from_json(await self._broker.request(subject, to_json(command), timeout_s=COMMAND_TIMEOUT_S))
        except Gone as error:
            raise Gone(ENDED) from error
        if "error" in answer:
            raise _REFUSALS.get(answer["error"], BadInput)(answer["detail"])
        return dict(answer)

    async def _answer(self, message: Message) -> bytes:
        handler = self._handlers.get(subjects.tokens_after(message.subject, 3)[0])
        if handler is None:
            return to_json({"error": Gone.code, "detail": ENDED})
        try:
            return to_json(await handler(from_json(message.data)))
        except FanfareError as error:
            return to_json({"error": error.code, "detail": problem(error)["detail"]})
