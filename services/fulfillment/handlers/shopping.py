"""Shopping for rates: every carrier of a store is asked at once; one that fails costs its rates, not the quote."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from services.fulfillment.domain.pricing import NoWayToShip
from services.fulfillment.domain.shipping.customs import NOWHERE, CustomsIncomplete, Registered, Terms, Way, registered_in, terms_of, way_of
from services.fulfillment.domain.shipping.packages import check_packages, lines_without_size, pack_order
from services.fulfillment.domain.shipping.packing import VOLUME_MAX_MM3
from services.fulfillment.domain.shipping.shipments import CustomsNeeded
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.providers import Carrier, CarrierRate, CarrierRefused, RatesRequest
from services.fulfillment.store.rates import Rate
from services.fulfillment.store.settings import Standing
from shared import telemetry
from shared.contracts.fulfillment.pricing import (
    Notice,
    PackageBody,
    ShippingRate,
    StoreSettings,
)
from shared.contracts.orders import OrderContent
from shared.database import connected
from shared.errors import Invalid
from shared.http_client import Call, recorded
from shared.ids import new_id
from shared.messages import Envelope
from shared.provider_answers import OUTCOME_UNKNOWN

logger = logging.getLogger(__name__)

FALLBACK = "fallback"
TABLE = "table_rate"

T = TypeVar("T")


class ShippingNotConfigured(Invalid):
    """The store has not said by whom it ships."""

    code = "shipping-not-configured"
    title = "The store has no carriers"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking carriers."""

    rates: list[Rate]
    packages: tuple[PackageBody, ...]
    notices: list[Notice]
    calls: list[Call]


async def offer(
    envelope: Envelope,
    context: Fulfillment,
    standing: Standing,
    content: OrderContent,
    priced_hash: str,
    packages: tuple[PackageBody, ...],
    *,
    required: bool,
) -> Offer:
    """Ask every carrier of the store at once; one that fails costs its rates, not the quote."""
    settings = standing.settings
    if settings is None or not (settings.carriers or settings.fallback_rates):
        raise ShippingNotConfigured(
            "Set the store's carriers (PUT /api/v1/admin/fulfillment/settings), or state the order's shipping_amount.", {}
        )
    assert content.shipping_address is not None, "only what goes somewhere is shipped"
    packed = tuple(check_packages(content, packages) if packages else pack_order(content, **_limits(settings)))
    way = way_of(settings.ship_from, content.shipping_address)
    registered = await registered_numbers(envelope, context, standing, way)
    terms, incomplete = _terms(settings, content, packed, way, registered)
    request = RatesRequest(
        ship_from=settings.ship_from, ship_to=content.shipping_address, packages=packed, content=content, table=settings.table, terms=terms
    )
    asked = [context.carrier(envelope, name) for name in settings.carriers]
    calls: list[Call] = []
    answers = await asyncio.gather(*(_rates_of(context, carrier, request, calls) for carrier in asked))
    notices = [found for found in answers if isinstance(found, Notice)]
    rates: list[Rate] = []
    for carrier, found in zip(asked, answers, strict=True):
        if not isinstance(found, Notice):
            rates += [
                _rate(context, standing.now, carrier, each, packed, priced_hash, terms)
                for each in found
                if each.currency == content.currency
            ]
            if strange := sorted({each.currency for each in found} - {content.currency}):
                # Amounts of two currencies cannot be compared without a rate between them, and none is guessed.
                detail = f"{carrier.name} also offers rates in {', '.join(strange)}; an order in {content.currency} cannot take them."
                notices.append(Notice(code="rates-in-other-currency", detail=detail))
    if not rates and (notices or not asked):
        rates = _fallback(context, standing.now, settings, content, packed, priced_hash)
        if rates:
            detail = f"No carrier gave a rate in {content.currency}; these are the store's fallback rates."
            notices.append(Notice(code="fallback-rates", detail=detail))
    if incomplete is not None and any(carrier.capabilities.rates_bind_terms for carrier in asked):
        notices.append(incomplete)
    if required and not rates:
        facts = {"notices": [msgspec.to_builtins(each) for each in notices], "country": content.shipping_address.country_code}
        raise NoWayToShip(f"No carrier gave a rate in {content.currency}.", facts)
    if unsized := lines_without_size(content):
        detail = f"The sizes of packages leave out lines {', '.join(map(str, unsized))}, which have no dimensions."
        notices.append(Notice(code="sizes-incomplete", detail=detail))
    rates.sort(key=lambda rate: (rate.shown.amount, rate.shown.carrier, rate.shown.service))
    return Offer(rates=rates, packages=packed, notices=notices, calls=calls)


