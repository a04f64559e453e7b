"""How the API answers: stored answers as they are, problems as problem+json, and who may come in."""

import contextlib
import json
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.handlers import HTTPRouteHandler
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIType, Operation, Parameter, Schema
from litestar.types import ExceptionHandlersMap

from services.gateway.domain import ROLES, Access, Forbidden, Principal, idempotency_key, parsed, request_hash, wait_seconds
from services.gateway.handlers.gateway import Gateway, unwrap
from services.gateway.handlers.idempotency import Answer
from services.gateway.handlers.observing import Lookout
from services.gateway.store import Claim
from shared import telemetry
from shared.errors import SAFE_HEADERS, Invalid, NotFound, Outcome, Problem, Refusal, Retry, Unavailable, problem_body
from shared.messages import Message, Query, encode, type_of
from shared.reason_phrases import REASON_PHRASES, detail_of
from shared.received import HttpRequest, header
from shared.written import Written

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"
JSON_TYPE = "application/json"

# What every keyed route reads, and none has as an argument.
KEYED = (
    Parameter(
        name="Idempotency-Key",
        param_in="header",
        required=True,
        description="1 to 255 printable characters of your choice; the same on every retry.",
        schema=Schema(type=OpenAPIType.STRING),
    ),
    Parameter(
        name="Prefer",
        param_in="header",
        description="`wait=N` seconds for the outcome (10 by default), or `respond-async`.",
        schema=Schema(type=OpenAPIType.STRING),
    ),
)


@dataclass
class Documented(Operation):
    """A route in the OpenAPI document: one that can answer 202 is keyed."""

    def __post_init__(self) -> None:
        if "202" in (self.responses or {}):
            self.parameters = [*(self.parameters or []), *KEYED]


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """An error, as RFC 9457 has it; further members say what the rule knows."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    correlation_id: str
    outcome: Outcome | None = None
    retry: Retry | None = None
    retry_after: int | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome is not known yet; ask at the Location, or again with the same key."""

    operation_id: UUID
    status: str
    outcome: str


def documented(success: int, view: type, text: str, *refusals: int, keyed: bool = True) -> dict[int, ResponseSpec]:
    """Document what a route answers."""
    codes = {400, 401, 403, 404, 429, 503, *refusals, *((409, 413, 422) if keyed else ())}
    specs = {
        code: ResponseSpec(ProblemDocument, description=REASON_PHRASES[code], media_type=PROBLEM_TYPE, generate_examples=False)
        for code in sorted(codes)
    }
    if keyed:
        specs[202] = ResponseSpec(Accepted, description="Accepted; the outcome is still to come.", generate_examples=False)
    specs[success] = ResponseSpec(view, description=text, generate_examples=False)
    return specs


# Who may come in


