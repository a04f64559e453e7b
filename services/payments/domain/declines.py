"""Declines: what a bank's no means, and what the shopper's backend should do about it."""

from enum import StrEnum

import msgspec

from services.payments.domain.intents import Intent, Operation, Transaction, TransactionStatus
from shared.errors import Outcome, Problem, Retry


class DeclineCode(StrEnum):
    """The common reasons, in the words most providers use (docs.stripe.com/declines/codes)."""

    INSUFFICIENT_FUNDS = "insufficient_funds"
    DO_NOT_HONOR = "do_not_honor"
    GENERIC_DECLINE = "generic_decline"
    EXPIRED_CARD = "expired_card"
    INCORRECT_CVC = "incorrect_cvc"
    LOST_CARD = "lost_card"
    STOLEN_CARD = "stolen_card"
    FRAUDULENT = "fraudulent"
    CARD_NOT_SUPPORTED = "card_not_supported"
    AUTHENTICATION_FAILED = "authentication_failed"
    PROCESSING_ERROR = "processing_error"
    REFUND_DECLINED = "refund_declined"
    CAPTURE_DECLINED = "capture_declined"


class Advice(msgspec.Struct, frozen=True):
    """What to tell the customer, and whether another try makes sense."""

    text: str
    retry: Retry


_ANOTHER_METHOD = Advice("Ask for another payment method.", Retry.NEW_METHOD)
_NOT_AGAIN = Advice("Do not try this payment method again.", Retry.NEW_METHOD)

ADVICE: dict[str, Advice] = {
    DeclineCode.INSUFFICIENT_FUNDS: Advice("Ask for another payment method, or try later with a new key.", Retry.NEW_METHOD),
    DeclineCode.LOST_CARD: _NOT_AGAIN,
    DeclineCode.STOLEN_CARD: _NOT_AGAIN,
    DeclineCode.FRAUDULENT: _NOT_AGAIN,
    DeclineCode.INCORRECT_CVC: Advice("Have the customer enter the security code again.", Retry.NEW_METHOD),
    DeclineCode.EXPIRED_CARD: Advice("Have the customer enter a card that is valid.", Retry.NEW_METHOD),
    DeclineCode.AUTHENTICATION_FAILED: Advice("The customer did not pass the bank's check; let them try again.", Retry.NEW_METHOD),
    DeclineCode.PROCESSING_ERROR: Advice("The bank could not process it; try again with a new key.", Retry.NEW_METHOD),
    DeclineCode.REFUND_DECLINED: Advice("The provider refused the refund; look at its dashboard.", Retry.NEVER),
    DeclineCode.CAPTURE_DECLINED: Advice("The provider refused the capture; the authorization stands.", Retry.NEVER),
}


def declined(intent: Intent, transaction: Transaction) -> Problem:
    """Say that the provider said no, or that it was proven that nothing was executed."""
    code = transaction.decline_code or DeclineCode.GENERIC_DECLINE.value
    advice = ADVICE.get(code, _ANOTHER_METHOD)
    facts = {
        "decline_code": code,
        "advice": advice.text,
        "intent_id": str(intent.id),
        "transaction_id": str(transaction.id),
        "intent_status": intent.status.value,
        "provider": intent.provider,
    }
    if transaction.status is TransactionStatus.FAILED:
        return Problem(
            code="payment-not-executed",
            title="The operation was not executed",
            status=409,
            detail=f"It is proven that the {transaction.operation.value} was not executed ({code}).",
            outcome=Outcome.DECLINED,
            retry=Retry.NEVER,
            facts=facts,
        )
    retry = advice.retry if transaction.operation is Operation.AUTHORIZE else Retry.NEVER
    return Problem(
        code="payment-declined",
        title="The payment provider declined",
        status=402,
        detail=f"The {transaction.operation.value} was declined: {code.replace('_', ' ')}.",
        outcome=Outcome.DECLINED,
        retry=retry,
        facts=facts,
    )


def conflicted(intent: Intent, transaction: Transaction) -> Problem:
    """Say that the provider did something else than was asked, and that an operator must look."""
    return Problem(
        code="provider-mismatch",
        title="The provider did something else than was asked",
        status=409,
        detail=f"{intent.attention}; the payment is frozen until an operator has looked.",
        outcome=Outcome.CONFLICT,
        retry=Retry.NEVER,
        facts={"intent_id": str(intent.id), "transaction_id": str(transaction.id), "intent_status": intent.status.value},
    )
