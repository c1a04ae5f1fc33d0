"""A request is one step of the trace that it came in: described where somebody keeps it, and made once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastapi import APIRouter
from httpx import ASGITransport, AsyncClient
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared.runtime.app import ServiceApp, build_app
from shared.runtime.lifecycle import Lifecycle
from shared.runtime.settings import ServiceSettings
from shared.telemetry import tracing
from shared.telemetry.metrics import Metrics

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "00f067aa0ba902b7"


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Have all steps that are sampled kept, as with an exporter."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: provider)
    tracing._tracer.cache_clear()
    yield exporter
    tracing._tracer.cache_clear()


@asynccontextmanager
async def nothing(_app: ServiceApp) -> AsyncIterator[Mapping[str, Any]]:
    yield {}


async def call(sampled: str) -> None:
    router = APIRouter()
    router.add_api_route("/api/rooms/{room}", lambda room: {"room": room})
    app = build_app(
        "x", lifespan=nothing, routers=[router], settings=ServiceSettings(), lifecycle=Lifecycle(), metrics=Metrics()
    )
    async with AsyncClient(transport=ASGITransport(app), base_url="http://x") as client:
        await client.get("/api/rooms/7?ticket=secret", headers={"traceparent": f"00-{TRACE}-{PARENT}-{sampled}"})


async def test_a_request_that_is_sampled_is_one_step_and_says_what_it_was(kept: InMemorySpanExporter) -> None:
    await call(sampled="01")
    (step,) = kept.get_finished_spans()

    assert step.parent is not None
    assert (f"{step.parent.trace_id:032x}", f"{step.parent.span_id:016x}") == (TRACE, PARENT)
    assert dict(step.attributes or {}) == {
        "http.request.method": "GET",
        "url.path": "/api/rooms/7",
        "http.response.status_code": 200,
    }


async def test_a_request_that_is_not_sampled_is_none(kept: InMemorySpanExporter) -> None:
    await call(sampled="00")

    assert kept.get_finished_spans() == ()
