"""Stripe's objects, written from the sandbox's books (shapes: stripe/openapi, fixtures of 2026-08-21, MIT)."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from deploy.sandbox.books import Dispute, Operation, Payment
from deploy.sandbox.faces.stripe_versions import LATEST_CHARGE, NO_REFUND_OF_THE_REST, before
from deploy.sandbox.tokens import DECLINE_CODES

REFUNDS_SHOWN_MAX = 10
# Declines whose code says it all; of the others the code is card_declined (docs.stripe.com/error-codes).
CODES_OF_THEIR_OWN = frozenset({"expired_card", "incorrect_cvc", "processing_error", "authentication_required"})

# What has a Refund object: what was given back, and in old versions what was held and let go.
REFUNDS = frozenset({"refund", "let_go"})
REFUND_REASONS = frozenset({"duplicate", "expired_uncaptured_charge", "fraudulent", "requested_by_customer"})
TRANSACTION = "txn_"

Thing = dict[str, Any]


def status_of(payment: Payment) -> str:
    """Tell where a PaymentIntent stands."""
    authorization = next((o for o in payment.operations if o.kind == "authorize"), None)
    if payment.released and payment.moved("capture") == 0:
        return "canceled"
    if authorization is None:
        return "requires_confirmation" if payment.payment_method else "requires_payment_method"
    if authorization.status == "pending":
        return "requires_action" if authorization.next_action else "processing"
    if authorization.status != "succeeded":
        return "requires_payment_method"
    return "succeeded" if payment.moved("capture") > 0 and payment.held <= 0 else "requires_capture"


def payment_intent(payment: Payment) -> Thing:
    """Write a PaymentIntent."""
    written = _payment_intent(payment)
    if before(LATEST_CHARGE):
        del written["latest_charge"]
        charges = [charge(payment)] if attempted(payment) else []
        written["charges"] = {"object": "list", "data": charges, "has_more": False, "url": f"/v1/charges?payment_intent={payment.id}"}
    return written


def _payment_intent(payment: Payment) -> Thing:
    status = status_of(payment)
    released = next((o for o in payment.operations if o.kind == "void" and o.status == "succeeded"), None)
    return {
        "id": payment.id,
        "object": "payment_intent",
        "amount": payment.amount,
        "amount_capturable": max(0, payment.held),
        "amount_details": {"tip": {}},
        "amount_received": payment.moved("capture"),
        "application": None,
        "application_fee_amount": None,
        "automatic_payment_methods": None,
        "canceled_at": seconds(released.created_at) if status == "canceled" and released else None,
        "cancellation_reason": _cancellation_reason(released) if status == "canceled" and released else None,
        "capture_method": payment.capture_method,
        "client_secret": f"{payment.id}_secret_sandbox",
        "confirmation_method": "automatic",
        "created": seconds(payment.created_at),
        "currency": payment.currency,
        "customer": None,
        "description": None,
        "last_payment_error": last_error(payment),
        "latest_charge": charge_id(payment) if attempted(payment) else None,
        "livemode": False,
        "metadata": payment.metadata,
        "next_action": _next_action(payment),
        "on_behalf_of": None,
        "payment_method": payment.payment_method if status != "requires_payment_method" else None,
        "payment_method_options": {"card": {"request_three_d_secure": "automatic"}},
        "payment_method_types": ["card"],
        "processing": None,
        "receipt_email": None,
        "review": None,
        "setup_future_usage": None,
        "shipping": None,
        "source": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": status,
        "transfer_data": None,
        "transfer_group": None,
    }


def charge(payment: Payment) -> Thing:
    """Write the charge of a payment that was tried; its refunds come only when asked for."""
    authorization = next(o for o in payment.operations if o.kind == "authorize")
    succeeded = authorization.status == "succeeded"
    captured, let_go, refunded = payment.moved("capture"), payment.moved("let_go"), payment.moved("refund")
    expires = payment.authorization_expires_at
    canceled = status_of(payment) == "canceled"
    return {
        "id": charge_id(payment),
        "object": "charge",
        "amount": payment.amount,
        "amount_captured": None if canceled and before(NO_REFUND_OF_THE_REST) else captured,
        "amount_refunded": refunded + let_go,
        "application": None,
        "application_fee": None,
        "application_fee_amount": None,
        "balance_transaction": f"{TRANSACTION}{_bare(payment.id)}" if captured else None,
        "billing_details": {"address": None, "email": None, "name": None, "phone": None, "tax_id": None},
        "calculated_statement_descriptor": None,
        "captured": captured > 0,
        "created": seconds(authorization.created_at),
        "currency": payment.currency,
        "customer": None,
        "description": None,
        "disputed": bool(payment.disputes),
        "failure_balance_transaction": None,
        "failure_code": None if succeeded else _code(authorization),
        "failure_message": None if succeeded else "Your card was declined.",
        "fraud_details": {},
        "livemode": False,
        "metadata": payment.metadata,
        "on_behalf_of": None,
        "outcome": {
            "advice_code": None if succeeded else _advice(authorization),
            "network_status": "approved_by_network" if succeeded else "declined_by_network",
            "reason": authorization.decline_code,
            "type": "authorized" if succeeded else "issuer_declined",
        },
        "paid": succeeded,
        "payment_intent": payment.id,
        "payment_method": payment.payment_method,
        "payment_method_details": {
            "card": {
                "brand": "visa",
                "capture_before": seconds(expires) if expires and payment.capture_method == "manual" else None,
                "country": "US",
                "exp_month": 8,
                "exp_year": 2034,
                "last4": "4242",
                "multicapture": {"status": "available" if payment.multicapture else "unavailable"},
                "network": "visa",
            },
            "type": "card",
        },
        "receipt_email": None,
        "receipt_number": None,
        "receipt_url": None,
        "refunded": refunded + let_go >= payment.amount if let_go else refunded >= captured > 0,
        **({"refunds": refunds_of(payment)} if before(LATEST_CHARGE) else {}),
        "review": None,
        "shipping": None,
        "source": None,
        "source_transfer": None,
        "statement_descriptor": None,
        "statement_descriptor_suffix": None,
        "status": "succeeded" if succeeded else "failed",
        "transfer_data": None,
        "transfer_group": None,
    }


def refunds_of(payment: Payment, *, rows_max: int = REFUNDS_SHOWN_MAX) -> Thing:
    """Write the list of a charge's refunds, the newest first."""
    rows = [refund(payment, o) for o in reversed(payment.operations) if o.kind in REFUNDS]
    url = f"/v1/charges/{charge_id(payment)}/refunds"
    return {"object": "list", "data": rows[:rows_max], "has_more": len(rows) > rows_max, "url": url}


