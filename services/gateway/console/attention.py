"""Payments that need somebody: outcomes nobody learnt, conflicts, money that no order owes, holds that end soon; and unknown labels."""

from typing import Annotated, Any
from uuid import UUID

from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import FINANCE, PAGE_ROWS, Facts, act, ask, asked_for, form_of, page, read, signed_in
from services.gateway.routes.answers import principal_of
from services.gateway.routes.payments import AcceptBody, RefundBody
from services.gateway.routes.reconciliation import DecisionBody, LabelDecisionBody
from shared.contracts.fulfillment.shipping import DecideLabel, ListUnknownLabels, UnknownLabelPage
from shared.contracts.payments import AcceptFacts, AttentionView, DecideOutcome, ListAttention, ListUnknown, Refund, UnknownPage
from shared.received import HttpRequest

HERE = "/console/attention"


@get("/attention", before_request=signed_in)
async def show_attention(
    request: HttpRequest,
    provider: Annotated[str, QueryParameter(name="provider", max_length=60, required=False)] = "",
) -> Response[Any]:
    only = provider.strip() or None

    async def load() -> Facts:
        return {
            "unknown": await ask(request, ListUnknown(provider=only, limit=PAGE_ROWS), UnknownPage),
            "attention": await ask(request, ListAttention(provider=only, limit=PAGE_ROWS), AttentionView),
            "labels": await asked_for(request, ListUnknownLabels(limit=PAGE_ROWS), UnknownLabelPage),
        }

    return await page(request, "attention.html", load)


@post("/attention/{transaction_id:uuid}/decide", before_request=FINANCE)
async def decide(request: HttpRequest, transaction_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    said = read(form, DecisionBody)
    command = DecideOutcome(
        transaction_id=transaction_id, outcome=said.outcome, evidence=said.evidence, provider_payment_id=said.provider_payment_id
    )
    return await act(request, form, command, done=f"Settled: the operation has {said.outcome}.", back=HERE)


@post("/attention/{order_id:uuid}/payments/{intent_id:uuid}/accept", before_request=FINANCE)
async def accept(request: HttpRequest, order_id: FromPath[UUID], intent_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    said = read(form, AcceptBody)
    command = AcceptFacts(order_id=order_id, intent_id=intent_id, version=said.version, reason=said.reason)
    return await act(request, form, command, done="Accepted: the payment stands as its facts say.", back=HERE)


@post("/attention/{order_id:uuid}/payments/{intent_id:uuid}/give-back", before_request=FINANCE)
async def give_back(request: HttpRequest, order_id: FromPath[UUID], intent_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    said = read(form, RefundBody, overpaid=True)
    key = f"{principal_of(request).id}:{form.get('key', '')}"
    command = Refund(order_id=order_id, intent_id=intent_id, idempotency_key=key, overpaid=said.overpaid, reason=said.reason)
    return await act(request, form, command, done="The money goes back.", back=HERE)


@post("/attention/labels/{label_id:uuid}/decide", before_request=FINANCE)
async def decide_label(request: HttpRequest, label_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    said = read(form, LabelDecisionBody, outcome="failed")
    return await act(request, form, DecideLabel(label_id=label_id, evidence=said.evidence), done="Settled: it was not bought.", back=HERE)


ROUTES = [show_attention, decide, accept, give_back, decide_label]