class Guard:
    """Lets only callers with an access in, before a request is read; a shopper's token only to its own order."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def __call__(self, connection: HttpRequest) -> None:
        """Authenticate the caller, and refuse one whose role does not have the access."""
        refuse_nul(connection)
        headers = connection.scope["headers"]
        caller = await gateway_of(connection).authenticate(header(headers, b"authorization"))
        principal = caller.in_store(header(headers, b"tender-store"))
        principal.require(self.access)
        order_id = connection.path_params.get("order_id")
        if principal.order_id is not None and order_id is not None and principal.order_id != order_id:
            raise Forbidden("This token is for another order.", {"order_id": str(principal.order_id)})
        connection.scope["state"]["principal"] = principal


async def open_to_all(connection: HttpRequest) -> None:
    """Let everybody in, by a route that says so: signatures are checked elsewhere, or there is nothing to protect."""


def declares_access(route: HTTPRouteHandler) -> bool:
    """Tell whether a route says who may call it; one that does not is never served."""
    return isinstance(getattr(route.before_request, "access", None), Access) or route.before_request is open_to_all


def roles_text(route: HTTPRouteHandler) -> str | None:
    """Name the roles that may call a route, for its documentation; nothing of one that is open to all."""
    if not isinstance(route.before_request, Guard):
        return None
    return f"Roles: {', '.join(sorted(ROLES[route.before_request.access]))}."


def refuse_nul(request: HttpRequest) -> None:
    """Refuse an address that holds NUL, which no text in a database can."""
    if "\0" in request.scope["path"]:
        raise NotFound("Nothing has NUL in its name.")
    if b"%00" in request.scope["query_string"]:
        raise Invalid("The query holds NUL, which no text does.", {"field": "query"})


CHECKOUT = Guard(Access.CHECKOUT)
CUSTOMER = Guard(Access.CUSTOMER)
READ = Guard(Access.READ)
RETRY = Guard(Access.RETRY)
FINANCE = Guard(Access.FINANCE)
REPAIR = Guard(Access.REPAIR)
ADMIN = Guard(Access.ADMIN)
ANYONE = Guard(Access.ANYONE)


def principal_of(request: HttpRequest) -> Principal:
    """Tell who was let in."""
    principal: Principal = request.scope["state"]["principal"]
    return principal


def gateway_of(request: HttpRequest) -> Gateway:
    """Find the gateway at work."""
    gateway: Gateway = request.app.state["gateway"]
    return gateway


def lookout_of(request: HttpRequest) -> Lookout:
    """Find whoever looks around for all who look on."""
    lookout: Lookout = request.app.state["lookout"]
    return lookout


def correlation_of(request: HttpRequest) -> str:
    """Tell the correlation id of a request."""
    return str(request.scope["state"].get("correlation_id", ""))


# Carrying out and showing


async def carry_out(
    request: HttpRequest, make: Callable[[str], Message], *, data: msgspec.Struct | None = None, headers: tuple[str, ...] = ()
) -> Response[Any]:
    """Carry a keyed request out once and answer it; `data` is its body as decoded."""
    gateway = gateway_of(request)
    key = idempotency_key(header(request.scope["headers"], b"idempotency-key"))
    wait = wait_seconds(header(request.scope["headers"], b"prefer"), gateway.settings.wait_seconds)
    raw = await request.body()
    if data is not None:
        # The framework reads "490" as 490; with money nothing is taken for something else.
        msgspec.json.decode(raw, type=type(data))
    digest = request_hash(request.method, request.scope["path"], parsed(raw) if raw else None, headers)
    return answered(gateway, await execute(request, key, make(key), digest, wait_seconds=wait))


async def execute(request: HttpRequest, key: str, command: Message, digest: bytes, *, wait_seconds: float) -> Answer:
    """Carry a command out once for its key, whose request `digest` names, and wait so long for its answer."""
    _refuse_timeless(command)
    gateway, principal = gateway_of(request), principal_of(request)
    claim = Claim(
        scope=principal.scope,
        key=key,
        request_hash=digest,
        command_type=type_of(type(command)),
        command=encode(command),
        store_id=principal.store_id,
        environment=principal.environment,
        actor=principal.actor,
        correlation_id=correlation_of(request),
        traceparent=telemetry.traceparent(),
    )
    gateway.admit()
    with gateway.places.taking(principal, key):
        await gateway.reach_broker()
        answer = await gateway.idempotency.execute(claim, wait_seconds=wait_seconds, gone=lambda: _gone(request))
    _bind_intent(answer)
    return answer


def _refuse_timeless(message: Message) -> None:
    """Refuse a moment that no clock shows in UTC, by its offset from the first year or the last; no service could read it."""
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if isinstance(value, datetime):
            try:
                value.astimezone(UTC)
            except OverflowError as timeless:
                raise Invalid(f"{name} lies before the first year or after the last.", {"field": name}) from timeless


async def _gone(request: HttpRequest) -> None:
    """Wait until the client has hung up; its body has been read, so nothing else comes."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def answered(gateway: Gateway, answer: Answer) -> Response[Any]:
    """Write an operation's answer as it is stored, or 202 while there is none."""
    if answer.body is None:
        location = f"/api/v1/operations/{answer.operation_id}"
        body = Accepted(operation_id=answer.operation_id, status="in_progress", outcome=Outcome.UNKNOWN.value)
        return Response(body, status_code=202, headers={"Location": location, "Retry-After": "1"})
    headers = {"Operation-Id": str(answer.operation_id)}
    if answer.replayed:
        headers["Idempotent-Replayed"] = "true"
    if answer.retry_after_seconds is not None:
        headers["Retry-After"] = str(answer.retry_after_seconds)
    return Written(
        gateway.revealed(answer.command_type, answer.status, answer.body),
        status_code=answer.status,
        media_type=PROBLEM_TYPE if answer.status >= 400 else JSON_TYPE,
        headers=headers,
    )


async def show(request: HttpRequest, query: Query, *, headers: Callable[[bytes], dict[str, str]] = lambda _: {}) -> Response[Any]:
    """Ask a service and show what it answers."""
    _refuse_timeless(query)
    found = unwrap(await gateway_of(request).ask(principal_of(request), query, correlation_id=correlation_of(request)))
    if isinstance(found, Problem):
        return _problem(request, found)
    return Written(found, media_type=JSON_TYPE, headers=headers(found))


async def ask(request: HttpRequest, query: Query) -> bytes:
    """Ask a service for something that is not shown as it is; raises what its rules refuse."""
    found = unwrap(await gateway_of(request).ask(principal_of(request), query, correlation_id=correlation_of(request)))
    if isinstance(found, Problem):
        raise Refusal.of(found)
    return found


class _IntentId(msgspec.Struct):
    id: str


class _Payment(msgspec.Struct):
    intent: _IntentId | None = None
    intent_id: str | None = None


_READ_PAYMENT = msgspec.json.Decoder(_Payment).decode


