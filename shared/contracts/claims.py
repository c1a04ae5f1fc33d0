"""What a token says, and what its holder may do."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from shared.contracts.ids import Id

ALGORITHM = "EdDSA"
ACCESS_TYP = "at+jwt"
TICKET_TYP = "ticket+jwt"
MAX_TOKEN_CHARS = 4096
COOKIE = "auth_token"


class Scope(StrEnum):
    """Rights that a token may carry. `topic:<id>` and `topic:*` follow topics of notifications."""

    CHAT = "chat"
    STREAM = "stream"
    NOTIFY_WRITE = "notify:write"
    OPS_READ = "ops:read"
    AUTH_ADMIN = "auth:admin"


USER_SCOPES = f"{Scope.CHAT} {Scope.STREAM} topic:*"
"""What a registered user gets by default."""


Seconds = Annotated[int, Field(strict=True)]
"""Seconds since the epoch, a number as RFC 7519 has it: a string that looks like one is none."""


class Claims(BaseModel):
    """The claims of an access token or a ticket (RFC 9068 in spirit; EdDSA only).

    Attributes:
        sub: the user's (or client's) id.
        sid: the session: the family of refresh tokens it came from. Revocation names it.
        name: what other users see.
        session_exp: in a ticket, when the connection it opens must have renewed itself.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    iss: str
    aud: str
    sub: Id
    sid: Id
    jti: Id
    iat: Seconds
    exp: Seconds
    nbf: Seconds | None = None
    typ: Literal["access", "ticket"]
    scope: str = ""
    name: str = ""
    session_exp: Seconds | None = None
