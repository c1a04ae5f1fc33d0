"""A peer of the benchmark: FastAPI's own broadcast on stock uvicorn, `await send` to one client after another."""

from __future__ import annotations

import sys

import uvicorn
from fastapi import FastAPI, Request, WebSocket, WebSocketDisconnect


def create_app() -> FastAPI:
    """Return the application: every client of `/ws` gets what is posted to `/publish`."""
    app = FastAPI()
    clients: set[WebSocket] = set()

    @app.websocket("/ws")
    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        clients.add(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            clients.discard(websocket)

    @app.post("/publish", status_code=202)
    async def publish(request: Request) -> None:
        text = (await request.body()).decode()
        for client in list(clients):
            await client.send_text(text)

    return app


if __name__ == "__main__":
    # websockets-sansio is the fastest of uvicorn's own three.
    uvicorn.run(
        create_app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        ws_ping_interval=None,
        log_level="warning",
    )
