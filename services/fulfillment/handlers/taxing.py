"""The tax of a quote: worked out by the store's engine, with all that finalizing and a tax office will ask for."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from services.fulfillment.domain import pricing as rules
from services.fulfillment.domain import vat_ids
from services.fulfillment.domain.places import located
from services.fulfillment.domain.pricing import AddressNeeded
from services.fulfillment.domain.tax.certificates import counted
from services.fulfillment.domain.tax.engine import Line, Row
from services.fulfillment.domain.tax.exports import FEE
from services.fulfillment.domain.tax.net_prices import at_home, without_home_tax
from services.fulfillment.domain.tax.regional import check_origin, doubts
from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.tax.sale import (
    Exemption,
    Registration,
    Sale,
    due_at_border,
    is_distance_sale,
    lacks_rules,
    own_region_untaxed,
    rules_of,
)
from services.fulfillment.domain.territories import EU_GOODS, NORTHERN_IRELAND, in_eu_vat_area, rule_places, territory_of
from services.fulfillment.handlers.context import Fulfillment
from services.fulfillment.handlers.shopping import in_time
from services.fulfillment.providers import TaxRequest
from services.fulfillment.providers.tax_books import TaxParties
from services.fulfillment.store import registrations
from services.fulfillment.store.settings import Standing
from services.fulfillment.store.taxes import ROUNDING, SHIPPING, LineFacts, TaxQuote
from shared.contracts.fulfillment.pricing import (
    Notice,
    Price,
)
from shared.contracts.fulfillment.tax import ExemptionBody, NexusBody
from shared.contracts.orders import Address, OrderContent, SupplyKind
from shared.database import connected
from shared.errors import Refusal, Retry
from shared.http_client import Call
from shared.messages import Envelope


class TaxUnavailable(Refusal):
    """The tax engine did not answer in time; a tax is refused rather than guessed."""

    code = "tax-unavailable"
    title = "The tax cannot be worked out right now"
    status = 503
    retry = Retry.AFTER
    retry_after_seconds = 2


async def tax_of(
    envelope: Envelope, query: Price, context: Fulfillment, standing: Standing, shipping_amount: int
) -> tuple[TaxQuote, list[Notice], list[Call]]:
    """Work out a quote's tax; raises a refusal where it cannot be, rather than guess."""
    content, settings = query.content, standing.settings
    includes = bool(settings and settings.shipping_prices_include_tax)
    lines = rules.lines_of(content, shipping_amount=shipping_amount, shipping_includes_tax=includes)
    address = rules.destination(content)
    buyer = vat_ids.checked(content.vat_id, country="" if content.billing_address is None else content.billing_address.country_code)
    notices: list[Notice] = []
    removed: list[int] = []
    if settings is None:
        notices.append(Notice(code="tax-not-configured", detail="The store has not said where it sells from, so no tax is collected."))
        place = Place(country="ZZ") if address is None else rules.place_of(address)
        here, sale, provider = place, None, "built_in"
        found: list[Row] = rules.untaxed(lines, place)
        calls: list[Call] = []
    else:
        if address is None:
            raise AddressNeeded("Say where the order goes (shipping_address) or where its buyer is (billing_address).")
        engine = context.engine(envelope, settings.tax_provider)
        there, here, home = located(address), rules.place_of(settings.ship_from), Place(country=settings.home_country)
        place = there.place
        # What is not sent comes from where the seller is at home.
        sent = any(item.supply is SupplyKind.GOODS for item in content.items)
        here = here if sent or settings.home_country in rule_places(here).countries else home
        async with connected(context.desk.pool) as db:
            nexus, known = await context.ground(db, envelope, standing.revision, _countries(place, here, home))
            exempt = []
            if content.customer_id is not None:
                exempt = await registrations.exemptions_of(db, envelope.store_id, envelope.environment.value, content.customer_id)
        sale = Sale(
            ship_from=here,
            ship_to=place,
            day=standing.now.date(),
            home=settings.home_country,
            registrations=tuple(_registration(each.nexus) for each in nexus if each.nexus.registered),
            exemptions=tuple(_exemption(each) for each in exempt),
            buyer_vat_country=buyer.country if buyer is not None and buyer.valid else "",
            currency=content.currency,
            delivered=rules.is_sent(content),
        )
        check_origin(sale, known)
        notices += doubts(there, sale, known, field=rules.destination_field(content))
        if settings.fixed_price == "net":
            lines, removed = without_home_tax(lines, rules_of(at_home(sale), known), rules_of(sale, known, lines))
        request = TaxRequest(
            sale=sale, lines=tuple(lines), rules=known, content=content, ship_from=settings.ship_from, reference=query.snapshot_id
        )
        provider, calls = engine.name, []
        answer = await in_time(engine.quote(request), engine.name, context.settings.tax_timeout_seconds, calls)
        if isinstance(answer, Notice):
            raise TaxUnavailable(answer.detail, {"tax_provider": engine.name})
        found = answer
        if lacks_rules(sale, found):
            detail = f"There is no tax rule for {territory_of(place).name}, so no tax is collected there."
            notices.append(Notice(code="tax-not-collected", detail=detail))
        if region := own_region_untaxed(sale, found):
            detail = f"The store sells from {region} and has no registration there, so the tax of that region is not collected."
            notices.append(Notice(code="tax-not-collected", detail=detail))
        if due_at_border(sale, found):
            notices.append(Notice(code="import-vat-due", detail="The tax on the import is collected at the border, not by the store."))
        if old := context.old_rates(envelope, (row.rule_version for row in found), sale.day):
            notices.append(Notice(code="tax-rates-old", detail=old))
    if buyer is not None and not buyer.valid:
        notices.append(Notice(code="vat-id-invalid", detail="The VAT number cannot be one; the buyer is taxed as a consumer."))
    elif buyer is not None and buyer.country not in EU_GOODS and in_eu_vat_area(here) and in_eu_vat_area(place):
        detail = f"The VAT number is one of {buyer.country}, not of the EU or Northern Ireland; the buyer is taxed as a consumer."
        notices.append(Notice(code="vat-id-not-eu", detail=detail))
    freed = [] if sale is None else counted(sale, lines, found)
    quote = TaxQuote(
        currency=content.currency,
        provider=provider,
        tax_date=standing.now.date(),
        ship_from=_in_returns(content, here),
        ship_to=_in_returns(content, place),
        ship_to_region=place.region,
        goods=len(content.items),
        lines=_facts(lines, found, steps=settings.total_steps if settings else {}, currency=content.currency),
        rows=tuple(found),
        evidence=_evidence(buyer, freed=freed, address=address, now=standing.now),
        distance_sale=sale is not None and is_distance_sale(sale, lines),
        removed_taxes=tuple(removed),
        parties=None
        if settings is None or address is None or context.tax_books(envelope.store_id, envelope.environment, provider) is None
        else TaxParties(
            ship_from=settings.ship_from,
            ship_to=address,
            ship_from_region=here.region,
            ship_to_region=place.region,
            customer="guest" if content.customer_id is None else str(content.customer_id),
            certificates={SHIPPING if n == len(content.items) else str(n): certificate for n, certificate in freed},
            exempt={n for n, _ in freed} == set(range(len(lines))),
        ),
    )
    return quote, notices, calls


