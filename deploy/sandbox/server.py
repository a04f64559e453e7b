"""The sandbox over HTTP: payments with idempotency keys, a page for the customer's bank, and a control endpoint."""

import asyncio
import hashlib
import random
from collections.abc import Callable
from datetime import datetime
from html import escape
from typing import Any

import msgspec
from litestar import Litestar, MediaType, Request, Response, get, post
from litestar.datastructures import State
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Books, Payment, Refused, now
from deploy.sandbox.tokens import TOKENS, Act
from deploy.sandbox.webhooks import Moods, Outgoing
from shared.money import Money

SLOW_SECONDS = 1.0
PAGE_ROWS_MAX = 100
BODY_MAX_BYTES = 64 * 1024

HttpRequest = Request[Any, Any, State]
Do = Callable[[dict[str, Any]], Payment]


class Control(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the control endpoint can change."""

    check_amounts: bool | None = None
    check_keys: bool | None = None
    silence_seconds: float | None = None
    # How likely a call meets each of WEATHERS, whatever its token.
    weather: dict[str, float] | None = None
    # What befalls webhooks on their way.
    webhooks: Moods | None = None


# Troubles that can befall any call. Of "busy", "fail" and "silent" nothing has happened; of the others all has.
WEATHERS = {"slow": Act.SLOW, "busy": Act.BUSY_ONCE, "fail": Act.FAIL_ONCE, "silent": Act.SILENT_ONCE, "late": Act.SUCCEED_SILENTLY}


class Sandbox:
    """The simulator's state while it runs."""

    def __init__(self, books: Books, *, base_url: str, api_key: str, silence_seconds: float, outgoing: Outgoing | None = None) -> None:
        self.books = books
        self.base_url = base_url
        self.api_key = api_key
        self.silence_seconds = silence_seconds
        self._misbehaved: set[str] = set()
        self._busy: set[str] = set()
        self.calls: dict[str, int] = {}
        self.weather: dict[str, float] = {}
        self.outgoing = outgoing or Outgoing(url="", secret="")
        books.tell = lambda kind, payment: self.outgoing.tell(kind, lambda: payment, now().isoformat())

    async def keyed(self, request: HttpRequest, kind: str, act: Callable[[dict[str, Any]], Act], do: Do) -> Response[bytes]:
        """Carry a request out under its idempotency key, the way Stripe does: the first answer is the answer."""
        self._authenticate(request)
        self.calls[kind] = self.calls.get(kind, 0) + 1
        raw = await request.body()
        body = _object(raw)
        key = request.headers.get("idempotency-key", "") if self.books.check_keys else ""
        digest = hashlib.sha256(request.url.path.encode() + b"\0" + raw).hexdigest()
        if key and (known := self.books.answer_to(key)) is not None:
            return _repeated(known, digest)
        if key in self._busy:
            raise Refused(409, "idempotency_key_in_use", "Another request with this key is under way")
        misbehaving = self._struck() or act(body)
        if (trouble := await self._before(misbehaving, key or digest)) is not None:
            return trouble
        if key:
            self._busy.add(key)
        try:
            if misbehaving is Act.SLOW:
                await asyncio.sleep(SLOW_SECONDS)
            status, answer = _carried_out(do, body)
            if key:
                self.books.keep_answer(key, digest, status, answer)
        finally:
            self._busy.discard(key)
        if misbehaving is Act.SUCCEED_SILENTLY and self._first_time(f"{key or digest} after"):
            await asyncio.sleep(self.silence_seconds)
        return Response(answer, status_code=status, media_type=MediaType.JSON)

    async def _before(self, act: Act, what: str) -> Response[bytes] | None:
        if act is Act.SILENT or (act is Act.SILENT_ONCE and self._first_time(what)):
            await asyncio.sleep(self.silence_seconds)
            return _error(504, "silent", "This answer comes too late")
        if act is Act.FAIL_ONCE and self._first_time(what):
            return _error(500, "api_error", "Something went wrong on our end")
        if act is Act.BUSY_ONCE and self._first_time(what):
            return _error(429, "rate_limit", "Too many requests", {"Retry-After": "1"})
        return None

    def _struck(self) -> Act | None:
        for weather, likelihood in self.weather.items():
            if random.random() < likelihood:
                return WEATHERS[weather]
        return None

    def _first_time(self, what: str) -> bool:
        first = what not in self._misbehaved
        self._misbehaved.add(what)
        return first

    def _authenticate(self, request: HttpRequest) -> None:
        if request.headers.get("authorization") != f"Bearer {self.api_key}":
            raise Refused(401, "invalid_api_key", "Invalid API key")

    def read(self, request: HttpRequest) -> Books:
        """Let a reader in."""
        self._authenticate(request)
        self.calls["read"] = self.calls.get("read", 0) + 1
        return self.books


def app(sandbox: Sandbox) -> Litestar:
    """Put the sandbox's HTTP API together."""
    return Litestar(
        [
            authorize,
            confirm,
            capture,
            void,
            refund,
            read_payment,
            read_payments,
            bank_page,
            bank_decision,
            control,
            control_payment,
            control_events,
            control_event,
            look,
            live,
        ],
        state=State({"sandbox": sandbox}),
        exception_handlers={Refused: lambda _, refused: _error(refused.status, refused.code, str(refused))},
        request_max_body_size=BODY_MAX_BYTES,
        openapi_config=None,
        logging_config=None,
    )


def _sandbox(request: HttpRequest) -> Sandbox:
    found: Sandbox = request.app.state.sandbox
    return found


def _behaviour(token: Any, kind: str) -> Act:
    behaviour = TOKENS.get(str(token))
    act: Act | None = None if behaviour is None else getattr(behaviour, kind)
    return act or Act.SUCCEED


@post("/v1/payments")
async def authorize(request: HttpRequest) -> Response[bytes]:
    sandbox = _sandbox(request)
    return await sandbox.keyed(
        request,
        "authorize",
        lambda body: _behaviour(body.get("payment_method"), "authorize"),
        lambda body: sandbox.books.authorize(body, sandbox.base_url),
    )


@post("/v1/payments/{payment_id:str}/confirm")
async def confirm(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "confirm", lambda books, payment, _: books.confirm(payment))


@post("/v1/payments/{payment_id:str}/capture")
async def capture(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "capture", lambda books, payment, body: books.capture(payment, body))


@post("/v1/payments/{payment_id:str}/void")
async def void(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "void", lambda books, payment, body: books.void(payment, body))


@post("/v1/payments/{payment_id:str}/refund")
async def refund(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "refund", lambda books, payment, body: books.refund(payment, body))


async def _change(
    request: HttpRequest, payment_id: FromPath[str], kind: str, do: Callable[[Books, Payment, dict[str, Any]], Payment]
) -> Response[bytes]:
    sandbox = _sandbox(request)
    return await sandbox.keyed(
        request,
        kind,
        lambda _: _behaviour(sandbox.books.get(payment_id).payment_method, kind),
        lambda body: do(sandbox.books, sandbox.books.get(payment_id), body),
    )


@get("/v1/payments/{payment_id:str}")
async def read_payment(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return _shown(_sandbox(request).read(request).get(payment_id))


@get("/v1/payments")
async def read_payments(
    request: HttpRequest,
    reference: FromQuery[str | None] = None,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    cursor: FromQuery[str] = "",
    limit: FromQuery[int] = PAGE_ROWS_MAX,
) -> Response[bytes]:
    books = _sandbox(request).read(request)
    if reference is not None:
        found = books.find(reference)
        return _page([] if found is None else [found], None)
    first, last = _moment(since), _moment(until)
    rows = sorted(
        (p for p in books.payments.values() if p.id > cursor and _within(p, first, last)),
        key=lambda p: p.id,
    )
    page = [books.get(p.id) for p in rows[: min(limit, PAGE_ROWS_MAX)]]
    return _page(page, page[-1].id if len(rows) > len(page) else None)


@get("/3ds/{payment_id:str}", media_type=MediaType.HTML)
async def bank_page(request: HttpRequest, payment_id: FromPath[str]) -> Response[str]:
    payment = _sandbox(request).books.get(payment_id)
    choices = "".join(
        f"<button name=decision value={value}>{label}</button> " for value, label in (("pass", "Approve"), ("fail", "Decline"))
    )
    page = (
        "<!doctype html><meta charset=utf-8><meta name=viewport content='width=device-width'><title>Sandbox bank</title>"
        "<style>body{font:18px system-ui;max-width:30rem;margin:3rem auto;padding:0 1rem}button{font:inherit;padding:.5rem 1rem}</style>"
        f"<h1>Sandbox bank</h1><p>Approve a payment of <b>{escape(str(Money(payment.amount, payment.currency)))}</b>?</p>"
        f"<form method=post>{choices}</form>"
    )
    return Response(page, media_type=MediaType.HTML)


@post("/3ds/{payment_id:str}", media_type=MediaType.HTML, status_code=200)
async def bank_decision(request: HttpRequest, payment_id: FromPath[str]) -> Response[str]:
    form = await request.form()
    books = _sandbox(request).books
    books.decide(books.get(payment_id), passed=form.get("decision") == "pass")
    return Response("<!doctype html><title>Sandbox bank</title><p>Thank you; go back to the shop.", media_type=MediaType.HTML)


# The control endpoint: what happens at the provider without us, and how well it behaves


@post("/control", status_code=200)
async def control(request: HttpRequest) -> dict[str, Any]:
    sandbox = _sandbox(request)
    wanted = msgspec.json.decode(await request.body(), type=Control)
    if wanted.check_amounts is not None:
        sandbox.books.check_amounts = wanted.check_amounts
    if wanted.check_keys is not None:
        sandbox.books.check_keys = wanted.check_keys
    if wanted.weather is not None:
        if unknown := wanted.weather.keys() - WEATHERS.keys():
            raise Refused(400, "unknown_weather", f"{', '.join(sorted(unknown))}; there are {', '.join(WEATHERS)}")
        sandbox.weather = wanted.weather
    if wanted.webhooks is not None:
        sandbox.outgoing.moods = wanted.webhooks
    if wanted.silence_seconds is not None:
        sandbox.silence_seconds = wanted.silence_seconds
    return {
        "check_amounts": sandbox.books.check_amounts,
        "check_keys": sandbox.books.check_keys,
        "silence_seconds": sandbox.silence_seconds,
        "weather": sandbox.weather,
        "webhooks": msgspec.to_builtins(sandbox.outgoing.moods),
    }


@post("/control/payments/{payment_id:str}/{kind:str}", status_code=200)
async def control_payment(request: HttpRequest, payment_id: FromPath[str], kind: FromPath[str]) -> Response[bytes]:
    books = _sandbox(request).books
    payment, body = books.get(payment_id), _object(await request.body())
    if kind in ("approve", "decline"):
        return _shown(books.decide(payment, passed=kind == "approve"))
    if kind not in ("capture", "refund", "void", "chargeback"):
        raise Refused(404, "unknown_kind", "approve, decline, capture, refund, void or chargeback")
    books.add(payment, kind, int(body.get("amount", payment.amount)), reason="dashboard")
    return _shown(payment)


@get("/control/webhooks")
async def control_events(request: HttpRequest) -> Response[bytes]:
    events = [{**msgspec.to_builtins(told), "body": told.body.decode()} for told in _sandbox(request).outgoing.events.values()]
    return Response(msgspec.json.encode({"data": events}), media_type=MediaType.JSON)


@post("/control/webhooks/{event_id:str}/send", status_code=200)
async def control_event(request: HttpRequest, event_id: FromPath[str]) -> dict[str, str]:
    outgoing = _sandbox(request).outgoing
    if event_id not in outgoing.events:
        raise Refused(404, "unknown_event", f"No such event: {event_id}")
    outgoing.send(outgoing.events[event_id])
    return {"sent": event_id}


@get("/control")
async def look(request: HttpRequest) -> dict[str, Any]:
    sandbox = _sandbox(request)
    operations = [o for p in sandbox.books.payments.values() for o in p.operations if o.status == "succeeded"]
    moved = {kind: sum(o.amount for o in operations if o.kind == kind) for kind in ("authorize", "capture", "void", "refund", "chargeback")}
    count = {kind: sum(1 for o in operations if o.kind == kind) for kind in moved}
    return {"payments": len(sandbox.books.payments), "succeeded": count, "moved": moved, "calls": sandbox.calls}


@get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "alive"}


def _carried_out(do: Do, body: dict[str, Any]) -> tuple[int, bytes]:
    try:
        return 200, msgspec.json.encode(do(body))
    except Refused as refused:
        return refused.status, _error_body(refused.code, str(refused))


def _repeated(known: tuple[str, int, bytes], digest: str) -> Response[bytes]:
    before, status, body = known
    if before != digest:
        raise Refused(400, "idempotency_error", "Keys for idempotent requests can only be used with the same parameters")
    return Response(body, status_code=status, media_type=MediaType.JSON, headers={"Idempotent-Replayed": "true"})


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(raw) if raw else {}
    except msgspec.DecodeError:
        raise Refused(400, "invalid_json", "The body is not JSON") from None
    if not isinstance(value, dict):
        raise Refused(400, "invalid_json", "The body is not a JSON object")
    return value


def _moment(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text.replace(" ", "+"))


def _within(payment: Payment, since: datetime | None, until: datetime | None) -> bool:
    created = datetime.fromisoformat(payment.created_at)
    return (since is None or created >= since) and (until is None or created < until)


def _shown(payment: Payment) -> Response[bytes]:
    return Response(msgspec.json.encode(payment), media_type=MediaType.JSON)


def _page(payments: list[Payment], cursor: str | None) -> Response[bytes]:
    return Response(msgspec.json.encode({"data": payments, "next_cursor": cursor}), media_type=MediaType.JSON)


def _error(status: int, code: str, message: str, headers: dict[str, str] | None = None) -> Response[bytes]:
    return Response(_error_body(code, message), status_code=status, media_type=MediaType.JSON, headers=headers or {})


def _error_body(code: str, message: str) -> bytes:
    return msgspec.json.encode({"error": {"code": code, "message": message}})
