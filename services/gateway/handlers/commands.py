"""What the gateway itself can carry out, beside what it sends to the services; kept with the key, never on the bus."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts import credentials, dead_letters, payments, reconciler, settlements, webhooks
from shared.contracts.fulfillment import pricing, shipping, tax
from shared.contracts.payments import IntentView
from shared.messages import Environment, Message, type_of


class SubmitPayment(Message, frozen=True, kw_only=True, tag="gateway.submit_payment.v1"):
    """Quote if needed, authorize and capture, each as an operation of its own."""

    order_id: UUID
    payment_method: str
    snapshot_id: UUID | None = None
    amount: int | None = None
    currency: str | None = None
    return_url: str | None = None


class MakeCheckoutToken(Message, frozen=True, kw_only=True, tag="gateway.make_checkout_token.v1"):
    """Make a token that lets a shopper's browser pay one order."""

    order_id: UUID


class MakeCustomerToken(Message, frozen=True, kw_only=True, tag="gateway.make_customer_token.v1"):
    """Make a token that lets a customer read their own orders."""

    customer_id: UUID


class SubmitResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a submitted payment ended; authorized and not captured is a result of its own, never a failure."""

    result: str
    intent: IntentView
    operations: dict[str, UUID]
    capture_problem: dict[str, Any] | None = None


class RevokeKey(Message, frozen=True, kw_only=True, tag="gateway.revoke_key.v1"):
    """Let an API key open nothing any more."""

    key_id: UUID


class TokenView(msgspec.Struct, frozen=True, kw_only=True):
    """A fresh token and until when it is good."""

    token: str
    expires_at: datetime
    environment: Environment
    order_id: UUID | None = None
    customer_id: UUID | None = None


# With what an operation that was carried out is answered.
SUCCESS_STATUS: dict[str, int] = {
    type_of(payments.PutOrder): 200,
    type_of(payments.Quote): 201,
    type_of(payments.ShopRates): 200,
    type_of(payments.Authorize): 201,
    type_of(payments.Confirm): 200,
    type_of(payments.Capture): 201,
    type_of(payments.Void): 201,
    type_of(payments.Refund): 201,
    type_of(payments.AcceptFacts): 200,
    type_of(payments.DecideOutcome): 200,
    type_of(webhooks.Replay): 201,
    type_of(webhooks.ReplayMany): 201,
    type_of(webhooks.PutEndpoint): 200,
    type_of(webhooks.DeleteEndpoint): 200,
    type_of(webhooks.RotateSecret): 200,
    type_of(webhooks.Redeliver): 200,
    type_of(webhooks.RecoverDeliveries): 200,
    type_of(pricing.PutSettings): 200,
    type_of(tax.PutRule): 200,
    type_of(tax.DeleteRule): 200,
    type_of(tax.PutNexus): 200,
    type_of(tax.DeleteNexus): 200,
    type_of(tax.PutExemption): 200,
    type_of(tax.DeleteExemption): 200,
    type_of(tax.FinalizeTax): 200,
    type_of(shipping.BuyLabel): 201,
    type_of(shipping.DecideLabel): 200,
    type_of(shipping.VoidLabel): 200,
    type_of(reconciler.StartRun): 201,
    type_of(reconciler.ResolveDrift): 200,
    type_of(dead_letters.RetryLetter): 200,
    type_of(dead_letters.EditLetter): 200,
    type_of(dead_letters.DiscardLetter): 200,
    type_of(dead_letters.StartRedrive): 201,
    type_of(dead_letters.StopRedrive): 200,
    type_of(settlements.ImportSettlements): 200,
    **{type_of(kind): 200 for told in credentials.TOLD.values() for kind in (told.put, told.retire, told.verify)},
    type_of(SubmitPayment): 201,
    type_of(MakeCheckoutToken): 201,
    type_of(MakeCustomerToken): 201,
    type_of(RevokeKey): 200,
}

# Answers that are stored without their signature.
TOKEN_TYPES = frozenset({type_of(MakeCheckoutToken), type_of(MakeCustomerToken)})
# Answers that hold a token or a signing secret.
SECRET_TYPES = TOKEN_TYPES | {type_of(webhooks.PutEndpoint), type_of(webhooks.RotateSecret)}
