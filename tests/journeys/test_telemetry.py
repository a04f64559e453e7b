"""What can be watched: every log line about a payment, one trace through everything, metrics."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvicorn
from click.testing import CliRunner
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy import setup
from deploy.cli import cli
from deploy.state import free_port
from services.gateway.domain import Role
from shared import spans
from shared.database import open_pool
from shared.http_server import Server
from shared.ids import new_id
from shared.telemetry import ANONYMOUS_SPANS_MAX, ATTRIBUTE_MAX_CHARACTERS, without_secrets
from tests.faults.nursery import Nursery
from tests.faults.system import a_system
from tests.world import ORDER, PASSWORD, Place, World, a_key, secret_of, until


class Collector:
    """Receives spans as an OTLP endpoint does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.url = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        request = ExportTraceServiceRequest.FromString(body)
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.spans += [(service, span) for scope_spans in resource.scope_spans for span in scope_spans.spans]
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/x-protobuf")]})
        await send({"type": "http.response.body", "body": b""})


@contextlib.asynccontextmanager
async def a_collector() -> AsyncIterator[Collector]:
    collector, port = Collector(), free_port()
    server = Server(uvicorn.Config(collector, port=port, lifespan="off", access_log=False, log_config=None, timeout_graceful_shutdown=1))
    serving = asyncio.create_task(server.serve())
    await until(lambda: _started(server))
    collector.url = f"http://127.0.0.1:{port}"
    try:
        yield collector
    finally:
        server.should_exit = True
        await serving


async def _started(server: Server) -> bool:
    return server.started


@pytest.fixture(scope="module")
async def watched(nursery: Nursery, place: Place, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[World, Collector, Path]]:
    """A payment made by services that log to files and trace to a collector."""
    folder = tmp_path_factory.mktemp("watched")
    async with (
        a_collector() as collector,
        a_system(nursery, place, folder, otel_exporter_otlp_endpoint=collector.url, otel_bsp_schedule_delay=200, trace_sample_ratio=1) as (
            _,
            world,
        ),
    ):
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)
        answer = await world.authorize(order_id, snapshot_id, headers={"X-Correlation-Id": "watched-1"})
        assert answer.status == 201
        yield world, collector, folder


def _lines(folder: Path) -> list[dict[str, Any]]:
    texts = [line for name in ("gateway", "payments") for line in (folder / f"{name}.log").read_text().splitlines()]
    return [msgspec.json.decode(text) for text in texts]


