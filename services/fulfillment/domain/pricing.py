"""A quote's shipping and tax: what the order says in the terms of carriers and taxes, and what comes of it in those of the order."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from uuid import UUID

import msgspec

from services.fulfillment.domain.places import located
from services.fulfillment.domain.tax.amounts import RoundingMode, rounded
from services.fulfillment.domain.tax.engine import Kind, Line, Row
from services.fulfillment.domain.tax.rules import SHIPPING_CODE, Level, Place, Reason, percent_text
from services.fulfillment.domain.tax.sale import NO_RULE
from shared.contracts.fulfillment.pricing import RemovedTax, ShippingRate
from shared.contracts.orders import Address, FundedBy, Item, OrderContent, SupplyKind, TaxBehavior, TaxLine
from shared.errors import Outcome, Refusal


class RateExpired(Refusal):
    """The chosen rate no longer holds; nothing is priced anew without somebody's word."""

    code = "rate-expired"
    title = "The shipping rate has expired"
    outcome = Outcome.CONFLICT


class NoSuchRate(Refusal):
    """The chosen rate or service is not among those of this order."""

    code = "no-such-rate"
    title = "This way to ship is not offered"
    status = 422


class NoWayToShip(Refusal):
    """No carrier takes the order to where it goes."""

    code = "no-shipping-rate"
    title = "Nobody ships this order"
    status = 422


class AddressNeeded(Refusal):
    """What is asked depends on where the order goes, and it does not say."""

    code = "address-needed"
    title = "The order has no address"
    status = 422


class RateChanged(Refusal):
    """The order says something else than when the rate was quoted."""

    code = "order-changed"
    title = "The order changed after the rate was quoted"
    outcome = Outcome.CONFLICT


def place_of(address: Address) -> Place:
    """Tell where an address is, as far as taxes look at it."""
    return located(address).place


def destination(content: OrderContent) -> Address | None:
    """Tell where an order goes; what is not shipped is where its buyer is."""
    return content.shipping_address or content.billing_address


def destination_field(content: OrderContent) -> str:
    """Name the field that says where an order goes."""
    return "$.shipping_address" if content.shipping_address is not None else "$.billing_address"


def is_sent(content: OrderContent) -> bool:
    """Tell whether anything of an order is sent: services are not, by whichever means."""
    return content.shipping_address is not None and any(item.supply is SupplyKind.GOODS for item in content.items)


def lines_of(content: OrderContent, *, shipping_amount: int, shipping_includes_tax: bool) -> list[Line]:
    """Say what is sold, the charge for shipping last where there is one."""
    lines = [_line(item) for item in content.items]
    if shipping_amount:
        lines.append(Line(amount=shipping_amount, tax_code=SHIPPING_CODE, included=shipping_includes_tax, kind=Kind.SHIPPING))
    return lines


def _line(item: Item) -> Line:
    paid_by_others = sum(a.amount for a in item.adjustments if a.funded_by is FundedBy.THIRD_PARTY)
    return Line(
        amount=item.quantity * item.unit_price - sum(a.amount for a in item.adjustments),
        quantity=item.quantity,
        tax_code=item.tax_code,
        included=item.tax_behavior is TaxBehavior.INCLUSIVE,
        paid_by_others=paid_by_others,
        supply=item.supply,
        weight_grams=None if item.weight_grams is None else item.quantity * item.weight_grams,
    )


def untaxed(lines: Sequence[Line], place: Place) -> list[Row]:
    """Say of every line that nobody collects tax on it."""
    return [
        Row(
            line=n,
            country=place.country,
            region=place.region,
            level=Level.COUNTRY,
            name=NO_RULE,
            rate_percent=Decimal(0),
            taxable_amount=0,
            untaxed_amount=line.taxed_amount,
            amount=0,
            included=line.included,
            reason=Reason.NOT_COLLECTING,
            rule_version=NO_RULE,
        )
        for n, line in enumerate(lines)
    ]


