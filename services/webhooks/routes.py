"""The address that providers post to; nothing else is served to the public here."""

import logging
from uuid import UUID

import msgspec
from litestar import Litestar, Response, get, post
from litestar.exceptions import HTTPException, MethodNotAllowedException
from litestar.params import FromPath

from services.webhooks.domain import BODY_MAX_BYTES, LINE_BREAK, Incoming
from services.webhooks.handlers import Webhooks, answer_challenge, receive
from shared import telemetry
from shared.errors import SAFE_HEADERS, Problem, Refusal, Retry, Unavailable, problem_body
from shared.reason_phrases import detail_of
from shared.received import HttpRequest, Received, correlation_id
from shared.written import Written

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
TEXT_TYPE = "text/plain; charset=utf-8"
RETRY_AFTER_SECONDS = 5
# The one provider that asks, before it posts, whether an address is ours.
BRAINTREE = "braintree"


@post("/api/v1/webhooks/{provider:str}", status_code=200)
async def take(request: HttpRequest, provider: FromPath[str]) -> Response[bytes]:
    return await _take(request, provider, None)


@post("/api/v1/webhooks/{provider:str}/{store_id:uuid}", status_code=200)
async def take_for_store(request: HttpRequest, provider: FromPath[str], store_id: FromPath[UUID]) -> Response[bytes]:
    return await _take(request, provider, store_id)


@get("/api/v1/webhooks/{provider:str}", status_code=200, sync_to_thread=False)
def register(request: HttpRequest, provider: FromPath[str]) -> Response[bytes]:
    return _register(request, provider, None)


@get("/api/v1/webhooks/{provider:str}/{store_id:uuid}", status_code=200, sync_to_thread=False)
def register_for_store(request: HttpRequest, provider: FromPath[str], store_id: FromPath[UUID]) -> Response[bytes]:
    return _register(request, provider, store_id)


def _register(request: HttpRequest, provider: str, store_id: UUID | None) -> Response[bytes]:
    if provider != BRAINTREE:
        raise MethodNotAllowedException(headers={"Allow": "POST"})
    challenge = request.query_params.get("bt_challenge", "")
    return Written(answer_challenge(request.app.state.webhooks, provider, store_id, challenge), media_type=TEXT_TYPE)


async def _take(request: HttpRequest, provider: str, store_id: UUID | None) -> Response[bytes]:
    incoming = Incoming(_headers(request), await request.body())
    context: Webhooks = request.app.state.webhooks
    with telemetry.bound({"correlation_id": _correlation(request)}):
        accepted = await receive(context, provider, store_id, incoming, correlation_id=_correlation(request))
    return Written(accepted, media_type=TEXT_TYPE)


def _headers(request: HttpRequest) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw_name, raw_value in request.scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]}{LINE_BREAK}{value}" if name in headers else value
    return headers


def _correlation(request: HttpRequest) -> str:
    state = request.scope.setdefault("state", {})
    if "correlation_id" not in state:
        state["correlation_id"] = correlation_id(request.scope["headers"])
    return str(state["correlation_id"])


def api(context: Webhooks) -> Litestar:
    """Put the ingest together."""
    app = Litestar(
        [take, take_for_store, register, register_for_store],
        exception_handlers={Refusal: _refused, Unavailable: _unavailable, HTTPException: _http, Exception: _bug},
        request_max_body_size=BODY_MAX_BYTES,
        request_class=Received,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    app.state.webhooks = context
    return app


def _refused(request: HttpRequest, refusal: Refusal) -> Response[bytes]:
    return _problem(request, refusal.problem())


def _unavailable(request: HttpRequest, silent: Unavailable) -> Response[bytes]:
    logger.warning("a webhook cannot be kept", extra={"tender": {"reason": str(silent)}})
    text = "It cannot be kept right now; send it again."
    return _problem(request, _generic(503, "unavailable", text, retry_after_seconds=RETRY_AFTER_SECONDS))


def _http(request: HttpRequest, error: HTTPException) -> Response[bytes]:
    code = {404: "not-found", 405: "method-not-allowed", 413: "body-too-large"}.get(error.status_code, "invalid-request")
    detail = detail_of(error.status_code, error.detail)
    return _problem(request, _generic(error.status_code, code, detail), headers=dict(error.headers or {}))


def _bug(request: HttpRequest, bug: Exception) -> Response[bytes]:
    logger.error("a request failed", exc_info=bug, extra={"tender": {"path": request.url.path}})
    return _problem(request, _generic(500, "internal", "Something went wrong on our side."))


def _generic(status: int, code: str, detail: str, *, retry_after_seconds: int | None = None) -> Problem:
    retry = None if retry_after_seconds is None else Retry.AFTER
    return Problem(
        code=code,
        title=code.replace("-", " ").capitalize(),
        status=status,
        detail=detail,
        retry=retry,
        retry_after_seconds=retry_after_seconds,
    )


def _problem(request: HttpRequest, problem: Problem, *, headers: dict[str, str] | None = None) -> Response[bytes]:
    sent = {"X-Correlation-Id": _correlation(request), **SAFE_HEADERS, **(headers or {})}
    if problem.retry_after_seconds is not None:
        sent["Retry-After"] = str(problem.retry_after_seconds)
    body = msgspec.json.encode(problem_body(problem, _correlation(request)))
    return Written(body, status_code=problem.status, media_type=PROBLEM_TYPE, headers=sent)
