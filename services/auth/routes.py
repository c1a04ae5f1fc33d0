"""The HTTP calls of the auth service: each takes its input apart, asks one part, and answers."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from services.auth.bodies import (
    DemoView,
    GrantBody,
    HolderView,
    KeySetView,
    LoginBody,
    RefreshBody,
    RegisterBody,
    SessionView,
    TicketView,
    TokenView,
    UserView,
)
from services.auth.cookies import REFRESH_COOKIE, clear_cookies, set_cookies
from services.auth.demo import is_demo
from services.auth.grants import read_grant
from services.auth.names import username_key
from services.auth.parts import Parts
from services.auth.sessions import Session
from services.auth.throttle import Subject, address_of
from services.auth.users import User
from shared.auth.credentials import CredentialKind, changes_state, check_origin, cookie, find_credential
from shared.auth.principal import Principal
from shared.contracts.claims import COOKIE, Scope
from shared.contracts.ids import Id
from shared.errors import NotFound, RateLimited, SessionRevoked, TokenExpired, Unauthorized, Unavailable
from shared.telemetry.logs import get_logger

JWKS_MAX_AGE_S = 300
_PROBLEM: dict[str, Any] = {"content": {"application/problem+json": {"schema": {"type": "object"}}}}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"description": "The request is not valid", **_PROBLEM},
    401: {"description": "A valid credential is needed", **_PROBLEM},
    403: {"description": "A right is missing, or the page is foreign", **_PROBLEM},
    429: {"description": "Too many attempts; see Retry-After", **_PROBLEM},
}
FORM_OR_JSON = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {"schema": GrantBody.model_json_schema()}
            for kind in ("application/x-www-form-urlencoded", "application/json")
        },
    }
}


# Dependencies are coroutines, though they wait for nothing: FastAPI runs plain functions in threads.


async def get_parts(request: Request) -> Parts:
    """Return the service's parts."""
    parts: Parts = request.state.auth
    return parts


UsedParts = Annotated[Parts, Depends(get_parts)]


async def refuse_foreign_pages(request: Request, parts: UsedParts) -> None:
    """Refuse what a page of another origin sends; it could act with this browser's cookies, or set them."""
    if changes_state(request.scope):
        by_header = "authorization" in request.headers
        by_cookie = any(cookie(request.scope, name) for name in (COOKIE, REFRESH_COOKIE))
        check_origin(request.scope, parts.settings.allowed_origins, cookie_used=by_cookie and not by_header)


async def keep_out_of_caches(response: Response) -> None:
    """Mark every answer as nobody's to keep."""
    response.headers["cache-control"] = "no-store"


async def get_holder(request: Request, parts: UsedParts) -> Principal:
    """Return who asks, by header or cookie, whose session stands in the database at this moment."""
    credential = find_credential(request.scope)
    if credential is None or credential.kind not in (CredentialKind.BEARER, CredentialKind.COOKIE):
        raise Unauthorized
    holder = await parts.verifier.verify(credential.value)
    await parts.sessions.require(holder.session)
    return holder


Holder = Annotated[Principal, Depends(get_holder)]
router = APIRouter(
    prefix="/api/auth",
    tags=["auth"],
    dependencies=[Depends(refuse_foreign_pages), Depends(keep_out_of_caches)],
    responses=PROBLEMS,
)
well_known = APIRouter(tags=["keys"])


@router.post("/register", status_code=201, responses={409: {"description": "The username is taken", **_PROBLEM}})
async def register(request: Request, body: RegisterBody, parts: UsedParts) -> UserView:
    """Make an account."""
    await parts.throttle.attempt(Subject(parts.policies.register, _address(request)))
    return UserView.of(await parts.users.register(body.username, body.password, body.display_name))


@router.get("/demo")
async def demo(parts: UsedParts) -> DemoView:
    """Say whether this is a developer's machine, with an account that everybody knows; the page then offers it."""
    return DemoView(available=parts.settings.env == "development")


@router.post("/login")
async def login(request: Request, response: Response, body: LoginBody, parts: UsedParts) -> SessionView:
    """Exchange a name and a password for tokens."""
    user = await _authenticate(request, body, parts)
    return _answer(request, response, parts, user, await parts.sessions.begin(user.id))


@router.post("/refresh")
async def refresh(
    request: Request, response: Response, parts: UsedParts, body: RefreshBody | None = None
) -> SessionView:
    """Exchange a refresh token, of the body or the cookie, for its successor and a fresh access token."""
    token = _refresh_token(request, body)
    if token is None:
        raise Unauthorized("a refresh token is needed")
    session = await parts.sessions.refresh(token)
    user = await parts.users.get(session.subject)
    if user is None:
        raise SessionRevoked
    return _answer(request, response, parts, user, session)


