"""The cookies: the access token for every path, the refresh token for this service's own calls only."""

from __future__ import annotations

from fastapi import Request, Response

from services.auth.settings import AuthSettings
from shared.contracts.claims import COOKIE

REFRESH_COOKIE = "auth_refresh"
REFRESH_PATH = "/api/auth"


def set_cookies(
    request: Request, response: Response, settings: AuthSettings, *, access: str, expires_in_s: int, refresh: str
) -> None:
    """Give a browser its tokens where no script can read them."""
    secure = _secure(request, settings)
    response.set_cookie(COOKIE, access, max_age=expires_in_s, path="/", secure=secure, httponly=True, samesite="lax")
    response.set_cookie(
        REFRESH_COOKIE,
        refresh,
        max_age=settings.session_ttl_s,
        path=REFRESH_PATH,
        secure=secure,
        httponly=True,
        samesite="strict",
    )


def clear_cookies(request: Request, response: Response, settings: AuthSettings) -> None:
    """Take them away."""
    secure = _secure(request, settings)
    response.delete_cookie(COOKIE, path="/", secure=secure, httponly=True, samesite="lax")
    response.delete_cookie(REFRESH_COOKIE, path=REFRESH_PATH, secure=secure, httponly=True, samesite="strict")


def _secure(request: Request, settings: AuthSettings) -> bool:
    if settings.cookie_secure == "auto":
        return request.url.scheme == "https"
    return settings.cookie_secure == "on"
