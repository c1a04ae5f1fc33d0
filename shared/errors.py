"""The one tree of errors. No transport in it: `shared.contracts.wire_errors` maps it to the wire.

FanfareError
├── BadInput            the caller sent something that can never work
│   ├── BadId           an id outside `[A-Za-z0-9_-]{1,64}`
│   └── TooLarge        a body, frame or list above its limit
├── Unauthorized        no credential, or one that does not hold
│   └── TokenExpired    the credential was good, its time is over
├── Forbidden           known, but not allowed
│   └── OriginRefused   a browser page that is not on the allow-list
├── NotFound
├── Conflict
│   └── QuotaExceeded   the caller owns as many as they may
├── Gone                the stream or session lived elsewhere and is no more
├── RateLimited         too much, too fast; `retry_after_ms` says when to come back
└── Unavailable         something this depends on cannot answer now; try again
    └── OutcomeUnknown  it may or may not have happened; retry with the same id
"""

from __future__ import annotations


class FanfareError(Exception):
    """Something went wrong that a caller should hear about.

    Attributes:
        code: stable, machine-readable name; part of the public contract.
        retryable: whether the same request may succeed later, unchanged.
    """

    code = "internal"
    retryable = False

    def __init__(self, message: str = "") -> None:
        super().__init__(message)
        self.message = message or (self.__doc__ or self.code).splitlines()[0]

    def __str__(self) -> str:
        return self.message


class BadInput(FanfareError):
    """The request is not valid."""

    code = "bad_input"


class BadId(BadInput):
    """An id must match [A-Za-z0-9_-]{1,64}."""

    code = "bad_id"

    def __init__(self, kind: str = "id") -> None:
        super().__init__(f"{kind} must match [A-Za-z0-9_-]{{1,64}}")
        self.kind = kind


class TooLarge(BadInput):
    """The request is larger than the limit."""

    code = "too_large"

    def __init__(self, what: str, limit: int, unit: str = "bytes") -> None:
        super().__init__(f"{what} exceeds the limit of {limit} {unit}")
        self.what, self.limit, self.unit = what, limit, unit


class Unauthorized(FanfareError):
    """A valid credential is needed."""

    code = "unauthorized"


class TokenExpired(Unauthorized):
    """The token has expired."""

    code = "token_expired"


class SessionRevoked(Unauthorized):
    """The session has been revoked."""

    code = "session_revoked"


class Forbidden(FanfareError):
    """Not allowed.

    Attributes:
        room: which one is not; a client that asked for several can come back with the others.
    """

    code = "forbidden"

    def __init__(self, message: str = "", *, room: str | None = None) -> None:
        super().__init__(message)
        self.room = room


class OriginRefused(Forbidden):
    """This origin is not allowed to connect."""

    code = "origin_refused"


class NotFound(FanfareError):
    """Not found."""

    code = "not_found"


class Conflict(FanfareError):
    """The state has changed meanwhile, or the name is taken."""

    code = "conflict"


class QuotaExceeded(Conflict):
    """You have as many as you may; delete one first."""

    code = "quota_exceeded"


class Gone(FanfareError):
    """What this named is no longer there."""

    code = "gone"


class RateLimited(FanfareError):
    """Too many requests."""

    code = "rate_limited"
    retryable = True

    def __init__(self, message: str = "", *, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Unavailable(FanfareError):
    """A part this depends on cannot answer now."""

    code = "unavailable"
    retryable = True


class OutcomeUnknown(Unavailable):
    """It is not known whether this was stored; send it again with the same id."""

    code = "outcome_unknown"