def _bind_intent(answer: Answer) -> None:
    # The request's own log line bears the intent it was about, also when the request could not know it.
    if answer.body is None:
        return
    with contextlib.suppress(msgspec.DecodeError):
        said = _READ_PAYMENT(answer.body)
        intent_id = said.intent.id if said.intent else said.intent_id
        if intent_id is not None:
            telemetry.bind({"intent_id": intent_id})


# Problems


def problem_handlers() -> ExceptionHandlersMap:
    """Write every error as problem+json."""
    return {
        Refusal: _refusal,
        Unavailable: _unavailable,
        msgspec.ValidationError: _unfit,
        # What JSON readers raise for what is no JSON, for what is no UTF-8 or half a character, and for lists within lists without end.
        json.JSONDecodeError: _malformed,
        UnicodeError: _malformed,
        RecursionError: _malformed,
        HTTPException: _http,
        Exception: _bug,
    }


def _refusal(request: HttpRequest, refusal: Refusal) -> Response[Any]:
    return _problem(request, refusal.problem())


def _unavailable(request: HttpRequest, silent: Unavailable) -> Response[Any]:
    return _problem(
        request,
        Problem(
            code="unavailable",
            title="This cannot be answered right now",
            status=503,
            detail="A part of the system that this needs is not available; try again with the same key.",
            retry=Retry.SAME_KEY,
            retry_after_seconds=1,
        ),
    )


_AT = re.compile(r"^(?P<reason>.*?)(?: - at `(?P<field>[^`]*)`)?$", re.DOTALL)


def _unfit(request: HttpRequest, wrong: msgspec.ValidationError) -> Response[Any]:
    found = _AT.match(str(wrong))
    assert found is not None, "every text matches"
    return _problem(request, _invalid([{"field": found["field"] or "$", "reason": found["reason"]}]))


def _malformed(request: HttpRequest, wrong: Exception) -> Response[Any]:
    return _problem(
        request,
        Problem(
            code=_CODES[400],
            title=REASON_PHRASES[400],
            status=400,
            detail=f"The body cannot be read as JSON: {wrong}",
            outcome=Outcome.NOT_ATTEMPTED,
            retry=Retry.NEVER,
        ),
    )


def _http(request: HttpRequest, error: HTTPException) -> Response[Any]:
    problem = _of_http(error)
    headers = {key: value for key, value in (error.headers or {}).items() if key.lower() == "allow"}
    return _problem(request, problem, headers)


# Schema errors come before a key is claimed: nothing was attempted and nothing is stored.
_CODES = {400: "malformed-request", 404: "no-such-route", 405: "method-not-allowed", 413: "body-too-large", 415: "unsupported-media-type"}


def _of_http(error: HTTPException) -> Problem:
    if isinstance(error, ValidationException) and error.extra:
        return _invalid([_field_error(each) for each in error.extra if isinstance(each, dict)])
    return Problem(
        code=_CODES.get(error.status_code, "http-error"),
        title=REASON_PHRASES[error.status_code],
        status=error.status_code,
        detail=detail_of(error.status_code, error.detail),
        outcome=Outcome.NOT_ATTEMPTED if error.status_code < 500 else None,
        retry=Retry.NEVER if error.status_code < 500 else Retry.SAME_KEY,
    )


def _invalid(errors: list[dict[str, str]]) -> Problem:
    return Problem(
        code="invalid-request",
        title="The request does not fit its schema",
        status=422,
        detail="; ".join(f"{each['field']}: {each['reason']}" for each in errors),
        outcome=Outcome.NOT_ATTEMPTED,
        retry=Retry.NEVER,
        facts={"errors": errors},
    )


def _field_error(error: dict[str, Any]) -> dict[str, str]:
    field = str(error.get("key") or "")
    where = "" if str(error.get("source", "body")) == "body" else f"{error.get('source')} "
    return {"field": f"{where}{field}" if field else "$", "reason": str(error.get("message", ""))}


def _bug(request: HttpRequest, bug: Exception) -> Response[Any]:
    logger.error("a request failed", exc_info=bug)
    return _problem(
        request,
        Problem(
            code="internal-error",
            title="This is a bug on our side",
            status=500,
            detail="The request may have been taken up; ask again with the same key.",
            retry=Retry.SAME_KEY,
        ),
    )


def _problem(request: HttpRequest, problem: Problem, headers: dict[str, str] | None = None) -> Response[Any]:
    more = {**SAFE_HEADERS, **(headers or {})}
    if problem.retry_after_seconds is not None:
        more["Retry-After"] = str(problem.retry_after_seconds)
    if problem.status == 401:
        more["WWW-Authenticate"] = "Bearer"
    body = msgspec.json.encode(problem_body(problem, correlation_of(request)))
    return Written(body, status_code=problem.status, media_type=PROBLEM_TYPE, headers=more)
