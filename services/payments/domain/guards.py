"""What may be asked of a payment: the states that allow it, and how much is left."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from services.payments.domain.intents import Intent, IntentStatus, Operation, Transaction, TransactionStatus, money_returned
from shared.errors import Invalid, Outcome, Refusal, Retry
from shared.refund_shares import RefundLine, given_back, owed_parts


class OperationInProgress(Refusal):
    """Another operation on this payment is under way; come back."""

    code = "operation-in-progress"
    title = "Another operation on this payment is under way"
    outcome = Outcome.CONFLICT
    retry = Retry.AFTER
    retry_after_seconds = 1


class OutcomeUnknown(Refusal):
    """The outcome of an earlier operation must be learnt first; come back."""

    code = "outcome-unknown"
    title = "The outcome of an earlier operation is not known yet"
    outcome = Outcome.CONFLICT
    retry = Retry.AFTER
    retry_after_seconds = 5


class KeyUsed(Refusal):
    """The idempotency key stands in the ledger with another amount."""

    code = "idempotency-key-reused"
    title = "This Idempotency-Key was used for another request"
    status = 422
    outcome = Outcome.CONFLICT


class ActivePayment(Refusal):
    """The order already has a payment under way."""

    code = "payment-already-active"
    title = "The order already has an active payment"
    outcome = Outcome.CONFLICT


def active_payment(intent: Intent) -> ActivePayment:
    """Say which payment is under way, and how it stands."""
    return ActivePayment(
        "End the active payment first, or go on with it.", {"intent_id": str(intent.id), "payment_status": intent.status.value}
    )


class WrongState(Refusal):
    """The payment's state does not allow this operation."""

    code = "invalid-payment-state"
    title = "The payment's state does not allow this"
    outcome = Outcome.CONFLICT


class AmountExceeded(Refusal):
    """More was asked than is there."""

    code = "amount-exceeds-available"
    title = "The amount is more than what is left"
    outcome = Outcome.CONFLICT


class UnsupportedByProvider(Refusal):
    """The provider cannot do this; nothing was written."""

    code = "unsupported-by-provider"
    title = "The payment provider cannot do this"
    status = 422


CAPTURABLE = frozenset({IntentStatus.AUTHORIZED, IntentStatus.PARTIALLY_CAPTURED, IntentStatus.PARTIALLY_REFUNDED})
REFUNDABLE = frozenset({IntentStatus.PARTIALLY_CAPTURED, IntentStatus.CAPTURED, IntentStatus.PARTIALLY_REFUNDED})
PAID_OR_HELD = frozenset({IntentStatus.AUTHORIZED, IntentStatus.PARTIALLY_CAPTURED, IntentStatus.CAPTURED})
VOIDABLE = frozenset(
    {
        IntentStatus.AUTHORIZED,
        IntentStatus.PARTIALLY_CAPTURED,
        IntentStatus.PARTIALLY_REFUNDED,
        IntentStatus.REQUIRES_ACTION,
        IntentStatus.CONFLICTED,
    }
)


def check_nothing_open(transactions: Sequence[Transaction]) -> None:
    """Refuse a second operation while one is under way; a refund that its provider has keeps nobody waiting, its amount is reserved."""
    for transaction in transactions:
        if transaction.open and not (transaction.awaiting_customer or transaction.accepted):
            facts = {
                "operation": transaction.operation.value,
                "transaction_id": str(transaction.id),
                "transaction_status": transaction.status.value,
            }
            if transaction.status is TransactionStatus.UNKNOWN:
                raise OutcomeUnknown(f"The outcome of a {transaction.operation.value} is being found out.", facts)
            raise OperationInProgress(f"A {transaction.operation.value} is under way.", facts)


def done_with_key(
    transactions: Sequence[Transaction], operation: Operation, key: str, amount: int | None, lines: tuple[RefundLine, ...] = ()
) -> Transaction | None:
    """Find what this key did, long after the gateway has forgotten it; refuses it for another amount or lines, and while it is not done."""
    for transaction in transactions:
        if transaction.operation is operation and transaction.idempotency_key == key:
            facts = {"transaction_id": str(transaction.id), "amount": transaction.amount}
            if (amount is not None and amount != transaction.amount) or lines != transaction.lines:
                raise KeyUsed("Take a new key for another request.", facts)
            if transaction.open:
                raise OperationInProgress(f"The {operation.value} of this key is under way.", facts)
            return transaction
    return None


