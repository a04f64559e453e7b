"""Orders and their prices: what a line comes to, what an order comes to, and what changed."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from services.payments.domain.intents import Intent, IntentStatus
from shared.addresses import in_form
from shared.contracts.fulfillment.pricing import RemovedTax
from shared.contracts.orders import Address, OrderContent, TaxBehavior, TaxLine
from shared.contracts.payments import NormalizedAddress, SnapshotLine, Totals
from shared.errors import Invalid, Outcome, Refusal, Retry
from shared.money import AMOUNT_MAX_MINOR_UNITS, exponent


class OrderStatus(StrEnum):
    """Where an order stands with its money; derived from the ledger."""

    OPEN = "open"
    PAYMENT_PENDING = "payment_pending"
    AUTHORIZED = "authorized"
    PARTIALLY_PAID = "partially_paid"
    PAID = "paid"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    CANCELLED = "cancelled"


class OrderLocked(Refusal):
    """What is priced cannot change while a payment for it is under way, nor once it was paid for."""

    code = "order-locked"
    title = "The order has an active payment"


class StaleVersion(Refusal):
    """The caller changes an older version than there is."""

    code = "stale-version"
    title = "The order has changed since you read it"
    status = 412


class OrderChanged(Refusal):
    """The snapshot priced something else than the order is now."""

    code = "order-changed"
    title = "The order changed after it was quoted"
    outcome = Outcome.CONFLICT


class SnapshotExpired(Refusal):
    """The price no longer holds; quote again."""

    code = "snapshot-expired"
    title = "The quoted price has expired"
    outcome = Outcome.CONFLICT


class AmountMismatch(Refusal):
    """The caller expects another amount or currency than what was quoted."""

    code = "amount-mismatch"
    title = "The amount is not the quoted one"
    outcome = Outcome.CONFLICT


# Within so long so many payments of an order, a token or a store may be declined.
DECLINES_WITHIN_SECONDS = 600


class TooManyDeclines(Refusal):
    """Somebody tries one card after the other; the provider is asked no more for a while."""

    code = "too-many-declines"
    title = "Too many declined payments"
    status = 429
    outcome = Outcome.NOT_ATTEMPTED
    retry = Retry.AFTER
    retry_after_seconds = DECLINES_WITHIN_SECONDS


class OrderCancelled(Refusal):
    """A cancelled order takes no payment."""

    code = "order-cancelled"
    title = "The order is cancelled"


class OrderPaid(Refusal):
    """An order that was paid takes no second payment."""

    code = "order-already-paid"
    title = "The order has been paid"


class Priced(msgspec.Struct, frozen=True, kw_only=True):
    """An order's lines and totals, and the hash of all that was priced."""

    lines: list[SnapshotLine]
    tax_lines: list[TaxLine]
    totals: Totals
    hash: bytes


def price(content: OrderContent, *, removed_taxes: Sequence[RemovedTax] = (), rounding_amount: int = 0) -> Priced:
    """Work out every line and the totals, exactly; refuses what cannot be a price. What is not stated yet counts as nothing."""
    exponent(content.currency)
    removed = {each.line: each.amount for each in removed_taxes}
    lines = [_line(content, position, removed.get(position, 0)) for position in range(len(content.items))]
    tax_lines, shipping = content.tax_lines or [], content.shipping_amount or 0
    for position, tax in enumerate(tax_lines):
        if tax.line is not None and tax.line >= len(lines):
            raise Invalid(f"Tax line {position} is about line {tax.line}, which is not there.", {"field": f"$.tax_lines[{position}].line"})
    exclusive = sum(tax.amount for tax in tax_lines if tax.behavior is TaxBehavior.EXCLUSIVE)
    totals = Totals(
        items=sum(line.quantity * line.unit_price for line in lines),
        discounts=sum(line.discount for line in lines),
        shipping=shipping,
        tax_exclusive=exclusive,
        tax_inclusive=sum(tax.amount for tax in tax_lines) - exclusive,
        tax_removed=sum(removed.values()),
        rounding=rounding_amount,
        total=sum(line.amount for line in lines) + shipping - removed.get(None, 0) + exclusive + rounding_amount,
    )
    if totals.total > AMOUNT_MAX_MINOR_UNITS:
        raise Invalid(f"The total of {totals.total} is over {AMOUNT_MAX_MINOR_UNITS}.", {"field": "$.items"})
    return Priced(lines=lines, tax_lines=tax_lines, totals=totals, hash=priced_hash(content))


def _line(content: OrderContent, position: int, tax_removed: int) -> SnapshotLine:
    item = content.items[position]
    discount = sum(adjustment.amount for adjustment in item.adjustments)
    amount = item.quantity * item.unit_price - discount
    if amount < 0:
        raise Invalid(f"The discounts of line {position} are more than its price.", {"field": f"$.items[{position}].adjustments"})
    return SnapshotLine(
        line=position,
        product_variant_id=item.product_variant_id,
        name=item.name,
        quantity=item.quantity,
        unit_price=item.unit_price,
        discount=discount,
        amount=amount - tax_removed,
        tax_removed=tax_removed,
    )


# What changes a price or where it is taxed and shipped to; the rest (a customer linked later, say) may change at any time.
PRICED_FIELDS = ("currency", "items", "shipping_amount", "tax_lines", "shipping_address", "billing_address", "vat_id", "cancelled")


