"""The magic tokens: what the sandbox does for each payment method, one row each."""

from enum import StrEnum
from typing import Any

import msgspec


class Act(StrEnum):
    """How one operation is carried out and answered."""

    SUCCEED = "succeed"
    DECLINE = "decline"
    REQUIRE_ACTION = "require_action"
    SLOW = "slow"
    FAIL_ONCE = "fail_once"
    SUCCEED_SILENTLY = "succeed_silently"
    SILENT = "silent"
    SILENT_ONCE = "silent_once"
    PARTIAL = "partial"
    BUSY_ONCE = "busy_once"
    PENDING = "pending"
    SUCCEED_LATER = "succeed_later"
    FAIL_LATER = "fail_later"


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """What a payment method does at each step, and what it means."""

    about: str
    authorize: Act = Act.SUCCEED
    # Nothing where the bank's page decides.
    confirm: Act | None = None
    capture: Act = Act.SUCCEED
    void: Act = Act.SUCCEED
    refund: Act = Act.SUCCEED
    decline_code: str = "generic_decline"
    authorization_lifetime_seconds: float = 7 * 24 * 3600
    # How long what succeeds or fails later takes.
    later_seconds: float = 2.0
    disputed: bool = False


DECLINE_CODES = (
    "insufficient_funds",
    "do_not_honor",
    "generic_decline",
    "expired_card",
    "incorrect_cvc",
    "lost_card",
    "stolen_card",
    "fraudulent",
    "card_not_supported",
    "processing_error",
)

TOKENS: dict[str, Behaviour] = {
    "tok_success": Behaviour(about="Everything succeeds."),
    **{
        f"tok_declined_{code}": Behaviour(about=f"Authorize is declined: {code}.", authorize=Act.DECLINE, decline_code=code)
        for code in DECLINE_CODES
    },
    "tok_3ds": Behaviour(about="The customer must act (3DS); the sandbox's page decides.", authorize=Act.REQUIRE_ACTION),
    "tok_3ds_passed": Behaviour(
        about="The customer must act; confirming succeeds without the page.", authorize=Act.REQUIRE_ACTION, confirm=Act.SUCCEED
    ),
    "tok_3ds_timeout": Behaviour(
        about="The customer must act; confirming succeeds without the page, but its answer never comes in time.",
        authorize=Act.REQUIRE_ACTION,
        confirm=Act.SUCCEED_SILENTLY,
    ),
    "tok_3ds_failed": Behaviour(
        about="The customer must act; confirming is declined.",
        authorize=Act.REQUIRE_ACTION,
        confirm=Act.DECLINE,
        decline_code="authentication_failed",
    ),
    "tok_slow": Behaviour(about="Authorize takes a second, then succeeds.", authorize=Act.SLOW),
    "tok_500_once": Behaviour(about="Authorize answers 500 once without doing anything, then succeeds.", authorize=Act.FAIL_ONCE),
    "tok_429_once": Behaviour(about="Authorize answers 429 with Retry-After once, then succeeds.", authorize=Act.BUSY_ONCE),
    "tok_timeout_after_success": Behaviour(
        about="Authorize happens, but its answer comes after every time-out.", authorize=Act.SUCCEED_SILENTLY
    ),
    "tok_timeout_once": Behaviour(
        about="Authorize does not happen and is not answered, once; then it succeeds.", authorize=Act.SILENT_ONCE
    ),
    "tok_silent": Behaviour(about="Authorize never happens and is never answered.", authorize=Act.SILENT),
    "tok_pending": Behaviour(about="Authorize is pending at the bank until the control endpoint settles it.", authorize=Act.PENDING),
    "tok_partial_approval": Behaviour(about="Half of the amount is approved.", authorize=Act.PARTIAL),
    "tok_authorization_expires": Behaviour(about="The authorization lapses after two seconds.", authorization_lifetime_seconds=2),
    "tok_dispute": Behaviour(about="The customer disputes the first capture: a chargeback follows it.", disputed=True),
    "tok_capture_declined": Behaviour(
        about="Authorize succeeds, capture is declined.", capture=Act.DECLINE, decline_code="capture_declined"
    ),
    "tok_capture_500_once": Behaviour(about="Capture answers 500 once, then succeeds.", capture=Act.FAIL_ONCE),
    "tok_capture_timeout": Behaviour(about="Capture happens, but its answer never comes in time.", capture=Act.SUCCEED_SILENTLY),
    "tok_capture_slow": Behaviour(about="Capture takes a second, then succeeds.", capture=Act.SLOW),
    "tok_void_timeout": Behaviour(about="Void happens, but its answer never comes in time.", void=Act.SUCCEED_SILENTLY),
    "tok_refund_declined": Behaviour(about="Refund is declined.", refund=Act.DECLINE, decline_code="refund_declined"),
    "tok_refund_pending": Behaviour(about="Refund stays pending until the control endpoint settles it.", refund=Act.PENDING),
    "tok_refund_succeeds_later": Behaviour(about="Refund is pending and succeeds two seconds later.", refund=Act.SUCCEED_LATER),
    "tok_refund_fails_later": Behaviour(
        about="Refund succeeds, and fails two seconds later.", refund=Act.FAIL_LATER, decline_code="expired_or_canceled_card"
    ),
    "tok_refund_500_once": Behaviour(about="Refund answers 500 once, then succeeds.", refund=Act.FAIL_ONCE),
    "tok_refund_timeout": Behaviour(about="Refund happens, but its answer never comes in time.", refund=Act.SUCCEED_SILENTLY),
}


# The payment methods that Stripe has for tests (docs.stripe.com/testing), as far as they differ in what happens.
STRIPE_METHODS: dict[str, Behaviour] = {
    **{f"pm_card_{brand}": TOKENS["tok_success"] for brand in ("visa", "mastercard", "amex")},
    "pm_card_visa_chargeDeclined": TOKENS["tok_declined_generic_decline"],
    "pm_card_visa_chargeDeclinedInsufficientFunds": TOKENS["tok_declined_insufficient_funds"],
    "pm_card_visa_chargeDeclinedLostCard": TOKENS["tok_declined_lost_card"],
    "pm_card_visa_chargeDeclinedStolenCard": TOKENS["tok_declined_stolen_card"],
    "pm_card_chargeDeclinedExpiredCard": TOKENS["tok_declined_expired_card"],
    "pm_card_chargeDeclinedIncorrectCvc": TOKENS["tok_declined_incorrect_cvc"],
    "pm_card_chargeDeclinedProcessingError": TOKENS["tok_declined_processing_error"],
    "pm_card_chargeDeclinedFraudulent": TOKENS["tok_declined_fraudulent"],
    "pm_card_threeDSecure2Required": TOKENS["tok_3ds"],
    "pm_card_createDispute": TOKENS["tok_dispute"],
    # Cards 4000000000007726 and 4000000000005126.
    "pm_card_pendingRefund": TOKENS["tok_refund_succeeds_later"],
    "pm_card_refundFail": TOKENS["tok_refund_fails_later"],
}

METHODS: dict[str, Behaviour] = {**TOKENS, **STRIPE_METHODS}


def behaviour_at(method: Any, kind: str) -> Act:
    """Tell how a payment method behaves at a step."""
    behaviour = METHODS.get(str(method))
    act: Act | None = None if behaviour is None else getattr(behaviour, kind)
    return act or Act.SUCCEED
