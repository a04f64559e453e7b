"""What no provider's API has: the customer's bank, the provider's dashboard, and how well it all behaves."""

from html import escape
from typing import Any

import msgspec
from litestar import MediaType, Response, Router, get, post
from litestar.params import FromPath

from deploy.sandbox.books import Refused
from deploy.sandbox.faces.own import OWN, shown
from deploy.sandbox.intermediary import Meddling
from deploy.sandbox.server import WEATHERS, Account, HttpRequest, Sandbox, json_response, sandbox_of
from deploy.sandbox.webhooks import Moods, Outgoing
from shared.money import Money


class Control(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What the control endpoint can change."""

    check_amounts: bool | None = None
    check_keys: bool | None = None
    silence_seconds: float | None = None
    # How likely a call meets each of WEATHERS, whatever its token.
    weather: dict[str, float] | None = None
    # What stands between us and the provider does.
    intermediary: Meddling | None = None
    # What befalls webhooks on their way.
    webhooks: Moods | None = None
    # What the account behind the Stripe face can do.
    stripe: Account | None = None


DASHBOARD = ("capture", "refund", "void", "chargeback", "chargeback_reversal")
REFUNDS = ("refund_succeed", "refund_fail", "refund_cancel")


@get("/3ds/{payment_id:str}", media_type=MediaType.HTML)
async def bank_page(request: HttpRequest, payment_id: FromPath[str]) -> Response[str]:
    payment = sandbox_of(request).books.get(payment_id)
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
    books = sandbox_of(request).books
    books.decide(books.get(payment_id), passed=form.get("decision") == "pass")
    return Response("<!doctype html><title>Sandbox bank</title><p>Thank you; go back to the shop.", media_type=MediaType.HTML)


# What happens at the provider without us, and how well it behaves


@post("/control", status_code=200)
async def control(request: HttpRequest) -> dict[str, Any]:
    sandbox = sandbox_of(request)
    wanted = msgspec.json.decode(await request.body(), type=Control)
    if wanted.check_amounts is not None:
        sandbox.books.check_amounts = wanted.check_amounts
    if wanted.check_keys is not None:
        sandbox.books.check_keys = wanted.check_keys
    if wanted.weather is not None:
        if unknown := wanted.weather.keys() - WEATHERS.keys():
            raise Refused(400, "unknown_weather", f"{', '.join(sorted(unknown))}; there are {', '.join(WEATHERS)}")
        sandbox.weather = wanted.weather
    if wanted.intermediary is not None:
        sandbox.intermediary.meddle(wanted.intermediary)
    if wanted.webhooks is not None:
        for outgoing in _tellers(sandbox):
            outgoing.moods = wanted.webhooks
    if wanted.stripe is not None:
        sandbox.account = wanted.stripe
    if wanted.silence_seconds is not None:
        sandbox.silence_seconds = wanted.silence_seconds
    return {
        "check_amounts": sandbox.books.check_amounts,
        "check_keys": sandbox.books.check_keys,
        "silence_seconds": sandbox.silence_seconds,
        "weather": sandbox.weather,
        "intermediary": {"rate": sandbox.intermediary.meddling.rate, "answered": sandbox.intermediary.answered},
        "webhooks": msgspec.to_builtins(sandbox.outgoing.moods),
        "stripe": msgspec.to_builtins(sandbox.account),
    }


@post("/control/payments/{payment_id:str}/{kind:str}", status_code=200)
async def control_payment(request: HttpRequest, payment_id: FromPath[str], kind: FromPath[str]) -> Response[bytes]:
    books = sandbox_of(request).books
    payment, body = books.get(payment_id), OWN.read(await request.body())
    if kind in ("approve", "decline"):
        return shown(books.decide(payment, passed=kind == "approve"))
    if kind in REFUNDS:
        return shown(books.settle_refund(payment, kind, body))
    if kind == "dispute":
        return shown(books.dispute(payment, body))
    if kind not in DASHBOARD:
        raise Refused(404, "unknown_kind", f"approve, decline, dispute, {', '.join((*REFUNDS, *DASHBOARD))}")
    books.add(payment, kind, int(body.get("amount", payment.amount)), status=str(body.get("status", "succeeded")), reason="dashboard")
    return shown(payment)


def _tellers(sandbox: Sandbox) -> tuple[Outgoing, ...]:
    return (sandbox.outgoing, sandbox.stripe, sandbox.parcels, sandbox.easypost, sandbox.shippo)


@get("/control/webhooks")
async def control_events(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    told = [each for outgoing in _tellers(sandbox) for each in outgoing.events.values()]
    return json_response(msgspec.json.encode({"data": [{**msgspec.to_builtins(each), "body": each.body.decode()} for each in told]}))


@post("/control/webhooks/{event_id:str}/send", status_code=200)
async def control_event(request: HttpRequest, event_id: FromPath[str]) -> dict[str, str]:
    sandbox = sandbox_of(request)
    for outgoing in _tellers(sandbox):
        if event_id in outgoing.events:
            outgoing.send(outgoing.events[event_id])
            return {"sent": event_id}
    raise Refused(404, "unknown_event", f"No such event: {event_id}")


@get("/control")
async def look(request: HttpRequest) -> dict[str, Any]:
    sandbox = sandbox_of(request)
    operations = [o for p in sandbox.books.payments.values() for o in p.operations if o.status == "succeeded"]
    moved = {kind: sum(o.amount for o in operations if o.kind == kind) for kind in ("authorize", *DASHBOARD)}
    count = {kind: sum(1 for o in operations if o.kind == kind) for kind in moved}
    return {"payments": len(sandbox.books.payments), "succeeded": count, "moved": moved, "calls": sandbox.calls}


@get("/health/live")
async def live() -> dict[str, str]:
    return {"status": "alive"}


router = Router(
    path="/",
    route_handlers=[bank_page, bank_decision, control, control_payment, control_events, control_event, look, live],
    exception_handlers={Refused: lambda _, refused: json_response(OWN.error(refused), refused.status)},
)
