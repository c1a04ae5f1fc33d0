"""`/healthz` says the process lives, `/readyz` that it can serve, `/metrics` what it counted."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from shared.runtime.lifecycle import Lifecycle
from shared.telemetry.metrics import CONTENT_TYPE, Metrics


def health_router(lifecycle: Lifecycle, metrics: Metrics) -> APIRouter:
    """Return the three calls that operators and orchestrators make.

    Liveness never asks anything else: a broker's blip must not restart a process that holds connections.
    """
    router = APIRouter(tags=["health"])

    @router.get("/healthz")
    async def healthz() -> JSONResponse:
        """Say that the process and its loop are alive."""
        return JSONResponse({"status": "up"})

    @router.get("/readyz")
    async def readyz() -> JSONResponse:
        """Say whether new connections may come, and if not, why."""
        missing = await lifecycle.readiness()
        if missing:
            return JSONResponse({"status": "not ready", "reasons": missing}, status_code=503)
        return JSONResponse({"status": "ready"})

    @router.get("/metrics")
    async def metrics_text() -> Response:
        """Return Prometheus' text format."""
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE})

    return router
