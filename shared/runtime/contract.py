"""`GET /asyncapi.json`: what is exchanged over WebSocket, Server-Sent Events and NATS, for tools."""

from __future__ import annotations

from fastapi import APIRouter, Response

from shared.contracts.asyncapi import document_json


def contract_router() -> APIRouter:
    """Return the route; the document is made when it is first asked for."""
    router = APIRouter()

    @router.get("/asyncapi.json", include_in_schema=False)
    async def asyncapi() -> Response:
        return Response(document_json(), media_type="application/json")

    return router