def refund(payment: Payment, operation: Operation) -> Thing:
    """Write a refund: what the account's owner cancelled is canceled, all else that came to nothing failed."""
    failed = operation.status in ("declined", "failed")
    status = {"declined": "failed", "failed": "canceled" if operation.decline_code == "merchant_request" else "failed"}
    # A pending one of a card waits for a balance that covers it (docs.stripe.com/refunds).
    pending = {"pending_reason": "insufficient_funds"} if operation.status == "pending" else {}
    return {
        "id": f"re_{_bare(operation.id)}",
        "object": "refund",
        "amount": operation.amount,
        "balance_transaction": None,
        "charge": charge_id(payment),
        "created": seconds(operation.created_at),
        "currency": payment.currency,
        "customer": None,
        "destination_details": {"card": {"type": "refund"}, "type": "card"},
        **({"failure_balance_transaction": f"txn_{_bare(operation.id)}", "failure_reason": operation.decline_code} if failed else {}),
        "metadata": operation.metadata,
        "payment_intent": payment.id,
        "payment_method": None,
        **pending,
        "reason": operation.reason if operation.reason in REFUND_REASONS else None,
        "receipt_number": None,
        "source_transfer_reversal": None,
        "status": status.get(operation.status, operation.status),
        "transfer_reversal": None,
    }


def balance_transaction(payment: Payment) -> Thing:
    """Write what a charge brought: with a Refund of what was let go it brought all that was held, else what was captured."""
    captured = next(o for o in payment.operations if o.kind == "capture" and o.status == "succeeded")
    amount = payment.moved("authorize") if payment.moved("let_go") else payment.moved("capture")
    return {
        "id": f"{TRANSACTION}{_bare(payment.id)}",
        "object": "balance_transaction",
        "amount": amount,
        "available_on": seconds(captured.created_at),
        "balance_type": "payments",
        "created": seconds(captured.created_at),
        "currency": payment.currency,
        "description": None,
        "exchange_rate": None,
        "fee": 0,
        "fee_details": [],
        "net": amount,
        "reporting_category": "charge",
        "source": charge_id(payment),
        "status": "pending",
        "type": "charge",
    }


