"""Orders: found, one with everything that happened to it, and what can be done with its payments."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import FINANCE, PAGE_ROWS, Facts, act, ask, asked_for, form_of, html, page, read, signed_in
from services.gateway.handlers.timeline import timeline_of
from services.gateway.routes.answers import correlation_of, gateway_of, principal_of
from services.gateway.routes.payments import CaptureBody, RefundBody
from shared.contracts.payments import (
    Capture,
    FindOrders,
    FoundOrders,
    GetOrder,
    GetPayments,
    IntentLedger,
    IntentView,
    Ledger,
    OrderView,
    Refund,
    TransactionView,
    Void,
)
from shared.errors import Invalid, NotFound
from shared.messages import Message
from shared.money import Money, decimal_text, from_decimal_text
from shared.received import HttpRequest

What = Literal["capture", "void", "refund"]
STATUSES = ("open", "payment_pending", "authorized", "partially_paid", "paid", "partially_refunded", "refunded", "cancelled")


@get("/orders", before_request=signed_in)
async def list_orders(
    request: HttpRequest,
    status: Annotated[str, QueryParameter(name="status", max_length=40, required=False)] = "",
    text: Annotated[str, QueryParameter(name="text", max_length=200, required=False)] = "",
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    async def load() -> Facts:
        query = FindOrders(status=status or None, text=text.strip() or None, before=before, limit=PAGE_ROWS)
        return {"found": await ask(request, query, FoundOrders), "statuses": STATUSES}

    return await page(request, "orders.html", load)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A row of the ledger with what the payment came to after it."""

    transaction: TransactionView
    authorized: int
    captured: int
    refunded: int


class PaymentFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A payment with its rows, and what can be taken, released or given back."""

    ledger: IntentLedger
    rows: list[Row]
    held: int
    refundable: int


ADDS = {"authorize": (1, 0, 0), "capture": (0, 1, 0), "refund": (0, 0, 1), "chargeback": (0, 0, 1), "chargeback_reversal": (0, 0, -1)}


def running(transactions: Sequence[TransactionView]) -> Iterator[Row]:
    """Add a ledger up, row by row; only what has succeeded counts."""
    sums = (0, 0, 0)
    for each in transactions:
        if each.status == "succeeded":
            moved = each.processed_amount or 0
            sums = tuple(before + sign * moved for before, sign in zip(sums, ADDS.get(each.operation, (0, 0, 0)), strict=True))  # type: ignore[assignment]
        yield Row(transaction=each, authorized=sums[0], captured=sums[1], refunded=sums[2])


def held(intent: IntentView) -> int:
    """Say how much of a hold is neither captured nor released."""
    return max(0, intent.authorized_amount - intent.captured_amount - intent.voided_amount)


def refundable(intent: IntentView) -> int:
    """Say how much of what was captured has not gone back."""
    return max(0, intent.captured_amount - intent.refunded_amount - intent.charged_back_amount)


def _facts(each: IntentLedger) -> PaymentFacts:
    return PaymentFacts(ledger=each, rows=list(running(each.transactions)), held=held(each.intent), refundable=refundable(each.intent))


@get("/orders/{order_id:uuid}", before_request=signed_in)
async def show_order(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    async def load() -> Facts:
        order, ledger = await asked_for(request, GetOrder(order_id=order_id), OrderView), None
        if order is not None:
            ledger = await ask(request, GetPayments(order_id=order_id), Ledger)
        timeline = await timeline_of(gateway_of(request), principal_of(request), order_id, correlation_id=correlation_of(request))
        payments = [] if ledger is None else [_facts(each) for each in ledger.payments]
        return {"order_id": order_id, "order": order, "payments": payments, "timeline": timeline}

    return await page(request, "order.html", load)


async def _intent(request: HttpRequest, order_id: UUID, intent_id: UUID) -> IntentView:
    ledger = await ask(request, GetPayments(order_id=order_id), Ledger)
    for each in ledger.payments:
        if each.intent.id == intent_id:
            return each.intent
    raise NotFound(f"This order has no payment {intent_id}.")


@get("/orders/{order_id:uuid}/payments/{intent_id:uuid}/{what:str}", before_request=FINANCE)
async def review(
    request: HttpRequest,
    order_id: FromPath[UUID],
    intent_id: FromPath[UUID],
    what: FromPath[str],
    amount: Annotated[str, QueryParameter(name="amount", max_length=40, required=False)] = "",
) -> Response[Any]:
    kind = _what(what)
    intent = await _intent(request, order_id, intent_id)
    most = refundable(intent) if kind == "refund" else held(intent)
    meant = from_decimal_text(amount.strip(), intent.currency).amount if amount.strip() and kind != "void" else most
    facts = {
        "what": kind,
        "intent": intent,
        "most": most,
        "amount": meant,
        "amount_text": decimal_text(Money(meant, intent.currency)),
        "possible": 0 < meant <= most,
    }
    return html(request, "review.html", facts)


def _what(text: str) -> What:
    for known in ("capture", "void", "refund"):
        if text == known:
            return known
    raise Invalid("A payment can be captured, voided or refunded.", {"what": text})


@post("/orders/{order_id:uuid}/payments/{intent_id:uuid}/{what:str}", before_request=FINANCE)
async def carry_out(request: HttpRequest, order_id: FromPath[UUID], intent_id: FromPath[UUID], what: FromPath[str]) -> Response[Any]:
    form = await form_of(request)
    owned = f"{principal_of(request).id}:{form.get('key', '')}"
    command = _command(_what(what), form, order_id=order_id, intent_id=intent_id, idempotency_key=owned)
    done = {"capture": "The money is captured.", "void": "The hold is released.", "refund": "The money is refunded."}[what]
    return await act(request, form, command, done=done, back=f"/console/orders/{order_id}")


def _command(what: What, form: dict[str, str], **whose: Any) -> Message:
    if what == "capture":
        capture = read(form, CaptureBody, final=form.get("final") == "true")
        return Capture(amount=capture.amount, currency=capture.currency, final=capture.final, **whose)
    if what == "refund":
        refund = read(form, RefundBody)
        return Refund(amount=refund.amount, currency=refund.currency, reason=refund.reason, **whose)
    return Void(**whose)


ROUTES = [list_orders, show_order, review, carry_out]