def _countries(*places: Place) -> set[str]:
    """Name the countries whose rules may hold at places: services are made at home, and its tax may come off a price."""
    return {country for each in places for country in rule_places(each).countries}


def _in_returns(content: OrderContent, place: Place) -> str:
    """Name the country of a place as returns do; Northern Ireland has a name of its own for goods alone."""
    territory = territory_of(place)
    sent = any(item.supply is SupplyKind.GOODS for item in content.items)
    return territory.country if sent or territory.code != NORTHERN_IRELAND else territory.tax


def _registration(nexus: NexusBody) -> Registration:
    return Registration(
        country=nexus.country,
        region=nexus.region,
        oss=nexus.oss,
        ioss=nexus.ioss,
        importer=nexus.importer,
        import_limits=nexus.import_limits,
        valid_from=nexus.valid_from,
        valid_to=nexus.valid_to,
    )


def _exemption(body: ExemptionBody) -> Exemption:
    return Exemption(
        certificate=body.certificate,
        country=body.country,
        region=body.region,
        tax_codes=tuple(body.tax_codes),
        valid_from=body.valid_from,
        valid_to=body.valid_to,
    )


def _facts(lines: Sequence[Line], rows: Sequence[Row], *, steps: Mapping[str, int], currency: str) -> tuple[LineFacts, ...]:
    """Say what the buyer pays by line; fees and what rounds the total follow the lines, where there are any."""
    exclusive: dict[int, int] = defaultdict(int)
    for row in rows:
        exclusive[row.line] += 0 if row.included else row.amount
    facts = [LineFacts(gross=line.amount + exclusive[n], quantity=line.quantity, tax_code=line.tax_code) for n, line in enumerate(lines)]
    if exclusive[len(lines)]:
        facts.append(LineFacts(gross=exclusive[len(lines)], tax_code=FEE))
    if rounding := rules.to_step(sum(each.gross for each in facts), steps, currency):
        facts.append(LineFacts(gross=rounding, tax_code=ROUNDING))
    return tuple(facts)


def _evidence(
    buyer: vat_ids.VatId | None, *, freed: Sequence[tuple[int, str]], address: Address | None, now: datetime
) -> dict[str, object]:
    """Keep what a tax office would ask for: whose number was checked how and when, which certificates counted, where the buyer is."""
    said: dict[str, object] = {}
    if buyer is not None:
        country = "EU" if buyer.country in EU_GOODS else buyer.country
        said["vat_id"] = {**msgspec.to_builtins(buyer), "checked": "check digits, offline", "at": now.isoformat(), "area": country}
    if freed:
        said["certificates"] = sorted({certificate for _, certificate in freed})
    if address is not None:
        said["place"] = {"country": address.country_code, "postal_code": address.postal_code, "country_area": address.country_area}
        territory = territory_of(rules.place_of(address))
        said["territory"] = {"name": territory.name, "tax": territory.country, "source": territory.source}
    return said