async def registered_numbers(envelope: Envelope, context: Fulfillment, standing: Standing, way: Way) -> Registered:
    """Read what the store's tax registrations say of labels across a border."""
    if not way.crosses_border:
        return NOWHERE
    async with connected(context.desk.pool) as db:
        nexus, _ = await context.ground(db, envelope, standing.revision, set())
    return registered_in((each.nexus for each in nexus), day=standing.now.date())


def _terms(
    settings: StoreSettings, content: OrderContent, packages: tuple[PackageBody, ...], way: Way, registered: Registered
) -> tuple[Terms, Notice | None]:
    """Say what carriers must know; a declaration that is not complete yet is left out of the prices, and refused at the label."""
    try:
        terms = terms_of(
            content,
            packages,
            way,
            said=(content.customs, settings.customs),
            confirmations=(content.delivery_confirmation, settings.delivery_confirmation),
            registered=registered,
        )
    except (CustomsNeeded, CustomsIncomplete) as missing:
        return Terms(), Notice(code=missing.code, detail=f"Prices are without a customs declaration: {missing}")
    return terms, None


def _limits(settings: StoreSettings) -> dict[str, int]:
    """Say what a package takes, by weight and by volume: of what the store's table charges by volume no more than by weight."""
    by_volume = settings.table.volumetric_mm3_per_gram if settings.table is not None and TABLE in settings.carriers else None
    limit_mm3 = VOLUME_MAX_MM3 if by_volume is None else min(VOLUME_MAX_MM3, by_volume * settings.package_limit_grams)
    return {"limit_grams": settings.package_limit_grams, "limit_mm3": limit_mm3}


async def _rates_of(context: Fulfillment, carrier: Carrier, request: RatesRequest, calls: list[Call]) -> "list[CarrierRate] | Notice":
    return await in_time(carrier.rates(request), carrier.name, context.settings.rates_timeout_seconds, calls)


async def in_time(asking: Awaitable[T], name: str, timeout_seconds: float, calls: list[Call]) -> "T | Notice":
    """Wait for a provider as long as a quote can; gives a notice when there is nothing to use. The calls made are added."""
    with recorded() as made:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await asking
        except TimeoutError:
            notice = Notice(code="provider-silent", detail=f"{name} did not answer within {timeout_seconds:g} s.")
        except OUTCOME_UNKNOWN as silent:
            notice = Notice(code="provider-silent", detail=f"{name} cannot be asked right now ({type(silent).__name__}).")
        except CarrierRefused as refused:
            notice = Notice(code="provider-refused", detail=f"{name}: {refused.detail}")
        finally:
            calls += made
    telemetry.say(logger, logging.WARNING, "a provider gave nothing for a quote", {"provider": name, "reason": notice.detail})
    return notice


def _rate(
    context: Fulfillment,
    now: datetime,
    carrier: Carrier,
    rate: CarrierRate,
    packages: tuple[PackageBody, ...],
    priced_hash: str,
    terms: Terms,
) -> Rate:
    lifetime = timedelta(seconds=context.settings.rate_lifetime_seconds)
    shown = ShippingRate(
        id=new_id(),
        carrier=carrier.name,
        service=rate.service,
        amount=rate.amount,
        currency=rate.currency,
        transit_days=rate.transit_days,
        quoted_at=now,
        expires_at=rate.expires_at or now + lifetime,
    )
    return Rate(shown=shown, provider_rate_id=rate.provider_rate_id, packages=packages, priced_hash=priced_hash, terms_digest=terms.digest)


def _fallback(
    context: Fulfillment,
    now: datetime,
    settings: StoreSettings,
    content: OrderContent,
    packages: tuple[PackageBody, ...],
    priced_hash: str,
) -> list[Rate]:
    lifetime = timedelta(seconds=context.settings.rate_lifetime_seconds)
    return [
        Rate(
            shown=ShippingRate(
                id=new_id(),
                carrier=FALLBACK,
                service=each.service,
                amount=each.amount,
                currency=each.currency,
                quoted_at=now,
                expires_at=now + lifetime,
            ),
            provider_rate_id=each.service,
            packages=packages,
            priced_hash=priced_hash,
        )
        for each in settings.fallback_rates
        if each.currency == content.currency
    ]
