"""Reading Stripe's objects: what a PaymentIntent, a Refund or a Dispute says of each of our operations.

Stripe names refunds and disputes, but neither captures nor cancellations. So each capture of ours writes its reference into
the PaymentIntent's metadata by the very call that takes the money: `cap_<reference in hex>` = the amount, and `final` when it
let go of the rest. What was received beyond those was captured elsewhere; a cancellation bears the id of its PaymentIntent.
"""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.declines import DeclineCode
from services.payments.domain.intents import Observation, Operation, Reason, TransactionStatus
from services.payments.providers import ProviderTransaction
from services.payments.providers.stripe.amounts import from_stripe
from shared.contracts.payments import NextAction

REFERENCE = "tender_reference"
ORDER = "tender_order"
REASON = "tender_reason"
CAPTURE_PREFIX = "cap_"
FINAL = "final"

# In our words where Stripe has others; all its other codes are passed on as they are (docs.stripe.com/declines/codes).
DECLINE_CODES = {
    "payment_intent_authentication_failure": DeclineCode.AUTHENTICATION_FAILED.value,
    "card_declined": DeclineCode.GENERIC_DECLINE.value,
    "invalid_cvc": DeclineCode.INCORRECT_CVC.value,
}
LAPSED = frozenset({"automatic", "expired"})


class PaymentError(msgspec.Struct, frozen=True, kw_only=True):
    """Why an attempt failed."""

    type: str = ""
    code: str | None = None
    decline_code: str | None = None
    advice_code: str | None = None
    message: str | None = None

    @property
    def reason(self) -> str:
        """Say why in one word: the issuer's where there is one."""
        code = self.decline_code or self.code or DeclineCode.GENERIC_DECLINE.value
        return DECLINE_CODES.get(code, code)


class Refund(msgspec.Struct, frozen=True, kw_only=True):
    """An amount given back; `pending` and `requires_action` are not yet, `failed` and `canceled` never were."""

    id: str
    amount: int
    currency: str
    created: int = 0
    status: str | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None
    reason: str | None = None
    failure_reason: str | None = None


class Refunds(msgspec.Struct, frozen=True):
    """The first refunds of a charge."""

    data: list[Refund]
    has_more: bool = False


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A cardholder's objection; once it is more than an inquiry the money is gone until it is won."""

    id: str
    amount: int
    currency: str
    status: str
    created: int = 0
    payment_intent: str | None = None
    reason: str = ""


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to take the money."""

    id: str
    status: str = ""
    disputed: bool = False
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None
    payment_method_details: dict[str, Any] | None = None
    refunds: Refunds | None = None


class RedirectToUrl(msgspec.Struct, frozen=True):
    """Where the customer must go."""

    url: str | None = None


class Action(msgspec.Struct, frozen=True, kw_only=True):
    """What the customer must do."""

    type: str
    redirect_to_url: RedirectToUrl | None = None


class PaymentIntent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment; `latest_charge` is its id where it was not asked to be expanded."""

    id: str
    amount: int
    currency: str
    status: str
    created: int
    amount_received: int = 0
    metadata: dict[str, str] | None = None
    latest_charge: str | Charge | None = None
    last_payment_error: PaymentError | None = None
    next_action: Action | None = None
    cancellation_reason: str | None = None

    @property
    def reference(self) -> UUID | None:
        """Give the id of the transaction of ours that made it."""
        return _reference(self.metadata)

    @property
    def charge(self) -> Charge | None:
        """Give its last attempt where it was expanded."""
        return self.latest_charge if isinstance(self.latest_charge, Charge) else None


def transaction(
    intent: PaymentIntent, *, refunds: Sequence[Refund] | None = None, disputes: Sequence[Dispute] = (), void: UUID | None = None
) -> ProviderTransaction:
    """Read all that a payment shows, in the order it happened as far as that can be told.

    Lists come from Stripe with the newest first. `void` is ours that was to end the payment, which Stripe has no place to note.
    """
    charge = intent.charge
    if refunds is None:
        refunds = charge.refunds.data if charge is not None and charge.refunds is not None else ()
    return ProviderTransaction(
        provider_payment_id=intent.id,
        reference=intent.reference,
        observations=(
            *_authorization(intent),
            *_captures(intent),
            *_release(intent, void),
            *_returned(refunds, disputes),
        ),
        created_at=datetime.fromtimestamp(intent.created, UTC),
    )


def _returned(refunds: Sequence[Refund], disputes: Sequence[Dispute]) -> Iterator[Observation]:
    moments: list[tuple[int, tuple[Observation, ...]]] = [(refund.created, (refund_observed(refund),)) for refund in reversed(refunds)]
    moments += [(dispute.created, tuple(_lost(dispute))) for dispute in reversed(disputes)]
    for _, observations in sorted(moments, key=lambda moment: moment[0]):
        yield from observations
    # When a dispute was won it does not say; it takes months.
    for dispute in reversed(disputes):
        if dispute.status == "won":
            yield _disputed(dispute, Operation.CHARGEBACK_REVERSAL)


def _authorization(intent: PaymentIntent) -> Iterator[Observation]:
    seen = _authorized(intent)
    if seen is None:
        return
    status, decline_code = seen
    error = intent.last_payment_error
    yield Observation(
        operation=Operation.AUTHORIZE,
        status=status,
        amount=from_stripe(intent.amount, intent.currency.upper()),
        currency=intent.currency.upper(),
        provider_payment_id=intent.id,
        provider_txn_id=intent.id,
        reference=intent.reference,
        decline_code=decline_code,
        next_action=_next_action(intent) if status is TransactionStatus.PENDING else None,
        authorization_expires_at=_capture_before(intent.charge),
        raw={
            "status": intent.status,
            "charge": intent.charge.id if intent.charge is not None else intent.latest_charge,
            **({"code": error.code, "advice_code": error.advice_code} if error is not None else {}),
        },
    )


