"""What can be watched: JSON log lines with bound facts, Prometheus metrics, and traces when they go somewhere."""

import contextlib
import logging
import os
import random
import re
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, TypeAlias

import msgspec
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware, get_default_span_details
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from prometheus_client import REGISTRY, Counter, Gauge, Histogram

from shared.rations import Ration

# An ASGI request's headers: names in lower case, and values.
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

LATENCY_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

http_requests = Histogram(
    "tender_http_request_seconds",
    "Time to answer an HTTP request.",
    ["service", "method", "route", "status"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
http_refused = Counter("tender_http_refused_total", "Connections and requests refused before they were read, by why.", ["code"])
messages_handled = Histogram(
    "tender_message_seconds",
    "Time to handle one message, by what became of it.",
    ["service", "type", "result"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
messages_retried = Counter("tender_messages_retried_total", "Messages sent to a retry tier.", ["service", "tier"])
messages_dead = Counter("tender_messages_dead_total", "Messages parked as dead letters.", ["service", "type"])
events_published = Counter("tender_events_published_total", "Events confirmed by the broker.", ["service"])
provider_calls = Histogram(
    "tender_provider_call_seconds",
    "Time of one outbound provider call.",
    ["service", "provider", "operation", "classification"],
    buckets=LATENCY_BUCKETS_SECONDS,
)
# Gauges are counted in the database: every replica says the same of the whole installation, so take their max and never their sum.
unknown_outcomes = Gauge("tender_unknown_outcomes", "Transactions whose outcome is not known.", ["service"])
oldest_unknown_seconds = Gauge("tender_oldest_unknown_outcome_seconds", "Age of the oldest unknown outcome.", ["service"])
drift_open = Gauge("tender_drift_open", "Differences between books that nobody has settled.", ["domain", "type"])
letters_waiting = Gauge("tender_dead_letters_waiting", "Dead letters that nobody has dealt with.", ["service"])
oldest_letter_seconds = Gauge("tender_oldest_dead_letter_seconds", "Age of the oldest dead letter that nobody has dealt with.")
oldest_drift_seconds = Gauge("tender_oldest_drift_seconds", "Age of the oldest difference that nobody has settled.")
idempotency_answers = Counter("tender_idempotency_answers_total", "Keyed requests by how they were answered.", ["how"])
webhooks_received = Counter(
    "tender_webhooks_received_total", "Webhooks by provider and what they turned out to be.", ["provider", "result"]
)
tracking_entries_left_out = Counter(
    "tender_tracking_entries_left_out_total", "Entries of parcels' histories that could not be read.", ["carrier"]
)
tracking_looks_failed = Counter("tender_tracking_looks_failed_total", "Looks for a parcel that came to nothing.", ["carrier"])
webhook_secrets_unfit = Counter(
    "tender_webhook_secrets_unfit_total", "Tries to verify a webhook that passed over a secret which is none.", ["provider"]
)
webhooks_processed = Counter("tender_webhooks_processed_total", "Tries at webhook events by what came of them.", ["provider", "result"])
webhooks_pending = Gauge("tender_webhooks_pending", "Webhook events kept and not processed yet (10000 at most).")
webhooks_dead = Gauge("tender_webhooks_dead", "Webhook events that could not be processed and wait for somebody (10000 at most).")
webhooks_oldest_pending_seconds = Gauge("tender_webhooks_oldest_pending_seconds", "Age of the oldest webhook event not processed yet.")

merchant_deliveries = Counter("tender_merchant_deliveries_total", "Tries at telling merchants, by what came of them.", ["result"])
merchant_endpoints_disabled = Counter("tender_merchant_endpoints_disabled_total", "Merchants' addresses that are told no more.")

# What may stand in our logs under a caller's name for a request.
CORRELATION_ID = re.compile(r"^[\x21-\x7e]{1,128}$")

_NO_FACTS: Mapping[str, str] = MappingProxyType({})
_facts: ContextVar[Mapping[str, str]] = ContextVar("tender_log_facts", default=_NO_FACTS)
# What is asked all the time, or stays open.
UNTRACED = ("/health/", "/metrics", "/console")
# What a span may hold: attributes, and characters of each.
ATTRIBUTES_MAX = 32
ATTRIBUTE_MAX_CHARACTERS = 512
# Anybody can send requests that no key is known of; so many spans of them are recorded, however many there are.
ANONYMOUS_SPANS_MAX = 60
ANONYMOUS_SPANS_SECONDS = 60.0
# W3C Trace Context: version, trace, parent, and flags, of which the last bit says whether the caller samples the trace.
TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
# What names the parent of a request's span, and what the caller wants carried along with it.
PROPAGATED = frozenset({b"traceparent", b"tracestate", b"baggage"})
# Where the scope that the library reads has the request's own.
REQUEST_SCOPE = "tender.request"
URL_CREDENTIALS = re.compile(r"//[^/@]*@")

_tracing = False
_keeping = False
_ratio = 0.0
_anonymous_spans = Ration(ANONYMOUS_SPANS_MAX, seconds=ANONYMOUS_SPANS_SECONDS)
_propagator = TraceContextTextMapPropagator()
_NO_SPAN: AbstractContextManager[object] = contextlib.nullcontext()
_encode = msgspec.json.Encoder(enc_hook=str).encode


class Bound:
    """Facts that are on every log line while inside."""

    __slots__ = ("_given", "_token")

    def __init__(self, given: Mapping[str, str]) -> None:
        self._given = given

    def __enter__(self) -> None:
        self._token = _facts.set({**_facts.get(), **self._given})

    def __exit__(self, *_: object) -> None:
        _facts.reset(self._token)


def bound(facts: Mapping[str, str]) -> Bound:
    """Put facts (correlation_id, order_id, intent_id …) on every log line written inside."""
    return Bound(facts)


def bound_facts() -> Mapping[str, str]:
    """Tell the facts that log lines written here would bear."""
    return _facts.get()


def bind(facts: Mapping[str, str]) -> None:
    """Put facts that were learnt on the way on the log lines that follow in this task."""
    _facts.set({**_facts.get(), **facts})


def say(logger: logging.Logger, level: int, text: str, facts: Mapping[str, Any] | None = None) -> None:
    """Write one structured log line."""
    logger.log(level, text, extra={"tender": facts or {}})


class _JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, bound facts, trace id, traceback."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "level": record.levelname.lower(),
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
            **_facts.get(),
            **getattr(record, "tender", {}),
        }
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            line["trace_id"] = f"{span.trace_id:032x}"
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line).decode()


def log_to_stderr(service: str, level: str) -> None:
    """Send every logger's lines to stderr as JSON; libraries only from warnings up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("services", "shared", "deploy"):
        logging.getLogger(ours).setLevel(level)
    # The bus tells of lost connections itself; aio-pika's own lines repeat it at each restart (aio-pika #668).
    logging.getLogger("aio_pika").setLevel(logging.CRITICAL)
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    # So does the pool's user of a database that is away, and nobody has to know of each upgrade to websockets that is refused.
    logging.getLogger("asyncpg").setLevel(logging.CRITICAL)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of work that is over, as it is kept."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    started_ns: int
    duration_ns: int
    failed: bool
    attributes: dict[str, Any]


# Of which a busy second has some thousands; what is too much is not kept.
ENDED_SPANS_MAX = 20_000
_ended: deque[Ended] = deque(maxlen=ENDED_SPANS_MAX)


class _Keeper(SpanProcessor):
    """Puts what has ended where it can be fetched and written down."""

    def on_end(self, span: ReadableSpan) -> None:
        context, parent = span.context, span.parent
        if context is None or not context.trace_flags.sampled or span.start_time is None or span.end_time is None:
            return
        _ended.append(
            Ended(
                trace_id=f"{context.trace_id:032x}",
                span_id=f"{context.span_id:016x}",
                parent_id="" if parent is None else f"{parent.span_id:016x}",
                name=span.name,
                kind=span.kind.name.lower(),
                started_ns=span.start_time,
                duration_ns=span.end_time - span.start_time,
                failed=span.status.status_code is StatusCode.ERROR,
                attributes=dict(span.attributes or {}),
            )
        )


def ended_spans() -> list[Ended]:
    """Fetch what has ended and was not fetched before."""
    fetched: list[Ended] = []
    while _ended:
        fetched.append(_ended.popleft())
    return fetched


def trace_to(endpoint: str, *, service: str, ratio: float, kept: bool) -> None:
    """Trace this share of the requests: export spans by OTLP over HTTP, keep them to be fetched, or both."""
    global _tracing, _keeping, _ratio
    if (not endpoint and not kept) or ratio <= 0:
        return
    # Without it the library names HTTP attributes as OpenTelemetry did before its conventions were stable.
    os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"tender-{service}"}),
        # Which ones are traced is chosen before any span is made, so that the others cost nothing.
        sampler=ParentBased(ALWAYS_ON),
        span_limits=SpanLimits(max_span_attributes=ATTRIBUTES_MAX, max_attribute_length=ATTRIBUTE_MAX_CHARACTERS),
    )
    if endpoint:
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint.rstrip("/") + "/v1/traces")))
    if kept:
        provider.add_span_processor(_Keeper())
    trace.set_tracer_provider(provider)
    _tracing, _keeping, _ratio = True, kept, ratio


def stop_tracing() -> None:
    """Send what is left before the process ends."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()


def mark(facts: Mapping[str, str]) -> None:
    """Put facts on the span of what is being done."""
    if _tracing:
        trace.get_current_span().set_attributes(without_secrets(facts))


def without_secrets(facts: Mapping[str, str]) -> dict[str, str]:
    """Copy a span's facts; a URL or path among them (`url.*`) loses its query, its fragment and its credentials."""
    return {name: public_part(value) if name.startswith("url.") else value for name, value in facts.items()}


def public_part(url: str) -> str:
    """Cut the query, the fragment and the credentials off a URL."""
    return URL_CREDENTIALS.sub("//", re.split("[?#]", url, maxsplit=1)[0])


def tracing() -> bool:
    """Tell whether traces go anywhere."""
    return _tracing


def keeping() -> bool:
    """Tell whether ended spans wait to be fetched."""
    return _keeping


def span(
    name: str, *, kind: SpanKind = SpanKind.INTERNAL, parent: str = "", facts: Mapping[str, str] | None = None
) -> AbstractContextManager[object]:
    """Time a piece of work as a span, below the parent given as a traceparent or below the current one.

    Work that begins by itself is chosen by chance; messages and calls without a parent belong to what was not chosen.
    """
    if not _tracing or not (parent or _goes_on() or (kind is SpanKind.INTERNAL and _chosen())):
        return _NO_SPAN
    above = _propagator.extract({"traceparent": parent}) if parent else otel_context.get_current()
    return _Current(trace.get_tracer("tender").start_span(name, context=above, kind=kind, attributes=without_secrets(facts or {})))


class _Current:
    """A span that is the current one while inside; of what is raised it records the type alone, for the text may quote a URL."""

    def __init__(self, made: Span) -> None:
        self._made = made

    def __enter__(self) -> None:
        self._token = otel_context.attach(trace.set_span_in_context(self._made))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        otel_context.detach(self._token)
        # A request's span ends with its answer.
        if not self._made.is_recording():
            return
        if kind is not None and issubclass(kind, Exception):
            self._made.set_attribute("error.type", kind.__name__)
            self._made.set_status(StatusCode.ERROR)
        self._made.end()


def traced(app: Any, is_known: Callable[[Headers], Awaitable[bool]]) -> Any:
    """Trace a share of an ASGI application's requests, below their parents where the caller is known; as it is when traces go nowhere."""
    if not _tracing:
        return app

    async def answer_request(visible: Any, receive: Any, send: Any) -> None:
        scope, request_span = visible[REQUEST_SCOPE], trace.get_current_span()

        async def answer(message: Any) -> None:
            if message["type"] == "http.response.start":
                request_span.update_name(_name_by_route(scope)[0])
            await send(message)

        with _Current(request_span):
            await app(scope, receive, answer)

    # Receive and send spans would triple the cost of a request and say nothing.
    tracing_app = OpenTelemetryMiddleware(answer_request, default_span_details=_name_by_route, exclude_spans=["receive", "send"])

    async def choosing(scope: Any, receive: Any, send: Any) -> None:
        wanted = scope["type"] == "http" and not scope["path"].startswith(UNTRACED)
        parent = await _parent_headers(scope["headers"], is_known) if wanted else None
        if parent is None:
            await app(scope, receive, send)
        else:
            await tracing_app(_visible(scope, parent), receive, send)

    return choosing


async def _parent_headers(headers: Headers, is_known: Callable[[Headers], Awaitable[bool]]) -> Headers | None:
    """Choose whether a request is traced; returns the headers that name its parent, none of an anonymous caller's."""
    chosen, sampled = _chosen(), _sampled_by_caller(headers)
    if not chosen and not sampled:
        return None
    if not await is_known(headers):
        return [] if chosen and _anonymous_spans.allows() else None
    # The library fails on some bytes that are not ASCII.
    return None if sampled is False else [(name, value) for name, value in headers if name in PROPAGATED and value.isascii()]


def _sampled_by_caller(headers: Headers) -> bool | None:
    for name, value in headers:
        if name == b"traceparent":
            flags = TRACEPARENT.fullmatch(value)
            return None if flags is None else bool(int(flags[1], 16) & 1)
    return None


def _visible(scope: Any, parent: Headers) -> dict[str, Any]:
    """Copy a request's scope for the library, which writes of it into the span all that it finds."""
    hidden = {"path": public_part(scope["path"])[:ATTRIBUTE_MAX_CHARACTERS], "query_string": b"", "client": None}
    return {**scope, **hidden, "headers": parent, REQUEST_SCOPE: scope}


def _name_by_route(scope: Any) -> tuple[str, dict[str, Any]]:
    # Routes are few; there is any number of addresses.
    return get_default_span_details({"method": scope["method"], "path": scope.get("path_template") or ""})


def _goes_on() -> bool:
    return trace.get_current_span().is_recording()


def _chosen() -> bool:
    return random.random() < _ratio


def traceparent() -> str:
    """Write the current span as a W3C traceparent, or nothing when it is not traced."""
    if not _tracing or not _goes_on():
        return ""
    carrier: dict[str, str] = {}
    _propagator.inject(carrier)
    return carrier.get("traceparent", "")


# What a statement does first; those of several parts begin with WITH.
_CHANGES = re.compile(r"\b(INSERT|UPDATE|DELETE|COMMIT|ROLLBACK|BEGIN)\b")


def record_query(query: Any) -> None:
    """Add a finished SQL statement as a span of the trace it was run in."""
    if not trace.get_current_span().is_recording():
        return
    ended = time.time_ns()
    statement = " ".join(str(query.query).split())[:200]
    changes = _CHANGES.search(statement)
    made = trace.get_tracer("tender").start_span(
        changes[0] if changes else "SELECT",
        kind=SpanKind.CLIENT,
        start_time=ended - int(query.elapsed * 1e9),
        attributes={"db.system.name": "postgresql", "db.query.text": statement},
    )
    made.end(ended)


def gauge(metric: Gauge) -> dict[tuple[str, ...], float]:
    """Read what a gauge of this process says, by its labels' values."""
    return {tuple(sample.labels.values()): sample.value for family in metric.collect() for sample in family.samples}


def shown_metrics() -> set[str]:
    """Name every metric that is served at /metrics, without the endings that say what of it a line holds."""
    return {family.name for family in REGISTRY.collect()}
