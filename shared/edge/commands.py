"""Commands to live sessions: a request at any edge reaches the stream or socket that lives on another.

A session is named `<edge>.<id>`, so its edge is in its name, and each edge serves one wildcard subject.
"""

from __future__ import annotations

import itertools
import secrets
from typing import Any, Protocol

from pydantic_core import from_json, to_json

from shared.broker.port import Broker, Message, Subscription
from shared.contracts import subjects
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

COMMAND_TIMEOUT_S = 2.0
ENDED = "the stream has ended; open a new one"

_REFUSALS: dict[str, type[FanfareError]] = {
    kind.code: kind for kind in (BadInput, Conflict, Forbidden, Gone, SessionRevoked, TokenExpired, Unauthorized)
}
"""What a session's refusal becomes again at the edge that asked."""


class Commanded(Protocol):
    """A session that carries out commands."""

    async def command(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out `command` and return the answer; raise a FanfareError to refuse it."""


class Commands:
    """The sessions of this edge by number, and the way to those of others.

    A number is no secret: a session asks who commands. It begins anywhere, so that no name is given out again after a
    restart.
    """

    def __init__(self, broker: Broker, edge: str) -> None:
        self._broker, self._edge = broker, edge
        self._sessions: dict[int, Commanded] = {}
        self._numbers = itertools.count(secrets.randbits(48))
        self._subscription: Subscription | None = None

    def __len__(self) -> int:
        return len(self._sessions)

    async def start(self) -> None:
        """Serve the commands to this edge's sessions."""
        self._subscription = await self._broker.serve(subjects.session_commands(self._edge), self._answer)

    async def close(self) -> None:
        """Serve no more."""
        if self._subscription is not None:
            await self._subscription.close()

    def register(self, session: Commanded) -> int:
        """Return the number of a new session."""
        number = next(self._numbers)
        self._sessions[number] = session
        return number

    def name(self, number: int) -> str:
        """Return the name by which every edge finds a session of this one."""
        return f"{self._edge}.{number:x}"

    def forget(self, number: int) -> None:
        """End a session."""
        self._sessions.pop(number, None)

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
        session = self._sessions.get(_number(subjects.tokens_after(message.subject, 3)[0]))
        if session is None:
            return to_json({"error": Gone.code, "detail": ENDED})
        try:
            return to_json(await session.command(from_json(message.data)))
        except FanfareError as error:
            return to_json({"error": error.code, "detail": problem(error)["detail"]})


def _number(text: str) -> int:
    """Return the number that a name ends in; one that nobody has, if it is none."""
    try:
        return int(text, 16)
    except ValueError:
        return -1
