"""The spans of HTTP requests, whose application fails and whose headers are not as they should be."""

from collections.abc import Callable
from typing import Any, TypeAlias

import httpx
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from shared import telemetry
from shared.telemetry import Headers

Get: TypeAlias = Callable[..., Any]
KNOWN, TRACE_ID = {"Authorization": "known"}, "a" * 32
SAMPLED = {"traceparent": f"00-{TRACE_ID}-{'1' * 16}-01"}
UNSAMPLED = {"traceparent": f"00-{TRACE_ID}-{'1' * 16}-00"}


@pytest.fixture
def get(monkeypatch: pytest.MonkeyPatch) -> Get:
    """Requests a path of an application that fails at `/early` and `/late`; returns the spans."""
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda *_, **__: provider.get_tracer("test"))
    monkeypatch.setattr(telemetry, "_tracing", True)

    async def requested(path: str, headers: dict[str, Any], *, ratio: float = 0.0) -> list[ReadableSpan]:
        monkeypatch.setattr(telemetry, "_ratio", ratio)
        transport = httpx.ASGITransport(telemetry.traced(_app, _is_known), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            await client.get(path, headers=headers)
        return list(exporter.get_finished_spans())

    return requested


async def _is_known(headers: Headers) -> bool:
    return (b"authorization", b"known") in headers


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/early":
        raise ValueError("https://user:word@host/?secret")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": scope["path"] == "/late"})
    if scope["path"] == "/late":
        raise ValueError("https://user:word@host/?secret")


class TestARequest:
    @pytest.mark.parametrize("path", ["/early", "/late"])
    async def test_that_fails_records_the_errors_type_alone(self, get: Get, path: str) -> None:
        [span] = await get(f"{path}?secret=1", KNOWN | SAMPLED)

        assert (span.attributes["error.type"], span.status.is_ok, span.status.description) == ("ValueError", False, None)
        assert "secret" not in span.to_json()
        assert "word" not in span.to_json()

    async def test_of_a_known_caller_is_sampled_as_it_says(self, get: Get) -> None:
        assert await get("/", KNOWN | UNSAMPLED, ratio=1) == []

        [span] = await get("/", KNOWN | SAMPLED)

        assert f"{span.context.trace_id:032x}" == TRACE_ID

    async def test_of_an_anonymous_caller_is_sampled_by_ratio(self, get: Get) -> None:
        assert await get("/", SAMPLED) == []

        spans = [*await get("/", SAMPLED, ratio=1), *await get("/", UNSAMPLED, ratio=1)]

        assert [span for span in spans if f"{span.context.trace_id:032x}" == TRACE_ID or span.parent is not None] == []
        assert spans

    @pytest.mark.parametrize("name", ["traceparent", "baggage"])
    async def test_is_answered_whatever_bytes_its_headers_are(self, get: Get, name: str) -> None:
        [span] = await get("/", KNOWN | SAMPLED | {name: b"\xff\\"}, ratio=1)

        assert span.status.is_ok
