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
_LATER = Advice("Try again later with a new key, or ask for another payment method.", Retry.NEW_METHOD)
_DATA = Advice("Have the customer check the card's data and enter them again.", Retry.NEW_METHOD)

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
    # In Stripe's words, which pass through (docs.stripe.com/declines/codes).
    **dict.fromkeys(("try_again_later", "issuer_not_available", "reenter_transaction", "approve_with_id"), _LATER),
    **dict.fromkeys(("card_velocity_exceeded", "withdrawal_count_limit_exceeded"), _LATER),
    **dict.fromkeys(("pickup_card", "restricted_card", "stop_payment_order", "merchant_blacklist"), _NOT_AGAIN),
    **dict.fromkeys(("revocation_of_authorization", "revocation_of_all_authorizations"), _NOT_AGAIN),
    **dict.fromkeys(("incorrect_number", "invalid_number", "invalid_expiry_month", "invalid_expiry_year", "incorrect_zip"), _DATA),
    "authentication_required": Advice("The bank wants to ask the customer: authorize again with a return_url.", Retry.NEW_METHOD),
    "call_issuer": Advice("The customer has to ask the card's bank, or take another payment method.", Retry.NEW_METHOD),
    "testmode_decline": Advice("The provider is in test mode and takes its test cards only.", Retry.NEW_METHOD),
}

# What the issuer itself advises, where it does (docs.stripe.com/declines/card#retrying-issuer-declines); it goes before ours.
ISSUERS_ADVICE: dict[str, Advice] = {"confirm_card_data": _DATA, "do_not_try_again": _NOT_AGAIN, "try_again_later": _LATER}


def declined(intent: Intent, transaction: Transaction) -> Problem:
    """Say that the provider said no, or that it was proven that nothing was executed."""
    code = transaction.decline_code or DeclineCode.GENERIC_DECLINE.value
    advice = ISSUERS_ADVICE.get(str(transaction.raw.get("advice_code")), ADVICE.get(code, _ANOTHER_METHOD))
    facts = {
        "decline_code": code,
        "advice": advice.text,
        "intent_id": str(intent.id),
        "transaction_id": str(transaction.id),
        "intent_status": intent.status.value,
        "provider": intent.provider,
    }
    if transaction.status is TransactionStatus.FAILED and not transaction.came_back:
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
    done = f"{transaction.operation.value} of {transaction.amount} was asked, {transaction.moved} was done"
    frozen = f"{intent.attention}; the payment is frozen until an operator has accepted that, or voided it."
    return Problem(
        code="provider-mismatch",
        title="The provider did something else than was asked",
        status=409,
        detail=frozen if intent.attention else f"{done}.",
        outcome=Outcome.CONFLICT,
        retry=Retry.NEVER,
        facts={"intent_id": str(intent.id), "transaction_id": str(transaction.id), "intent_status": intent.status.value},
    )
