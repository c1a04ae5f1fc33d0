"""The one place that maps errors to the wire: HTTP status and problem, WebSocket frame and close code.

code            HTTP  close  why this status
bad_input       400   -      the connection stays: one bad frame is no reason to drop a chat
bad_id          400   -
too_large       413   4013   what follows on the socket cannot be trusted to be framed
unauthorized    401   4008   get a token, then come back
token_expired   401   4009   renew, then come back
session_revoked 401   4010   do not come back
forbidden       403   -      a right is missing for this one request
origin_refused  403   4003   the page will never be allowed
not_found       404   -
conflict        409   -
quota_exceeded  409   -      waiting does not help: one of theirs has to go
gone            410   -
rate_limited    429   -      closed with 4029 only when abused, by the session's own count
unavailable     503   -      the message was not stored: retry
outcome_unknown 503   -      retry with the same id
internal        500   -
"""

from __future__ import annotations

from typing import Any

from shared.contracts.close_codes import CloseCode
from shared.errors import FanfareError, Forbidden, RateLimited

HTTP_STATUS: dict[str, int] = {
    "bad_input": 400,
    "bad_id": 400,
    "too_large": 413,
    "unauthorized": 401,
    "token_expired": 401,
    "session_revoked": 401,
    "forbidden": 403,
    "origin_refused": 403,
    "not_found": 404,
    "conflict": 409,
    "quota_exceeded": 409,
    "gone": 410,
    "rate_limited": 429,
    "unavailable": 503,
    "outcome_unknown": 503,
    "internal": 500,
}

CLOSE_CODE: dict[str, CloseCode] = {
    "too_large": CloseCode.TOO_LARGE,
    "unauthorized": CloseCode.UNAUTHORIZED,
    "token_expired": CloseCode.TOKEN_EXPIRED,
    "session_revoked": CloseCode.SESSION_REVOKED,
    "origin_refused": CloseCode.FORBIDDEN,
}


def problem(error: FanfareError) -> dict[str, Any]:
    """Return the RFC 9457 problem of an error."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.code.replace("_", " ").capitalize(),
        "status": HTTP_STATUS[error.code],
        "detail": error.message,
        "code": error.code,
        "retryable": error.retryable,
    }
    if isinstance(error, RateLimited):
        body["retryAfterMs"] = error.retry_after_ms
    if isinstance(error, Forbidden) and error.room is not None:
        body["room"] = error.room
    return body


def problem_headers(error: FanfareError) -> dict[str, str]:
    """Return the headers that belong to the problem: challenge, and when to retry (whole seconds)."""
    headers = {"content-type": "application/problem+json", "cache-control": "no-store"}
    if HTTP_STATUS[error.code] == 401:
        headers["www-authenticate"] = f'Bearer error="{error.code}"'
    if isinstance(error, RateLimited):
        headers["retry-after"] = str(max(1, -(-error.retry_after_ms // 1000)))
    elif error.retryable:
        headers["retry-after"] = "1"
    return headers


def error_data(error: FanfareError) -> dict[str, Any]:
    """Return the `data` of the WebSocket `error` frame."""
    data: dict[str, Any] = {"code": error.code, "message": error.message, "retryable": error.retryable}
    if isinstance(error, RateLimited):
        data["retryAfterMs"] = error.retry_after_ms
    if isinstance(error, Forbidden) and error.room is not None:
        data["room"] = error.room
    return data


REFUSAL_CODE: dict[str, CloseCode] = {
    "rate_limited": CloseCode.RATE_LIMITED,
    "unavailable": CloseCode.RESTART,
    "outcome_unknown": CloseCode.RESTART,
}


def refusal_code(error: FanfareError) -> CloseCode:
    """Return the close code for a connection that cannot begin because of `error`: a room refused, an edge full."""
    return CLOSE_CODE.get(error.code) or REFUSAL_CODE.get(error.code, CloseCode.FORBIDDEN)


def close_code(error: FanfareError) -> CloseCode | None:
    """Return the close code of an error that ends a WebSocket; None if the connection stays."""
    return CLOSE_CODE.get(error.code)
