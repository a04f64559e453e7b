"""Quotes: what an order leaves open of shipping and tax, worked out and kept for the label and for finalizing."""

from typing import TypeVar

import msgspec

from services.fulfillment.domain import pricing as rules
from services.fulfillment.domain.pricing import AddressNeeded, RateChanged
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.shopping import Offer, offer
from services.fulfillment.handlers.taxing import tax_of
from services.fulfillment.store import rates as rate_rows
from services.fulfillment.store import shipments, taxes
from services.fulfillment.store.settings import Standing
from shared import audit
from shared.contracts.fulfillment.pricing import (
    Figures,
    Price,
    ProviderMetadata,
    QuoteRates,
    RatesView,
    ShippingRate,
)
from shared.contracts.orders import Personal, SupplyKind, with_personal
from shared.database import Statement, connected
from shared.ids import new_id
from shared.messages import Envelope
from shared.vault import personal_place

PricingQuery = TypeVar("PricingQuery", Price, QuoteRates)

AS_ORDERED = ProviderMetadata(name="as-ordered", capabilities={}, browser={})
NOTHING_TO_SHIP = ProviderMetadata(name="none", capabilities={}, browser={})


async def price(envelope: Envelope, query: Price, context: Fulfillment) -> Figures:
    """Work out what an order leaves open of shipping and tax, and keep it for the label and for finalizing."""
    query = _opened(envelope, query, context)
    content = query.content
    async with connected(context.desk.pool) as db:
        standing = await context.standing(db, envelope)
    statements: list[Statement] = []
    offered, selected, provider = await _shipping(envelope, query, context, standing)
    shipping_amount = content.shipping_amount if content.shipping_amount is not None else (selected.amount if selected else 0)
    tax_lines, tax_hash, tax_provider = content.tax_lines or [], "", AS_ORDERED
    removed: tuple[int, ...] = ()
    steps = standing.settings.total_steps if standing.settings else {}
    rounding = rules.to_step(rules.stated_total(content, shipping_amount), steps, content.currency)
    notices, calls = list(offered.notices), list(offered.calls)
    if content.tax_lines is None:
        quote, more, made = await tax_of(envelope, query, context, standing, shipping_amount)
        tax_lines = rules.tax_lines_of(quote.rows, quote.goods)
        tax_hash = rules.tax_hash(query.priced_hash, content.currency, quote.rows, shipping_amount=shipping_amount)
        tax_provider = ProviderMetadata(name=quote.provider, capabilities={}, browser={})
        rounding = sum(line.gross for line in quote.lines if line.tax_code == taxes.ROUNDING)
        removed = quote.removed_taxes
        notices += more
        calls += made
        statements.append(
            taxes.quoted(
                envelope,
                query.order_id,
                query.snapshot_id,
                quote,
                priced_hash=query.priced_hash,
                tax_hash=tax_hash,
                expires_at=query.expires_at,
            )
        )
    if selected is not None and selected.id is not None:
        shown = next(rate for rate in offered.rates if rate.shown is selected)
        statements.append(
            shipments.drafted(
                envelope,
                new_id(),
                order_id=query.order_id,
                snapshot_id=query.snapshot_id,
                rate=selected,
                # With the tax, which is no part of what customs value.
                content=msgspec.structs.replace(content, tax_lines=tax_lines),
                ship_from=standing.settings.ship_from if standing.settings else None,
                packages=shown.packages,
            )
        )
        if query.rate_id is None:
            statements.append(rate_rows.quoted(envelope, query.order_id, offered.rates))
    if calls:
        statements += audit.called(envelope, query.snapshot_id, calls)
    if statements:
        await context.desk.rows.write(statements)
    return Figures(
        shipping_amount=shipping_amount,
        rates=[rate.shown for rate in offered.rates] or ([selected] if selected else []),
        selected=selected,
        tax_lines=tax_lines,
        providers={"shipping": provider, "tax": tax_provider},
        notices=notices,
        tax_hash=tax_hash,
        removed_taxes=rules.removed_taxes_of(removed, len(content.items)),
        rounding_amount=rounding,
    )


async def quote_rates(envelope: Envelope, query: QuoteRates, context: Fulfillment) -> RatesView:
    """Ask the carriers what it costs to ship an order, and keep what they say."""
    query = _opened(envelope, query, context)
    async with connected(context.desk.pool) as db:
        standing = await context.standing(db, envelope)
    if query.content.shipping_address is None:
        raise AddressNeeded("Say where the order goes (shipping_address), then ask for the rates.")
    offered = await offer(envelope, context, standing, query.content, query.priced_hash, query.packages, required=not query.packages)
    statements = [rate_rows.quoted(envelope, query.order_id, offered.rates, content=query.content)] if offered.rates else []
    if offered.calls:
        statements += audit.called(envelope, None, offered.calls)
    if statements:
        await context.desk.rows.write(statements)
    return RatesView(
        order_id=query.order_id, rates=[rate.shown for rate in offered.rates], packages=list(offered.packages), notices=offered.notices
    )


def _opened(envelope: Envelope, query: PricingQuery, context: Fulfillment) -> PricingQuery:
    """Put what is about the buyer back, which travels wrapped for us."""
    if query.personal is None:
        return query
    place = personal_place(envelope.store_id, envelope.environment.value, query.order_id)
    personal = msgspec.json.decode(context.wallet.unhidden(query.personal, info=place), type=Personal)
    return msgspec.structs.replace(query, content=with_personal(query.content, personal))


async def _shipping(
    envelope: Envelope, query: Price, context: Fulfillment, standing: Standing
) -> tuple[Offer, ShippingRate | None, ProviderMetadata]:
    content, nothing = query.content, Offer(rates=[], packages=(), notices=[], calls=[])
    if content.shipping_amount is not None:
        rate = ShippingRate(service="as-ordered", amount=content.shipping_amount, currency=content.currency)
        return nothing, rate, AS_ORDERED
    chosen = query.rate_id is not None or query.service is not None
    sent = any(item.supply is SupplyKind.GOODS for item in content.items)
    if content.shipping_address is None or not (sent or chosen):
        return nothing, None, NOTHING_TO_SHIP
    if query.rate_id is not None:
        async with connected(context.desk.pool) as db:
            rates = await rate_rows.shown_with(db, envelope, query.order_id, query.rate_id)
        selected = rules.chosen_before([rate.shown for rate in rates], query.rate_id, now=standing.now)
        if any(rate.priced_hash != query.priced_hash for rate in rates):
            raise RateChanged("Ask for the rates again; the order is not what it was.", {"rate_id": str(query.rate_id)})
        offered = Offer(rates=rates, packages=rates[0].packages, notices=[], calls=[])
    else:
        offered = await offer(envelope, context, standing, content, query.priced_hash, (), required=True)
        found = rules.chosen([rate.shown for rate in offered.rates], service=query.service)
        assert found is not None, "an offer that is required has a rate"
        selected = found
    return offered, selected, _metadata(envelope, context, selected.carrier)


def _metadata(envelope: Envelope, context: Fulfillment, name: str) -> ProviderMetadata:
    # The store's fallback is nobody's.
    known = context.carrier(envelope, name) if name in context.carrier_names(envelope.store_id, envelope.environment) else None
    capabilities = {} if known is None else msgspec.to_builtins(known.capabilities)
    return ProviderMetadata(name=name, capabilities=capabilities, browser={})


async def forget_old(context: Fulfillment) -> None:
    """Delete rates and tax quotes that nobody can use any more."""
    async with connected(context.desk.pool) as db:
        await rate_rows.forget_old(db)
        await taxes.forget_old(db)
