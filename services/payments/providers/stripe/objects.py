"""Reading Stripe's objects: what a PaymentIntent, a Refund or a Dispute says of each of our operations.

Stripe names refunds and disputes, but neither captures nor cancellations. So each capture of ours writes its reference into
the PaymentIntent's metadata by the very call that takes the money: `cap_<reference in hex>` = the amount, and `final` when it
let go of the rest. Metadata has fifty keys, so each call also moves the captures before it together, ten to a key:
`caps_<n>` = `<reference in hex>:<amount>` ten times. What was received beyond those was captured elsewhere; a cancellation bears
the id of its PaymentIntent. Anybody with the account writes metadata too: whatever has another form is not ours.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any
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
CAPTURES_PREFIX = "caps_"
FINAL = "final"

# A reference of ours is a UUIDv7 (RFC 9562, 5.7), made before the year 2527.
OURS = "0[0-9a-f]{11}7[0-9a-f]{3}[89ab][0-9a-f]{15}"
# A capture of ours, as it notes itself: under a key of its own, or among ten under one. No amount of Stripe's has more than 12 digits.
CAPTURE_KEY = re.compile(rf"cap_({OURS})")
CAPTURE_NOTE = re.compile(r"([0-9]{1,12})( final)?")
CAPTURES_KEY = re.compile(r"caps_[0-9]{1,2}")
CAPTURES_NOTE = re.compile(rf"({OURS}):([0-9]{{1,12}})")

# What a Refund says that stands for a hold which lapsed (stripe-python 16.1.0, Refund.reason).
LAPSED_REFUND = "expired_uncaptured_charge"
ENDED = frozenset({"succeeded", "failed", "canceled"})

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
    """An amount given back; `pending` and `requires_action` are not yet, `failed` and `canceled` are not any more, or never were."""

    id: str
    amount: int
    currency: str
    created: int = 0
    status: str | None = None
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None
    reason: str | None = None
    failure_reason: str | None = None

    @property
    def reference(self) -> UUID | None:
        """Give the id of the transaction of ours that made it."""
        return _reference(self.metadata)


class Refunds(msgspec.Struct, frozen=True):
    """The first refunds of a charge."""

    data: list[Refund]
    has_more: bool = False


class Movement(msgspec.Struct, frozen=True, kw_only=True):
    """A balance transaction of a dispute, in the currency of the account's balance: what left it is negative."""

    id: str
    amount: int
    currency: str
    created: int = 0
    # Fees of a dispute may be listed beside its money (docs.stripe.com/reports/reporting-categories).
    reporting_category: str = "dispute"


class Dispute(msgspec.Struct, frozen=True, kw_only=True):
    """A cardholder's objection, what it took and gave back, and how it stands."""

    id: str
    amount: int
    currency: str
    status: str
    created: int = 0
    payment_intent: str | None = None
    reason: str = ""
    balance_transactions: list[Movement] | None = None


class Charge(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt to take the money."""

    id: str
    status: str = ""
    disputed: bool = False
    amount_refunded: int | None = None
    balance_transaction: str | None = None
    payment_method_details: dict[str, Any] | None = None
    refunds: Refunds | None = None


class BalanceTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """What a charge brought into the account's balance, in the currency of the balance."""

    id: str
    amount: int
    exchange_rate: Decimal | None = None


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """Any object that may be ours: all that is read of it before that is known."""

    id: str
    payment_intent: str | None = None
    metadata: dict[str, str] | None = None

    @property
    def reference(self) -> UUID | None:
        """Give the id of the transaction of ours that made it."""
        return _reference(self.metadata)


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
    amount_received: Annotated[int, msgspec.Meta(ge=0)] = 0
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
    intent: PaymentIntent,
    *,
    refunds: Sequence[Refund] | None = None,
    disputes: Sequence[Dispute] = (),
    void: UUID | None = None,
    brought: BalanceTransaction | None = None,
) -> ProviderTransaction:
    """Read all that a payment shows, in the order it happened as far as that can be told.

    Lists come from Stripe with the newest first. `void` is ours that was to end the payment, which Stripe has no place to note;
    `brought` is what its charge brought, where that decides whether a Refund is one (`in_doubt`).
    """
    if refunds is None:
        refunds = refunds_shown(intent)
    let_go = _let_go(intent, refunds, brought)
    return ProviderTransaction(
        provider_payment_id=intent.id,
        reference=intent.reference,
        observations=(
            *_authorization(intent),
            *_captures(intent),
            *_release(intent, void),
            *_returned([refund for refund in refunds if refund.id not in let_go], disputes),
        ),
        created_at=datetime.fromtimestamp(intent.created, UTC),
    )