@router.post("/logout", status_code=204)
async def logout(request: Request, response: Response, parts: UsedParts, body: RefreshBody | None = None) -> None:
    """End the session of the token that came, on every edge; without one that holds there is nothing to end."""
    clear_cookies(request, response, parts.settings)
    token = _refresh_token(request, body)
    session = await parts.sessions.of_refresh_token(token) if token else None
    if session is not None:
        await parts.sessions.end(session.subject, session.id)
        return
    try:
        holder = await get_holder(request, parts)
    except Unauthorized:
        return
    await parts.sessions.end(holder.user_id, holder.session)


@router.get("/me")
async def me(holder: Holder, parts: UsedParts) -> HolderView:
    """Say who holds the token."""
    user = await parts.users.get(holder.user_id)
    return HolderView(
        id=holder.user_id,
        username=holder.username,
        display_name=user.display_name if user else holder.username,
        scopes=sorted(holder.scopes),
        session=holder.session,
        expires_at=holder.expires_at_s * 1000,
    )


@router.post("/ticket")
async def ticket(holder: Holder, parts: UsedParts) -> TicketView:
    """Give a one-time ticket for the URL of a WebSocket or a stream."""
    issued = parts.issuer.ticket(holder)
    return TicketView(ticket=issued.token, expires_in=issued.expires_in_s)


@router.post("/token", openapi_extra=FORM_OR_JSON)
async def token(request: Request, parts: UsedParts) -> TokenView:
    """Exchange a client's id and secret for an access token."""
    grant = await read_grant(request)
    client = await parts.clients.authenticate(grant.client_id, grant.client_secret, grant.scope)
    session = await parts.sessions.begin(client.id, ttl_s=parts.settings.access_ttl_s, refreshable=False)
    issued = parts.issuer.access(session, name=client.name, scope=client.scope)
    return TokenView(access_token=issued.token, expires_in=issued.expires_in_s, scope=client.scope)


@router.post("/users/{user_id}/revoke", status_code=204, responses={404: {"description": "No such user", **_PROBLEM}})
async def revoke(user_id: Id, holder: Holder, parts: UsedParts) -> None:
    """End every session that a user, or a client, has begun; for administrators."""
    holder.require(Scope.AUTH_ADMIN)
    if await parts.users.get(user_id) is None and not await parts.clients.exists(user_id):
        raise NotFound("there is no such user")
    get_logger().info("sessions_revoked", user=user_id, by=holder.user_id)
    await parts.sessions.end_all(user_id, "revoked by an administrator")


@well_known.get("/.well-known/jwks.json")
async def jwks(response: Response, parts: UsedParts) -> KeySetView:
    """Return the public keys that tokens are verified with."""
    response.headers["cache-control"] = f"public, max-age={JWKS_MAX_AGE_S}"
    return KeySetView.model_validate(parts.keyring.jwks())


# -- helpers ----------------------------------------------------------------------------------------------------------


async def _authenticate(request: Request, body: LoginBody, parts: Parts) -> User:
    account = Subject(parts.policies.account, username_key(body.username))
    address = Subject(parts.policies.address, _address(request))
    try:
        await parts.throttle.attempt(account, address)
        user = await _find(body, parts, account, address)
    except (Unauthorized, RateLimited) as error:
        parts.logins.labels(error.code).inc()
        raise
    parts.logins.labels("ok").inc()
    await parts.throttle.succeeded(account, address)
    return user


async def _find(body: LoginBody, parts: Parts, account: Subject, address: Subject) -> User:
    """Return whose name and password these are; what cannot be looked at counts as no attempt."""
    if parts.settings.env != "development" and is_demo(body.username, body.password):
        raise Unauthorized("wrong username or password")
    try:
        return await parts.users.authenticate(body.username, body.password)
    except (RateLimited, Unavailable):
        with suppress(Unavailable):
            await parts.throttle.forgive(account, address)
        raise


def _answer(request: Request, response: Response, parts: Parts, user: User, session: Session) -> SessionView:
    issued = parts.issuer.access(session, name=user.username, scope=user.scope)
    if issued.expires_in_s <= 0 or session.refresh_token is None:
        raise TokenExpired("the session is over")
    set_cookies(
        request,
        response,
        parts.settings,
        access=issued.token,
        expires_in_s=issued.expires_in_s,
        refresh=session.refresh_token,
    )
    return SessionView(
        access_token=issued.token,
        expires_in=issued.expires_in_s,
        scope=user.scope,
        refresh_token=session.refresh_token,
        user=UserView.of(user),
    )


def _refresh_token(request: Request, body: RefreshBody | None) -> str | None:
    given = body.refresh_token if body else None
    return given or cookie(request.scope, REFRESH_COOKIE)


def _address(request: Request) -> str:
    return address_of(request.client.host) if request.client else "unknown"
