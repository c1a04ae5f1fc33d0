"""What the calls take and give. OAuth's names are snake_case (RFC 6749), the suite's own camelCase."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from services.auth.users import User
from shared.contracts.events import Payload
from shared.contracts.ids import Id

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Secret = Annotated[str, StringConstraints(min_length=1, max_length=1024)]


class Body(BaseModel):
    """Base of request bodies: unknown fields are ignored, text is not made of anything else."""

    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)


class RegisterBody(Body):
    """A new account."""

    username: Name
    password: Secret
    display_name: Annotated[Name | None, Field(alias="displayName")] = None


class LoginBody(Body):
    """A name and its password."""

    username: Name
    password: Secret


class RefreshBody(Body):
    """A refresh token, for clients that do not keep it in the cookie."""

    refresh_token: Secret | None = None


class GrantBody(Body):
    """Client credentials (RFC 6749 section 4.4.2)."""

    grant_type: Literal["client_credentials"]
    client_id: Id
    client_secret: Secret
    scope: Annotated[str, StringConstraints(max_length=1024)] = ""


class DemoView(Payload):
    """Whether there is an account that everybody knows."""

    available: bool


class UserView(Payload):
    """A user as the API shows one."""

    id: Id
    username: str
    display_name: str

    @classmethod
    def of(cls, user: User) -> UserView:
        """Return the view of `user`."""
        return cls(id=user.id, username=user.username, display_name=user.display_name)


class HolderView(UserView):
    """Who holds a token, and what it allows until when."""

    scopes: list[str]
    session: Id
    expires_at: int


class TokenView(BaseModel):
    """A client's access token (RFC 6749 section 5.1); `expires_in` in seconds."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105  # the scheme's name
    expires_in: int
    scope: str


class SessionView(TokenView):
    """A user's access token, the refresh token to go on with, and who the user is."""

    refresh_token: str
    user: UserView


class TicketView(BaseModel):
    """A ticket for the URL of one WebSocket or stream; `expires_in` in seconds."""

    ticket: str
    expires_in: int


class KeySetView(BaseModel):
    """A JWK set (RFC 7517)."""

    keys: list[dict[str, str]]