def refunds_shown(intent: PaymentIntent) -> Sequence[Refund]:
    """Give the refunds that came with a payment; none where they are not all of them."""
    shown = None if intent.charge is None else intent.charge.refunds
    return () if shown is None or shown.has_more else shown.data


# Refunds that are none


def _let_go(intent: PaymentIntent, refunds: Sequence[Refund], brought: BalanceTransaction | None) -> frozenset[str]:
    """Name the Refunds that stand for what was held and let go: Stripe made them so until 2025-03-31.basil, and old payments keep them.

    docs.stripe.com/changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow
    """
    theirs = [refund for refund in refunds if refund.reference is None]
    # What was never captured cannot be given back.
    surely = frozenset(refund.id for refund in theirs if refund.reason == LAPSED_REFUND or intent.amount_received == 0)
    if surely:
        return surely
    # The last capture made it: before any refund of the same amount but those of earlier captures.
    ended = max((int(minted_at(reference).timestamp()) for reference, _, final in _noted(intent.metadata) if final), default=0)
    oldest_first = reversed(_of_the_rest(intent, theirs))
    first = min(oldest_first, key=lambda refund: (refund.created < ended, refund.created), default=None)
    return frozenset({first.id}) if first is not None and _leaves_a_refund(intent, refunds, brought) else frozenset()


def in_doubt(intent: PaymentIntent, refunds: Sequence[Refund]) -> bool:
    """Tell whether only what the charge brought says if one of these Refunds is what was let go or was really given back."""
    theirs = [refund for refund in refunds if refund.reference is None]
    return intent.amount_received > 0 and bool(_of_the_rest(intent, theirs)) and not _uncounted(intent, refunds)


def _of_the_rest(intent: PaymentIntent, refunds: Sequence[Refund]) -> list[Refund]:
    """List those of exactly what was held and not captured, the newest first; only a payment that has ended lets go of it."""
    rest = intent.amount - intent.amount_received if intent.status in ("succeeded", "canceled") else 0
    return [refund for refund in refunds if refund.status == "succeeded" and refund.amount == rest > 0]


def _leaves_a_refund(intent: PaymentIntent, refunds: Sequence[Refund], brought: BalanceTransaction | None) -> bool:
    """Tell whether the last capture, which took less than was held, left a Refund of the rest."""
    if _uncounted(intent, refunds):
        return True
    if brought is not None:
        # A charge brought all that was held, and its Refund took the rest away again; since then it brings what was captured.
        amount = brought.amount / (brought.exchange_rate or Decimal(1))
        return abs(amount - intent.amount) < abs(amount - intent.amount_received)
    return any(final for _, _, final in _noted(intent.metadata))


def _uncounted(intent: PaymentIntent, refunds: Sequence[Refund]) -> bool:
    """Tell whether the charge counts just the rest less as given back than its refunds come to; of open ones it may count any or none."""
    counted = None if intent.charge is None else intent.charge.amount_refunded
    if counted is None or any(refund.status not in ENDED for refund in refunds):
        return False
    listed = sum(refund.amount for refund in refunds if refund.status == "succeeded")
    return listed - counted == intent.amount - intent.amount_received > 0


def _returned(refunds: Sequence[Refund], disputes: Sequence[Dispute]) -> Iterator[Observation]:
    moments = [(refund.created, refund_observed(refund)) for refund in reversed(refunds)]
    moments += [moment for dispute in reversed(disputes) for moment in _disputed(dispute)]
    for _, observation in sorted(moments, key=lambda moment: moment[0]):
        yield observation


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


def _noted(metadata: dict[str, str] | None) -> list[tuple[UUID, int, bool]]:
    """Read which captures of ours a payment's metadata names: reference, amount, and whether it was the last; each once."""
    found: dict[UUID, tuple[UUID, int, bool]] = {}
    for key, value in (metadata or {}).items():
        if CAPTURES_KEY.fullmatch(key):
            for entry in value.split():
                if one := CAPTURES_NOTE.fullmatch(entry):
                    found[UUID(one[1])] = UUID(one[1]), int(one[2]), False
    for key, value in (metadata or {}).items():
        name, note = CAPTURE_KEY.fullmatch(key), CAPTURE_NOTE.fullmatch(value)
        if name and note:
            found[UUID(name[1])] = UUID(name[1]), int(note[1]), note[2] is not None
    return sorted(found.values())