def tax_lines_of(rows: Sequence[Row], goods: int) -> list[TaxLine]:
    """Write tax rows as an order's; rows past its goods are shipping's, or fees on the whole."""
    return [
        TaxLine(
            jurisdiction=row.name,
            rate_percent=percent_text(row.rate_percent),
            amount=row.amount,
            behavior=TaxBehavior.INCLUSIVE if row.included else TaxBehavior.EXCLUSIVE,
            line=row.line if row.line < goods else None,
            taxable_amount=row.taxable_amount,
            reason=row.reason.value,
            rule_version=row.rule_version,
        )
        for row in rows
    ]


def chosen(rates: Sequence[ShippingRate], *, service: str | None) -> ShippingRate | None:
    """Choose a service by its name, else the cheapest way; refuses a service that is not offered."""
    if service is None:
        return rates[0] if rates else None
    for rate in rates:
        if rate.service == service:
            return rate
    raise NoSuchRate(f"{service!r} is not offered for this order.", {"service": service, "offered": [rate.service for rate in rates]})


def chosen_before(rates: Sequence[ShippingRate], rate_id: UUID, *, now: datetime) -> ShippingRate:
    """Choose a rate that was shown before; refuses one that is not the order's, or has expired."""
    for rate in rates:
        if rate.id == rate_id:
            if rate.expires_at is not None and rate.expires_at <= now:
                facts = {"rate_id": str(rate_id), "expired_at": rate.expires_at.isoformat(), "service": rate.service, "amount": rate.amount}
                raise RateExpired("Ask for the rates again and choose among them.", facts)
            return rate
    raise NoSuchRate(f"There is no rate {rate_id} for this order.", {"rate_id": str(rate_id)})


def removed_taxes_of(removed: Sequence[int], goods: int) -> list[RemovedTax]:
    """Write what was taken off prices by line of the order; past its goods it is shipping's."""
    return [RemovedTax(line=n if n < goods else None, amount=amount) for n, amount in enumerate(removed) if amount]


def not_valued(content: OrderContent, tax_lines: Sequence[TaxLine], removed: Sequence[RemovedTax]) -> list[TaxLine]:
    """Write by line of the order what customs do not value of its price: the tax in it, and what was taken off for the tax of home."""
    held = dict.fromkeys(range(len(content.items)), 0)
    for tax in tax_lines:
        if tax.line in held and tax.behavior is TaxBehavior.INCLUSIVE:
            held[tax.line] += tax.amount
    for each in removed:
        if each.line in held:
            held[each.line] += each.amount
    return _held(held)


def above_nets(content: OrderContent, nets: Mapping[int, int]) -> list[TaxLine]:
    """Write the same from what the buyer pays without tax."""
    return _held({n: _line(item).amount - nets[n] for n, item in enumerate(content.items) if n in nets})


def _held(amounts: Mapping[int, int]) -> list[TaxLine]:
    return [
        TaxLine(jurisdiction="held", rate_percent="0", amount=amount, behavior=TaxBehavior.INCLUSIVE, line=line)
        for line, amount in amounts.items()
        if amount
    ]


def stated_total(content: OrderContent, shipping_amount: int) -> int:
    """Add up what an order comes to with the tax that it states."""
    goods = sum(_line(item).amount for item in content.items)
    taxes = sum(tax.amount for tax in content.tax_lines or [] if tax.behavior is TaxBehavior.EXCLUSIVE)
    return goods + shipping_amount + taxes


def to_step(total: int, steps: Mapping[str, int], currency: str) -> int:
    """Say what brings a total to the step of its currency: at most half of it, halves up."""
    step = steps.get(currency, 1)
    return rounded(Fraction(total, step), RoundingMode.HALF_UP) * step - total


def tax_hash(priced_hash: str, currency: str, rows: Sequence[Row], *, shipping_amount: int) -> str:
    """Bind tax to what was priced: another order, another charge for shipping or another figure gives another hash."""
    said = msgspec.json.encode([priced_hash, currency, shipping_amount, rows], order="deterministic")
    return hashlib.sha256(said).hexdigest()
