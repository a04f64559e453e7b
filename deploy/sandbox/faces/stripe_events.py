"""What Stripe tells of a change, and how it signs it (docs.stripe.com/webhooks)."""

import hashlib
import hmac
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec

from deploy.sandbox.books import Dispute, Operation, Payment
from deploy.sandbox.faces.stripe_objects import Thing, charge, dispute, payment_intent, refund, status_of
from deploy.sandbox.faces.stripe_versions import EVENTS_OF_EVERY_REFUND, before, spoken
from deploy.sandbox.webhooks import Told


class StripeEvents:
    """Events as Stripe writes them, with a `Stripe-Signature`."""

    def event(self, event_id: str, kind: str, data: Any, at: str) -> bytes:
        """Write an event."""
        return msgspec.json.encode(
            {
                "id": event_id,
                "object": "event",
                "api_version": spoken(),
                "created": int(datetime.fromisoformat(at).timestamp()),
                "data": {"object": data},
                "livemode": False,
                "pending_webhooks": 1,
                "request": {"id": None, "idempotency_key": None},
                "type": kind,
            }
        )

    def headers(self, told: Told, secret: str) -> dict[str, str]:
        """Sign an event as of now."""
        timestamp = str(int(time.time()))
        signature = hmac.new(secret.encode(), f"{timestamp}.".encode() + told.body, hashlib.sha256).hexdigest()
        return {"Content-Type": "application/json; charset=utf-8", "Stripe-Signature": f"t={timestamp},v1={signature}"}


def events_of(kind: str, payment: Payment, changed: Operation | Dispute) -> Iterator[tuple[str, Thing]]:
    """Name the events of one change, each with its object as it is now."""
    if isinstance(changed, Dispute):
        yield f"charge.dispute.{kind.rpartition('.')[2]}", dispute(payment, changed)
        return
    operation = changed
    match kind:
        case "payment.authorize.succeeded":
            yield "charge.succeeded", charge(payment)
            yield "payment_intent.amount_capturable_updated", payment_intent(payment)
        case "payment.authorize.pending":
            action = operation.next_action is not None
            yield f"payment_intent.{'requires_action' if action else 'processing'}", payment_intent(payment)
        case "payment.authorize.declined":
            yield "charge.failed", charge(payment)
            yield "payment_intent.payment_failed", payment_intent(payment)
        case "payment.capture.succeeded":
            yield "charge.captured", charge(payment)
            yield from _payment_changed(payment)
        case "payment.void.succeeded":
            if operation.reason == "expired":
                yield "charge.expired", charge(payment)
            yield from _payment_changed(payment)
        case "payment.refund.succeeded" if operation.ended_at is not None:
            yield from _refund_changed(payment, operation, "refund.updated")
        case "payment.refund.succeeded" | "payment.refund.pending" | "payment.let_go.succeeded":
            if not before(EVENTS_OF_EVERY_REFUND):
                yield "refund.created", refund(payment, operation)
            yield "charge.refunded", charge(payment)
        case "payment.refund.failed" | "payment.refund.declined":
            yield from _refund_changed(payment, operation, "refund.failed", "refund.updated")
        case "payment.chargeback.succeeded" | "payment.chargeback_reversal.succeeded":
            moved = "withdrawn" if operation.kind == "chargeback" else "reinstated"
            for each in (d for d in payment.disputes if d.id == operation.dispute):
                yield f"charge.dispute.funds_{moved}", dispute(payment, each)


def _refund_changed(payment: Payment, operation: Operation, *names: str) -> Iterator[tuple[str, Thing]]:
    for name in () if before(EVENTS_OF_EVERY_REFUND) else names:
        yield name, refund(payment, operation)
    yield "charge.refund.updated", refund(payment, operation)


def _payment_changed(payment: Payment) -> Iterator[tuple[str, Thing]]:
    names = {"succeeded": "succeeded", "canceled": "canceled"}
    yield f"payment_intent.{names.get(status_of(payment), 'amount_capturable_updated')}", payment_intent(payment)