def amount_to_capture(intent: Intent, amount: int | None, currency: str | None) -> int:
    """Decide what a capture takes: what was asked, or all that is left of what the order owes; refuses more than is held."""
    _check_not_free(intent, "captured")
    _check_state(intent, CAPTURABLE, "captured")
    if intent.superseded:
        raise WrongState("The order went on without this payment; it can only be voided.", _amounts(intent))
    owed = intent.requested_amount - intent.captured_amount - intent.capture_reserved
    if amount is None and 0 < owed < intent.capturable:
        amount = owed  # More is held than was asked for; whoever wants it says so.
    return _amount(intent, amount, currency, available=intent.capturable, verb="captured")


def amount_to_refund(intent: Intent, amount: int | None, currency: str | None) -> int:
    """Decide what a refund gives back: what was asked, or all that is left; refuses more."""
    _check_not_free(intent, "refunded")
    _check_state(intent, REFUNDABLE, "refunded")
    return _amount(intent, amount, currency, available=intent.refundable, verb="refunded")


def amount_of_lines(lines: Sequence[RefundLine], amount: int | None) -> int | None:
    """Decide what a refund gives back that names its lines: what they come to; refuses a line named twice, and another amount."""
    if not lines:
        return amount
    names = [each.line for each in lines]
    for n, name in enumerate(names):
        if name in names[:n]:
            raise Invalid(f"The line {name} is named twice.", {"field": f"$.lines[{n}].line"})
    total = sum(each.amount for each in lines)
    if amount not in (None, total):
        raise Invalid(f"The lines come to {total}, and the amount is {amount}.", {"field": "$.amount", "lines": total, "amount": amount})
    return total


def check_lines(intent: Intent, transactions: Sequence[Transaction], lines: Sequence[RefundLine], prices: Mapping[int | None, int]) -> None:
    """Refuse a line that the order does not have, and more of a line than it cost less what went back of it or is on its way."""
    settled = [msgspec.structs.replace(t, status=TransactionStatus.SUCCEEDED) if t.open else t for t in transactions]
    excess = max(0, intent.captured_amount - intent.requested_amount)
    gone = given_back(prices, owed_parts(money_returned(settled), excess=excess))
    for n, each in enumerate(lines):
        field = "$.shipping" if each.line is None else f"$.lines[{n}]"
        if each.line not in prices:
            raise Invalid("The order has no such line.", {"field": f"{field}.line" if each.line is not None else field, "line": each.line})
        left = prices[each.line] - gone[each.line]
        if each.amount > left:
            facts = {"field": field, "line": each.line, "requested": each.amount, "available": left, "currency": intent.currency}
            raise AmountExceeded(f"{each.amount} of a line was asked, {left} of it can be refunded.", facts)


def amount_to_give_back(intent: Intent, amount: int | None, currency: str | None) -> int:
    """Decide how much of what the order does not owe is given back, whatever the payment's state; refuses more."""
    available = min(intent.refundable, intent.overpaid_amount - intent.refund_reserved)
    return _amount(intent, amount, currency, available=max(0, available), verb="given back")


def amount_to_void(intent: Intent) -> int:
    """Decide what a void releases: all that is held and not captured."""
    _check_not_free(intent, "voided")
    _check_state(intent, VOIDABLE, "voided")
    if intent.status is not IntentStatus.REQUIRES_ACTION and intent.held == 0:
        raise WrongState("Nothing is held any more.", _amounts(intent))
    return intent.held


def check_confirmable(intent: Intent) -> None:
    """Refuse to go on with a payment that does not wait for its customer."""
    _check_state(intent, frozenset({IntentStatus.REQUIRES_ACTION}), "confirmed")


def _check_not_free(intent: Intent, verb: str) -> None:
    if intent.free:
        raise WrongState(f"There was nothing to pay, so there is nothing to be {verb}; cancel the order instead.", _amounts(intent))


def _check_state(intent: Intent, allowed: frozenset[IntentStatus], verb: str) -> None:
    if intent.status not in allowed:
        raise WrongState(f"A payment that is {intent.status.value} cannot be {verb}.", _amounts(intent))


def _amount(intent: Intent, amount: int | None, currency: str | None, *, available: int, verb: str) -> int:
    if currency is not None and currency != intent.currency:
        raise Invalid(f"The payment is in {intent.currency}, not {currency}.", {"field": "$.currency"})
    asked = available if amount is None else amount
    if asked <= 0 or asked > available:
        raise AmountExceeded(
            f"{asked} was asked, {available} can be {verb}.", {**_amounts(intent), "requested": asked, "available": available}
        )
    return asked


def _amounts(intent: Intent) -> dict[str, Any]:
    return {
        "payment_status": intent.status.value,
        "currency": intent.currency,
        "authorized": intent.authorized_amount,
        "captured": intent.captured_amount,
        "refunded": intent.refunded_amount,
        "voided": intent.voided_amount,
        "overpaid": intent.overpaid_amount,
    }
