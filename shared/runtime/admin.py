"""What an operator may ask of a running process, on a port of its own that this machine alone reaches.

The public port never answers these calls, whatever a proxy in front lets through: a request counts by the socket that
it came in at.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import Field, model_validator

from shared.contracts.events import Payload
from shared.errors import NotFound
from shared.runtime.lifecycle import Lifecycle

ADMIN_HOST = "127.0.0.1"


class Shed(Payload):
    """How many of this process's clients to send elsewhere, by number or by share, and how fast."""

    count: Annotated[int, Field(ge=1)] | None = None
    fraction: Annotated[float, Field(gt=0, le=1)] | None = None
    per_second: Annotated[float, Field(gt=0, le=10_000)] = 50.0

    @model_validator(mode="after")
    def _one_of_two(self) -> Shed:
        if (self.count is None) == (self.fraction is None):
            raise ValueError("give either count or fraction")
        return self

    def of(self, sessions: int) -> int:
        """Return how many of so many sessions are meant."""
        return min(sessions, self.count if self.count is not None else round(sessions * (self.fraction or 0)))


def admin_router(lifecycle: Lifecycle, admin_port: int) -> APIRouter:
    """Return the calls that are answered at `admin_port` only."""
    router = APIRouter(prefix="/admin", include_in_schema=False)

    @router.post("/shed", status_code=202)
    async def shed(request: Request, wanted: Shed) -> dict[str, Any]:
        """Begin to ask some clients to come back elsewhere; say how many, and how long it takes."""
        if request.scope["server"][1] != admin_port or lifecycle.shedder is None:
            raise NotFound
        sessions, asked = len(lifecycle.shedder), wanted.of(len(lifecycle.shedder))
        lifecycle.shedder.shed(asked, per_s=wanted.per_second)
        return {
            "sessions": sessions,
            "asked": asked,
            "perSecond": wanted.per_second,
            "overSeconds": round(asked / wanted.per_second, 1),
        }

    return router