def _captures(intent: PaymentIntent) -> Iterator[Observation]:
    left = intent.amount_received
    for reference, amount, _ in _noted(intent.metadata):
        if 0 < amount <= left:
            left -= amount
            yield _capture(intent, amount, reference.hex, reference)
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
    noted = _noted(intent.metadata)
    if intent.status == "canceled":
        reason = Reason.EXPIRED.value if intent.cancellation_reason in LAPSED else ""
    elif intent.status == "succeeded" and rest > 0 and not any(final for _, _, final in noted):
        # Only time ends a payment whose captures were all ours and none of them the last.
        reason = Reason.EXPIRED.value if sum(amount for _, amount, _ in noted) == intent.amount_received else ""
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
            status = TransactionStatus.FAILED
        case _:
            status = TransactionStatus.PENDING
    failed = status is TransactionStatus.FAILED
    return Observation(
        operation=Operation.REFUND,
        status=status,
        amount=from_stripe(refund.amount, refund.currency.upper()),
        currency=refund.currency.upper(),
        provider_payment_id=refund.payment_intent or "",
        provider_txn_id=refund.id,
        reference=refund.reference,
        reason=(refund.metadata or {}).get(REASON) or refund.reason or "",
        decline_code=(refund.failure_reason or DeclineCode.REFUND_DECLINED.value) if failed else None,
        raw={"status": refund.status, "failure_reason": refund.failure_reason},
    )


# What moves no money, unless its balance transactions show that it did: an inquiry, and what was prevented or refunded in time.
MOVES_NOTHING = frozenset({"warning_needs_response", "warning_under_review", "warning_closed", "prevented", "charge_refunded"})
# When a dispute ended it does not say; it takes months.
LATE = 1 << 62


def _disputed(dispute: Dispute) -> Iterator[tuple[int, Observation]]:
    """Tell what a dispute took and gave back, each movement by a name of its own, and when.

    It is withdrawn, given back when it is won, in part also when it is lost (support.stripe.com, "partially won"), and withdrawn
    again when what was won is lost after all: each adds a balance transaction, and only the first two need be listed
    (docs.stripe.com/api/disputes/object). So they say what moved, and the status what is not listed of it, or not yet.
    """
    taken, back, net = 0, 0, 0
    for moment, amount in _movements(dispute):
        net += amount
        operation = Operation.CHARGEBACK if amount < 0 else Operation.CHARGEBACK_REVERSAL
        taken, back = (taken + 1, back) if amount < 0 else (taken, back + 1)
        yield moment, _moved(dispute, operation, abs(amount), taken if amount < 0 else back)
    if dispute.status == "won" and net < 0:
        yield LATE, _moved(dispute, Operation.CHARGEBACK_REVERSAL, -net, back + 1)
    if dispute.status == "lost" and net == 0 and taken > 0:
        yield LATE, _moved(dispute, Operation.CHARGEBACK, dispute.amount, taken + 1)


def _movements(dispute: Dispute) -> list[tuple[int, int]]:
    """List when how much of a dispute's money moved, in the currency of the payment."""
    if dispute.balance_transactions is None:
        return [] if dispute.status in MOVES_NOTHING else [(dispute.created, -dispute.amount)]
    listed = [each for each in dispute.balance_transactions if each.amount and each.reporting_category.startswith("dispute")]
    in_order = sorted(listed, key=lambda each: each.created)
    if all(each.currency == dispute.currency for each in listed):
        return [(each.created, each.amount) for each in in_order]
    # An account in another currency: what was debited first stands for the whole, and no more comes back, whatever a rate has become.
    whole = next((abs(each.amount) for each in in_order if each.amount < 0), dispute.amount)
    shares = (min(dispute.amount, abs(each.amount) * dispute.amount // whole) for each in in_order)
    return [(each.created, share if each.amount > 0 else -share) for each, share in zip(in_order, shares, strict=True)]


def _moved(dispute: Dispute, operation: Operation, amount: int, number: int) -> Observation:
    currency = dispute.currency.upper()
    return Observation(
        operation=operation,
        status=TransactionStatus.SUCCEEDED,
        amount=from_stripe(amount, currency),
        currency=currency,
        provider_payment_id=dispute.payment_intent or "",
        provider_txn_id=dispute.id if number == 1 else f"{dispute.id}:{number}",
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


def minted_at(reference: UUID) -> datetime:
    """Tell when a reference of ours was made."""
    # A UUIDv7 begins with its time in milliseconds (RFC 9562, 5.7).
    return datetime.fromtimestamp((reference.int >> 80) / 1000, UTC)


def _reference(metadata: dict[str, str] | None) -> UUID | None:
    return _uuid((metadata or {}).get(REFERENCE, ""))


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