class TestLogs:
    async def test_every_line_about_a_payment_bears_its_facts(self, watched: tuple[World, Collector, Path]) -> None:
        _, _, folder = watched

        about = [line for line in _lines(folder) if line.get("correlation_id") == "watched-1"]

        assert {line["service"] for line in about} == {"gateway", "payments"}
        assert {line["message"] for line in about} == {"asked the provider", "concluded", "answered"}
        assert all(line.get("order_id") and line.get("intent_id") for line in about), about
        assert len({line["intent_id"] for line in about}) == 1

    async def test_no_line_holds_a_secret(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, folder = watched

        text = "".join((folder / f"{name}.log").read_text() for name in ("gateway", "payments"))

        assert "tok_success" not in text
        assert not [key for key in world.keys.values() if secret_of(key) in text]


class TestTrace:
    async def test_is_one_from_the_request_to_the_provider(self, watched: tuple[World, Collector, Path]) -> None:
        _, collector, _ = watched

        spans = await until(lambda: _of_authorize(collector))

        services = {service for service, _ in spans}
        names = [span.name for _, span in spans]
        assert services == {"tender-gateway", "tender-payments"}
        # The answer is kept later, with others' and in the trace of one of them.
        assert {"SELECT", "INSERT"} <= set(names)
        root = [span for _, span in spans if not span.parent_span_id]
        assert ["authorize" in str(span.attributes) for span in root] == [True]


async def _of_authorize(collector: Collector) -> Any:
    calls = [span for _, span in collector.spans if span.name == "sandbox authorize"]
    if not calls:
        return None
    same = [(service, span) for service, span in collector.spans if span.trace_id == calls[0].trace_id]
    arrived = "payments.authorize.v1 process" in {span.name for _, span in same}
    return same if arrived and any(not span.parent_span_id for _, span in same) else None


class TestKeptTraces:
    async def test_one_is_found_by_its_request_and_shown_across_the_services(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched

        trace = await until(lambda: _kept(world))

        names = [(span["service"], span["name"]) for span in trace["spans"]]
        by_name = {name: span for (_, name), span in zip(names, trace["spans"], strict=True)}
        processed, asked = by_name["payments.authorize.v1 process"], by_name["sandbox authorize"]
        assert (names[0][0], trace["spans"][0]["depth"], trace["missing"][0]) == ("gateway", 0, "webhooks")
        assert names[0][1].endswith("/payments/authorize")
        assert (processed["depth"], asked["depth"]) == (1, 2)
        assert processed["started_at"] <= asked["started_at"]
        assert processed["duration_us"] >= asked["duration_us"] > 0
        assert {"INSERT", "SELECT"} <= {name for _, name in names}

    async def test_is_listed_by_how_long_it_took(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched
        trace = await until(lambda: _kept(world))

        some = (await world.send("GET", "/api/v1/admin/traces")).json["traces"]
        slow = (await world.send("GET", "/api/v1/admin/traces?at_least_ms=3600000")).json["traces"]
        one = await world.send("GET", f"/api/v1/admin/traces/{trace['trace_id']}")

        assert trace["trace_id"] in [each["trace_id"] for each in some]
        assert (slow, one.status, one.json["spans"][0]["parent_id"]) == ([], 200, "")

    async def test_is_drawn_at_the_command_line(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched
        await until(lambda: _kept(world))

        env = {"TENDER_URL": world.gateway_url, "TENDER_KEY": world.keys[Role.OPERATOR]}
        done = await asyncio.to_thread(CliRunner().invoke, cli, ["traces", "show", "watched-1"], env=env)

        assert done.exit_code == 0
        assert "payments sandbox authorize" in done.output
        assert "█" in done.output

    async def test_is_the_callers_where_the_caller_decides(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched
        wanted, unwanted = f"{new_id().int:032x}", f"{new_id().int:032x}"
        for trace_id, flags in ((unwanted, "00"), (wanted, "01")):
            headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-{flags}", "X-Correlation-Id": f"of-{trace_id}"}
            assert (await world.put_order(new_id(), ORDER, headers=headers)).status == 200

        await until(lambda: _whole(world, wanted))

        listed = [each["trace_id"] for each in (await world.send("GET", "/api/v1/admin/traces")).json["traces"]]
        assert (wanted in listed, unwanted in listed) == (True, False)
        assert (await world.send("GET", f"/api/v1/admin/traces/{unwanted}")).status == 404
        assert (await world.send("GET", f"/api/v1/admin/traces/for/of-{unwanted}")).json["traces"] == []

    async def test_is_nobody_elses(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched
        trace = await until(lambda: _kept(world))
        other = await a_key(world.place, new_id(), Role.ADMIN)

        listed = await world.send("GET", "/api/v1/admin/traces", token=other)
        found = await world.send("GET", "/api/v1/admin/traces/for/watched-1", token=other)
        one = await world.send("GET", f"/api/v1/admin/traces/{trace['trace_id']}", token=other)

        assert (listed.json["traces"], found.json["traces"], one.status) == ([], [], 404)

    async def test_goes_with_its_day(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched
        await until(lambda: _kept(world))
        await world.change("UPDATE gateway.spans SET started_at = started_at - interval '25 hours'")

        pool = await open_pool(setup.service_url(world.place.database_url, "gateway", PASSWORD), connections=1)
        await spans.forget(pool, hours=24)
        await pool.close()

        old = "SELECT FROM gateway.spans WHERE started_at < now() - interval '24 hours'"
        assert await world.rows(old) == []


async def _whole(world: World, trace_id: str) -> bool:
    answer = await world.send("GET", f"/api/v1/admin/traces/{trace_id}")
    services = {span["service"] for span in answer.json["spans"]} if answer.status == 200 else set()
    return services == {"gateway", "payments"}


async def _kept(world: World) -> Any:
    found = (await world.send("GET", "/api/v1/admin/traces/for/watched-1")).json["traces"]
    whole = [trace for trace in found if "sandbox authorize" in [span["name"] for span in trace["spans"]]]
    return whole[0] if whole and whole[0]["spans"][0]["service"] == "gateway" else None


class TestStrangers:
    """Nothing that a client says before it is authenticated changes what is recorded of its request."""

    async def test_accept_header_changes_no_log_line_metric_or_id(self, watched: tuple[World, Collector, Path]) -> None:
        """M9, case 93."""
        world, _, folder = watched
        before, order_id = await _counted(world), await world.an_order()

        headers = {"Accept": "text/event-stream", "X-Correlation-Id": "streamed-1"}
        answer = await world.put_order(order_id, ORDER, headers=headers)

        lines = [line for line in _lines(folder) if line.get("correlation_id") == "streamed-1"]
        audited = await world.rows("SELECT FROM payments.admin_audit WHERE correlation_id = 'streamed-1'")
        assert (answer.status, answer.headers["X-Correlation-Id"], len(audited)) == (200, "streamed-1", 1)
        assert [line["path"] for line in lines if line["message"] == "answered"] == [f"/api/v1/admin/orders/{order_id}"]
        assert await _counted(world) == before + 2

    async def test_traceparent_is_ignored_before_authentication(self, watched: tuple[World, Collector, Path]) -> None:
        """M10, L10, cases 121 and 122."""
        world, _, _ = watched
        trace_id, sent = f"{new_id().int:032x}", 3 * ANONYMOUS_SPANS_MAX
        before = len(await world.rows(ANONYMOUS))
        headers = {"traceparent": f"00-{trace_id}-{'1' * 16}-01", "Authorization": "Bearer tender_x"}

        for path in ("/none", "/api/v1/admin/orders"):
            for _ in range(sent // 2):
                await world.http.get(path, params={"secret": "S" * 8_000}, headers=headers)
        await world.put_order(new_id(), ORDER, headers={"X-Correlation-Id": "after-the-flood"})

        await until(lambda: world.rows("SELECT FROM gateway.spans WHERE correlation_id = 'after-the-flood'"))
        spans = await world.rows(ANONYMOUS)
        assert await world.rows("SELECT FROM gateway.spans WHERE trace_id = $1", trace_id) == []
        assert len(spans) - before <= ANONYMOUS_SPANS_MAX
        assert [each["attributes"] for each in spans if "SSSS" in each["attributes"] or len(each["attributes"]) > 2_000] == []

    async def test_attributes_are_cut(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched
        path = f"/api/v1/admin/traces/for/{'x' * 8_000}"

        await world.send("GET", path, headers={"X-Correlation-Id": "long-1"})

        [row] = await until(lambda: world.rows("SELECT attributes FROM gateway.spans WHERE correlation_id = 'long-1' AND kind = 'server'"))
        assert len(msgspec.json.decode(row["attributes"])["url.path"]) == ATTRIBUTE_MAX_CHARACTERS

    @pytest.mark.parametrize(
        ("said", "kept"),
        [
            ("/orders?token=1", "/orders"),
            ("/orders#token", "/orders"),
            ("https://user:word@host/a?b", "https://host/a"),
            ("https://host/a@b", "https://host/a@b"),
        ],
        ids=["query", "fragment", "credentials", "at"],
    )
    def test_urls_lose_what_may_be_secret(self, said: str, kept: str) -> None:
        assert without_secrets({"url.full": said, "tender.provider": "a?b"}) == {"url.full": kept, "tender.provider": "a?b"}


ANONYMOUS = "SELECT attributes FROM gateway.spans WHERE kind = 'server' AND store_id IS NULL"


async def _counted(world: World) -> float:
    """Count the orders that were put, as the gateway's metric has it."""
    text = (await world.http.get(f"{world.monitoring['gateway']}/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("tender_http_request_seconds_count") and 'method="PUT"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


class TestMetrics:
    async def test_are_named_by_convention_and_move(self, watched: tuple[World, Collector, Path]) -> None:
        world, _, _ = watched

        gateway = (await world.http.get(f"{world.monitoring['gateway']}/metrics")).text
        payments = (await world.http.get(f"{world.monitoring['payments']}/metrics")).text

        assert 'tender_idempotency_answers_total{how="first"}' in gateway
        assert 'tender_http_request_seconds_count{method="POST"' in gateway
        assert 'tender_message_seconds_count{result="done",service="payments",type="payments.authorize.v1"}' in payments
        assert 'tender_provider_call_seconds_count{classification="answered",operation="authorize",provider="sandbox"' in payments
        assert "tender_unknown_outcomes" in payments


class TestHealth:
    @pytest.mark.parametrize("path", ["/health/live", "/health/ready"])
    async def test_every_service_tells(self, watched: tuple[World, Collector, Path], path: str) -> None:
        world, _, _ = watched

        answers = [await world.http.get(f"{url}{path}") for url in (world.monitoring["gateway"], world.monitoring["payments"])]

        assert [a.status_code for a in answers] == [200, 200]

    @pytest.mark.parametrize("path", ["/health/ready", "/metrics", "/health/", "/health/live/"])
    async def test_public_port_tells_none_of_it(self, watched: tuple[World, Collector, Path], path: str) -> None:
        """L5 and cases 104 and 123: only /health/live is there; a page of what is not has a policy."""
        world, _, _ = watched

        answer, live = await world.http.get(path), await world.http.get("/health/live")

        assert (answer.status_code, answer.headers["content-type"]) == (404, "application/problem+json")
        assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (live.status_code, live.json()) == (200, {"status": "alive"})