def dispute(payment: Payment, disputed: Dispute) -> Thing:
    """Write a dispute with what it took and gave back."""
    inquiry = disputed.status.startswith("warning_")
    return {
        "id": disputed.id,
        "object": "dispute",
        "amount": disputed.amount,
        "balance_transactions": [_moved(payment, disputed, each) for each in payment.of(disputed)],
        "charge": charge_id(payment),
        "created": seconds(disputed.created_at),
        "currency": payment.currency,
        "enhanced_eligibility_types": [],
        "evidence": {},
        "evidence_details": {"due_by": None, "has_evidence": False, "past_due": False, "submission_count": 0},
        "is_charge_refundable": inquiry,
        "livemode": False,
        "metadata": {},
        "payment_intent": payment.id,
        "payment_method_details": {
            "card": {"brand": "visa", "case_type": "inquiry" if inquiry else "chargeback", "network_reason_code": "10.4"},
            "type": "card",
        },
        "reason": "fraudulent",
        "status": disputed.status,
    }


def _moved(payment: Payment, disputed: Dispute, operation: Operation) -> Thing:
    back = operation.kind == "chargeback_reversal"
    return {
        "id": f"txn_{_bare(operation.id)}",
        "object": "balance_transaction",
        "amount": operation.amount if back else -operation.amount,
        "available_on": seconds(operation.created_at),
        "balance_type": "payments",
        "created": seconds(operation.created_at),
        "currency": payment.currency,
        "description": f"Chargeback {'reversal' if back else 'withdrawal'} for {charge_id(payment)}",
        "exchange_rate": None,
        "fee": 0,
        "fee_details": [],
        "net": operation.amount if back else -operation.amount,
        "reporting_category": "dispute_reversal" if back else "dispute",
        "source": disputed.id,
        "status": "available",
        "type": "adjustment",
    }


def last_error(payment: Payment) -> Thing | None:
    """Write why the last attempt failed."""
    failed = next((o for o in payment.operations if o.kind == "authorize" and o.status == "declined"), None)
    if failed is None:
        return None
    return {
        "type": "card_error",
        "code": _code(failed),
        "decline_code": failed.decline_code,
        "advice_code": _advice(failed),
        "message": "Your card was declined.",
        "charge": charge_id(payment),
        "payment_method": {"id": payment.payment_method, "object": "payment_method", "type": "card"},
    }


def attempted(payment: Payment) -> bool:
    """Tell whether there is a charge: an attempt that the bank has answered."""
    return any(o.kind == "authorize" and o.status in ("succeeded", "declined") for o in payment.operations)


def charge_id(payment: Payment) -> str:
    """Name a payment's charge."""
    return f"ch_{_bare(payment.id)}"


def expanded(thing: Thing, payment: Payment, paths: Sequence[str]) -> Thing:
    """Put whole objects where their ids are, as `expand` asks."""
    for path in paths:
        _expand(thing, payment, path.split("."))
    return thing


def _expand(thing: Thing, payment: Payment, path: list[str]) -> None:
    field, *deeper = path
    whole: Thing | None = None
    if field in ("latest_charge", "charge") and thing.get(field):
        whole = thing[field] if isinstance(thing[field], dict) else charge(payment)
    elif field == "payment_intent" and thing.get(field):
        whole = thing[field] if isinstance(thing[field], dict) else payment_intent(payment)
    elif field == "refunds" and thing.get("object") == "charge":
        whole = refunds_of(payment)
    if whole is None:
        return
    thing[field] = whole
    if deeper:
        _expand(whole, payment, deeper)


def seconds(moment: str) -> int:
    """Write a moment as Stripe does, in whole seconds."""
    return int(datetime.fromisoformat(moment).timestamp())


def _bare(identifier: str) -> str:
    return identifier.split("_", 1)[1]


def _code(operation: Operation) -> str:
    decline = operation.decline_code or ""
    if decline in CODES_OF_THEIR_OWN:
        return decline
    return "card_declined" if decline in DECLINE_CODES else "payment_intent_authentication_failure"


def _advice(operation: Operation) -> str | None:
    return "do_not_try_again" if operation.decline_code in ("lost_card", "stolen_card", "fraudulent") else None


def _cancellation_reason(released: Operation) -> str | None:
    if released.reason == "expired" and before(NO_REFUND_OF_THE_REST):
        return "automatic"
    return released.reason or None


def _next_action(payment: Payment) -> Thing | None:
    action = next((o.next_action for o in payment.operations if o.kind == "authorize" and o.status == "pending"), None)
    if action is None:
        return None
    return {"type": "redirect_to_url", "redirect_to_url": {"url": action["url"], "return_url": payment.return_url}}