def _authorized(intent: PaymentIntent) -> tuple[TransactionStatus, str | None] | None:
    """Tell how the authorization stands; nothing where the object alone does not say."""
    match intent.status:
        case "requires_capture" | "succeeded":
            return TransactionStatus.SUCCEEDED, None
        case "requires_payment_method" if intent.last_payment_error is not None:
            return TransactionStatus.DECLINED, intent.last_payment_error.reason
        case "canceled" if intent.charge is not None and intent.charge.status == "succeeded":
            return TransactionStatus.SUCCEEDED, None
        case "canceled" if intent.last_payment_error is not None:
            return TransactionStatus.DECLINED, intent.last_payment_error.reason
        case "canceled" if intent.latest_charge is None:
            return TransactionStatus.FAILED, "released"
        case "canceled":
            return None
        case _:
            return TransactionStatus.PENDING, None


def _captures(intent: PaymentIntent) -> Iterator[Observation]:
    left = intent.amount_received
    metadata = intent.metadata or {}
    for key in sorted(k for k in metadata if k.startswith(CAPTURE_PREFIX)):
        amount = int(metadata[key].split()[0])
        if amount <= left:
            left -= amount
            yield _capture(intent, amount, key.removeprefix(CAPTURE_PREFIX), _uuid(key.removeprefix(CAPTURE_PREFIX)))
    if left > 0:
        yield _capture(intent, left, "elsewhere", None)


def _capture(intent: PaymentIntent, amount: int, name: str, reference: UUID | None) -> Observation:
    return Observation(
        operation=Operation.CAPTURE,
        status=TransactionStatus.SUCCEEDED,
        amount=from_stripe(amount, intent.currency.upper()),
        currency=intent.currency.upper(),
        provider_payment_id=intent.id,
        provider_txn_id=f"{intent.id}:{name}",
        reference=reference,
        raw={"status": intent.status},
    )


def _release(intent: PaymentIntent, void: UUID | None) -> Iterator[Observation]:
    """What is held no more: by cancellation, or by a payment that ended with less than was held."""
    rest = intent.amount - intent.amount_received
    values = [value for key, value in (intent.metadata or {}).items() if key.startswith(CAPTURE_PREFIX)]
    if intent.status == "canceled":
        reason = Reason.EXPIRED.value if intent.cancellation_reason in LAPSED else ""
    elif intent.status == "succeeded" and rest > 0 and not any(FINAL in value.split() for value in values):
        # Only time ends a payment whose captures were all ours and none of them the last.
        ours = sum(int(value.split()[0]) for value in values) == intent.amount_received
        reason = Reason.EXPIRED.value if ours else ""
    else:
        return
    yield Observation(
        operation=Operation.VOID,
        status=TransactionStatus.SUCCEEDED,
        amount=from_stripe(rest, intent.currency.upper()),
        currency=intent.currency.upper(),
        provider_payment_id=intent.id,
        provider_txn_id=intent.id,
        reference=void,
        reason=reason,
        raw={"status": intent.status, "cancellation_reason": intent.cancellation_reason},
    )


def refund_observed(refund: Refund) -> Observation:
    """Read a refund."""
    match refund.status:
        case "succeeded":
            status = TransactionStatus.SUCCEEDED
        case "failed" | "canceled":
            status = TransactionStatus.DECLINED
        case _:
            status = TransactionStatus.PENDING
    failed = status is TransactionStatus.DECLINED
    return Observation(
        operation=Operation.REFUND,
        status=status,
        amount=from_stripe(refund.amount, refund.currency.upper()),
        currency=refund.currency.upper(),
        provider_payment_id=refund.payment_intent or "",
        provider_txn_id=refund.id,
        reference=_reference(refund.metadata),
        reason=(refund.metadata or {}).get(REASON) or refund.reason or "",
        decline_code=(refund.failure_reason or DeclineCode.REFUND_DECLINED.value) if failed else None,
        raw={"status": refund.status, "failure_reason": refund.failure_reason},
    )


def _lost(dispute: Dispute) -> Iterator[Observation]:
    # Nothing moves by an inquiry, nor by what was prevented or refunded in time; by everything else the money is gone at first.
    if not dispute.status.startswith("warning_") and dispute.status not in ("prevented", "charge_refunded"):
        yield _disputed(dispute, Operation.CHARGEBACK)


def _disputed(dispute: Dispute, operation: Operation) -> Observation:
    return Observation(
        operation=operation,
        status=TransactionStatus.SUCCEEDED,
        amount=from_stripe(dispute.amount, dispute.currency.upper()),
        currency=dispute.currency.upper(),
        provider_payment_id=dispute.payment_intent or "",
        provider_txn_id=dispute.id,
        reason=dispute.reason,
        raw={"status": dispute.status},
    )


def _next_action(intent: PaymentIntent) -> NextAction | None:
    action = intent.next_action
    if action is None or action.redirect_to_url is None or not action.redirect_to_url.url:
        return None
    return NextAction(type="redirect", url=action.redirect_to_url.url)


def _capture_before(charge: Charge | None) -> datetime | None:
    card = ((charge.payment_method_details or {}) if charge is not None else {}).get("card") or {}
    moment = card.get("capture_before")
    return datetime.fromtimestamp(moment, UTC) if isinstance(moment, int) else None


def _reference(metadata: dict[str, str] | None) -> UUID | None:
    return _uuid((metadata or {}).get(REFERENCE, ""))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
