"""A peer of the benchmark: python-socketio as an ASGI application on uvicorn, on its WebSocket transport alone."""

from __future__ import annotations

import sys
from typing import Any

import socketio
import uvicorn

PING_INTERVAL_S = 600  # the clients of the benchmark are there for the messages


def create_app() -> socketio.ASGIApp:
    """Return the application: every client gets what is posted to `/publish` as one event."""
    server = socketio.AsyncServer(async_mode="asgi", transports=["websocket"], ping_interval=PING_INTERVAL_S)

    async def publish(_scope: object, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            part = await receive()
            body, more = body + part.get("body", b""), part.get("more_body", False)
        await server.emit("message", body.decode())
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    return socketio.ASGIApp(server, other_asgi_app=publish)


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
        lifespan="off",
    )