def priced_hash(content: OrderContent) -> bytes:
    """Fingerprint everything that a price depends on."""
    return hashlib.sha256(msgspec.json.encode(_priced_part(content), order="deterministic")).digest()


def differing_fields(before: OrderContent, after: OrderContent) -> list[str]:
    """Name the priced fields in which two contents differ."""
    first, second = _priced_part(before), _priced_part(after)
    return [name for name in PRICED_FIELDS if first[name] != second[name]]


def _priced_part(content: OrderContent) -> dict[str, Any]:
    whole: dict[str, Any] = msgspec.to_builtins(content)
    return {name: whole.get(name) for name in PRICED_FIELDS}


def normalized(address: Address | None) -> NormalizedAddress | None:
    """Bring an address into its country's form; what was typed stays beside it."""
    if address is None:
        return None
    fields, doubts = in_form(address)
    return NormalizedAddress(typed=address, normalized=fields, doubts=doubts)


class OrderSums(msgspec.Struct, frozen=True, kw_only=True):
    """An order's ledger in sums: what is asked, held, taken and given back."""

    total: int
    cancelled: bool
    pending: bool
    held: int
    captured: int
    returned: int
    # Whether it was paid without money, because there was nothing to pay.
    free: bool = False


def order_status(sums: OrderSums) -> OrderStatus:
    """Derive an order's status from its ledger."""
    if sums.captured > 0 and sums.returned >= sums.captured:
        return OrderStatus.REFUNDED
    if sums.returned > 0:
        return OrderStatus.PARTIALLY_REFUNDED
    if sums.captured > 0:
        return OrderStatus.PAID if sums.captured >= sums.total else OrderStatus.PARTIALLY_PAID
    if sums.held > 0:
        return OrderStatus.AUTHORIZED
    if sums.pending:
        return OrderStatus.PAYMENT_PENDING
    if sums.free and not sums.cancelled:
        return OrderStatus.PAID
    return OrderStatus.CANCELLED if sums.cancelled else OrderStatus.OPEN


def check_changeable(before: OrderContent, after: OrderContent, payments: Sequence[Intent]) -> None:
    """Refuse another price while a payment is under way, and for good once money was taken: the order is what was paid for."""
    differing = differing_fields(before, after)
    for payment in payments:
        # Nothing has to be given back any more: it may be cancelled, and one that was free taken up again.
        refunded = payment.status is IntentStatus.REFUNDED and payment.charged_back_amount == 0
        if differing == ["cancelled"] and (payment.free or (refunded and after.cancelled)):
            continue
        facts = {"differing_fields": differing, "intent_id": str(payment.id), "payment_status": payment.status.value}
        if (payment.captured_amount > 0 or payment.free) and (payment.holds_order or payment.overpaid_amount > 0):
            raise OrderLocked("It was paid for, so it stays as it is; another sale needs a new order.", facts)
        if payment.status is IntentStatus.REQUIRES_ACTION:
            raise OrderLocked("A payment waits for its customer; void it first, then change the order.", facts)
        if payment.holds_order:
            raise OrderLocked("End the payment first, then change the order.", facts)


class Declines(msgspec.Struct, frozen=True, kw_only=True):
    """How many payments were declined lately, or may be: of an order, with a checkout token, of a store's environment."""

    order: int
    token: int
    store: int


def declined_lately(payments: Sequence[Intent], *, now: datetime) -> int:
    """Count an order's payments that were declined lately."""
    since = now - timedelta(seconds=DECLINES_WITHIN_SECONDS)
    return sum(payment.status is IntentStatus.DECLINED and payment.updated_at > since for payment in payments)


def check_declines(declined: Declines, limits: Declines) -> None:
    """Refuse another payment after too many declined ones lately."""
    if declined.order >= limits.order:
        raise TooManyDeclines("Come back later, or have the shop look at the order.", {"declined": declined.order, "of": "order"})
    if declined.token >= limits.token:
        raise TooManyDeclines("Come back later; this token has tried too often.", {"declined": declined.token, "of": "token"})
    if declined.store >= limits.store:
        raise TooManyDeclines("Come back later; too many payments of the store were declined.", {"of": "store"})


def check_snapshot(*, expired: bool, snapshot_hash: bytes, order_hash: bytes, differing: list[str], cancelled: bool) -> None:
    """Refuse a snapshot that no longer stands for the order."""
    if cancelled:
        raise OrderCancelled("A cancelled order takes no payment.")
    if expired:
        raise SnapshotExpired("Quote the order again and authorize with the new snapshot.", {"next": "POST /api/v1/checkout/quote"})
    if snapshot_hash != order_hash:
        raise OrderChanged("Quote the order again; these fields differ from what was quoted.", {"differing_fields": differing})


def check_amount(*, amount: int | None, currency: str | None, expected_amount: int, expected_currency: str) -> None:
    """Refuse an amount or currency that was sent and is not the expected one."""
    if (amount is not None and amount != expected_amount) or (currency is not None and currency != expected_currency):
        raise AmountMismatch(
            f"The quoted amount is {expected_amount} {expected_currency} (minor units).",
            {"sent": {"amount": amount, "currency": currency}, "quoted": {"amount": expected_amount, "currency": expected_currency}},
        )
