"""A peer of the benchmark: stock sse-starlette with a queue for each client, on stock uvicorn."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import uvicorn
from fastapi import FastAPI, Request
from sse_starlette import EventSourceResponse


def create_app() -> FastAPI:
    """Return the application: every client of `/stream` gets what is posted to `/publish`."""
    app = FastAPI()
    queues: set[asyncio.Queue[str]] = set()

    @app.get("/stream")
    async def stream() -> EventSourceResponse:
        queue: asyncio.Queue[str] = asyncio.Queue(1000)
        queues.add(queue)

        async def events() -> AsyncIterator[dict[str, str]]:
            try:
                yield {"data": "connected"}
                while True:
                    yield {"data": await queue.get()}
            finally:
                queues.discard(queue)

        return EventSourceResponse(events())

    @app.post("/publish", status_code=202)
    async def publish(request: Request) -> None:
        text = (await request.body()).decode()
        for queue in queues:
            queue.put_nowait(text)

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(), host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
