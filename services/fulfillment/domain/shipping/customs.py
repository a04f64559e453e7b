"""Customs: what is declared of a parcel that crosses a customs border, and what must be known before a carrier is asked."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date

import msgspec

from services.fulfillment.domain import vat_ids
from services.fulfillment.domain.pricing import place_of
from services.fulfillment.domain.shipping.shipments import refuse_without_customs
from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.domain.territories import (
    EU,
    EU_AREA,
    EU_GOODS,
    NORTHERN_IRELAND,
    crosses_customs_border,
    in_eu_vat_area,
    territory_of,
)
from shared.contracts.customs import (
    FORMS,
    CustomsContents,
    CustomsTerms,
    DangerousGoods,
    DeliveryConfirmation,
    DutiesAccount,
    Incoterm,
    NonDelivery,
    TaxNumber,
    TaxNumberKind,
)
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.fulfillment.tax import NexusBody
from shared.contracts.orders import Address, FundedBy, Item, OrderContent, SupplyKind, TaxBehavior
from shared.errors import Refusal

LOW_VALUE, TO_CANADA, TO_TERRITORIES = "NOEEI 30.37(a)", "NOEEI 30.36", "NOEEI 30.2(d)(2)"
# By Schedule B code, from one shipper to one consignee (15 CFR 30.37(a)).
UNFILED_MAX_CENTS = 250_000
# What the United States are as far as exports go (15 CFR 30.1, 30.2(a)), and what belongs to them but is none of it (30.2(d)(2)).
EXPORTING = frozenset({"US", "PR", "VI"})
POSSESSIONS = frozenset({"GU", "AS", "MP", "UM"})
# Up to which value an export needs no declaration of its own and so no EORI number: Delegated Regulation (EU) 2015/2446,
# Article 141(4) and (4a); HMRC Notice 143 as of 2020-12-22.
UNDECLARED_EXPORT_MAX = {"EUR": 100_000, "GBP": 90_000}
# Up to which value a scheme takes a consignment: Directive 2006/112/EC, Article 369l (IOSS); articles below 3000 NOK (VOEC,
# skatteetaten.no); GST Act 1999, Subdivision 84-C (ARN).
SCHEME_MAX = {
    TaxNumberKind.IOSS: ("EUR", 15_000),
    TaxNumberKind.VOEC: ("NOK", 299_999),
    TaxNumberKind.ARN: ("AUD", 100_000),
}
# By which scheme a registration for what is sent into a country goes; in others it is for its VAT.
SCHEMES = {"NO": TaxNumberKind.VOEC, "AU": TaxNumberKind.ARN}
# ISO 3166-1, numeric codes of the member states.
ISO_NUMERIC = {
    "040": "AT",
    "056": "BE",
    "100": "BG",
    "191": "HR",
    "196": "CY",
    "203": "CZ",
    "208": "DK",
    "233": "EE",
    "246": "FI",
    "250": "FR",
    "276": "DE",
    "300": "GR",
    "348": "HU",
    "372": "IE",
    "380": "IT",
    "428": "LV",
    "440": "LT",
    "442": "LU",
    "470": "MT",
    "528": "NL",
    "616": "PL",
    "620": "PT",
    "642": "RO",
    "703": "SK",
    "705": "SI",
    "724": "ES",
    "752": "SE",
}
PRIVATE = frozenset({CustomsContents.GIFT, CustomsContents.DOCUMENTS, CustomsContents.HUMANITARIAN_DONATION})


class CustomsIncomplete(Refusal):
    """What the law wants declared is not all there; `field` names what is missing."""

    code = "customs-incomplete"
    title = "Customs declaration incomplete"
    status = 422


class DeclaredNumber(msgspec.Struct, frozen=True, kw_only=True):
    """A number that goes onto the parcel, and whose it is."""

    kind: TaxNumberKind
    number: str
    country: str
    of_sender: bool


class DeclaredGoods(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a declaration: all its units' weight, and their value in minor units."""

    description: str
    hs_code: str
    origin_country: str
    quantity: int
    weight_grams: int
    value: int


class Declaration(msgspec.Struct, frozen=True, kw_only=True):
    """A customs declaration; `eel_pfc` and `itn` are the export filing of the US."""

    signer: str
    contents: CustomsContents
    contents_explanation: str
    non_delivery: NonDelivery
    incoterm: Incoterm
    duties_account: DutiesAccount | None
    eel_pfc: str
    itn: str
    numbers: tuple[DeclaredNumber, ...]
    goods: tuple[DeclaredGoods, ...]
    currency: str


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a carrier must know of a parcel besides its weight and its way."""

    declaration: Declaration | None = None
    delivery_confirmation: DeliveryConfirmation | None = None
    dangerous_goods: tuple[DangerousGoods, ...] = ()

    @property
    def digest(self) -> str:
        """Tell terms apart; plain ones have none."""
        return "" if self == Terms() else hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class Registered(msgspec.Struct, frozen=True, kw_only=True):
    """What the store's tax registrations say of labels: its numbers, limits in other currencies, and whether it uses the IOSS."""

    numbers: tuple[TaxNumber, ...] = ()
    limits: dict[TaxNumberKind, dict[str, int]] = {}
    ioss: bool = False


NOWHERE = Registered()


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """Where a parcel goes from and to, and whether it comes back to the shop."""

    start: Address
    end: Address
    here: Place
    there: Place
    is_return: bool

    @property
    def crosses_border(self) -> bool:
        """Tell whether goods are declared on it."""
        return crosses_customs_border(self.here, self.there)


def way_of(start: Address, end: Address, *, is_return: bool = False) -> Way:
    """Find the places at both ends of a parcel's way."""
    return Way(start=start, end=end, here=place_of(start), there=place_of(end), is_return=is_return)


def terms_of(
    content: OrderContent,
    packages: Sequence[PackageBody],
    way: Way,
    *,
    said: Iterable[CustomsTerms | None],
    confirmations: Iterable[DeliveryConfirmation | None],
    registered: Registered = NOWHERE,
) -> Terms:
    """Say what a carrier must know of a parcel; the first that says something is taken. Refuses what the law does not allow."""
    dangerous = {item.dangerous_goods for item in content.items if item.dangerous_goods is not None}
    return Terms(
        declaration=_declaration(content, packages, way, merged(said), registered),
        delivery_confirmation=next((each for each in confirmations if each is not None), None),
        dangerous_goods=tuple(sorted(dangerous)),
    )


def said_of_return(store: CustomsTerms | None) -> CustomsTerms | None:
    """Give what of the store's terms also holds for what comes back to it."""
    return store and CustomsTerms(signer=store.signer, non_delivery=store.non_delivery, numbers=store.numbers)


def merged(said: Iterable[CustomsTerms | None]) -> CustomsTerms:
    """Take each term from the first who says it."""
    found: dict[str, object] = {}
    for terms in said:
        for name in CustomsTerms.__struct_fields__ if terms is not None else ():
            value = getattr(terms, name)
            if value is not None:
                found.setdefault(name, value)
    return CustomsTerms(**found)  # type: ignore[arg-type]


def _declaration(
    content: OrderContent, packages: Sequence[PackageBody], way: Way, terms: CustomsTerms, registered: Registered
) -> Declaration | None:
    here, there = way.here, way.there
    if not way.crosses_border:
        return None
    refuse_without_customs(content.items, here, there)
    contents = terms.contents or (CustomsContents.RETURNED_GOODS if way.is_return else CustomsContents.MERCHANDISE)
    sent = ((n, item) for n, item in enumerate(content.items) if item.supply is SupplyKind.GOODS)
    goods = tuple(_goods(n, item, _included_tax(content, n)) for n, item in sent)
    _refuse_heavier(goods, packages)
    if contents is CustomsContents.OTHER and not terms.contents_explanation:
        raise _incomplete("customs.contents_explanation", "Contents of the type other need an explanation.")
    incoterm = terms.incoterm or Incoterm.DAP
    if incoterm is Incoterm.DDP and terms.duties_account is None:
        raise _incomplete("customs.duties_account", "DDP needs the account that duties are charged to.")
    eel_pfc, itn = _export_filing(goods, content.currency, here, there, terms)
    declaration = Declaration(
        # The shop certifies, also what comes back to it.
        signer=terms.signer or (way.end if way.is_return else way.start).name,
        contents=contents,
        contents_explanation=terms.contents_explanation or "",
        non_delivery=terms.non_delivery or NonDelivery.RETURN,
        incoterm=incoterm,
        duties_account=terms.duties_account if incoterm is Incoterm.DDP else None,
        eel_pfc=eel_pfc,
        itn=itn,
        numbers=tuple(_numbers(content, goods, way, terms.numbers or [], registered)),
        goods=goods,
        currency=content.currency,
    )
    if not way.is_return and contents not in PRIVATE:
        _refuse_without_eori(declaration, here)
    return declaration


def _included_tax(content: OrderContent, line: int) -> int:
    return sum(tax.amount for tax in content.tax_lines or [] if tax.line == line and tax.behavior is TaxBehavior.INCLUSIVE)


def _goods(line: int, item: Item, included_tax: int) -> DeclaredGoods:
    assert item.customs is not None, "it was looked at just now"
    if not item.weight_grams:
        raise _incomplete(f"items[{line}].weight_grams", "A customs declaration states the weight of every item.")
    value = _value(item, included_tax)
    if value <= 0:
        raise _incomplete(f"items[{line}].customs.unit_value", "What is free has a value for customs all the same.")
    return DeclaredGoods(
        description=item.customs.description,
        hs_code=item.customs.hs_code,
        origin_country=item.customs.origin_country,
        quantity=item.quantity,
        weight_grams=item.quantity * item.weight_grams,
        value=value,
    )


def _value(item: Item, included_tax: int) -> int:
    """Value a line: what is paid for it by the buyer or for them, without tax, or what it is said to be worth.

    Regulation (EU) 952/2013, Article 70(1) and (2); for intrinsic values Delegated Regulation (EU) 2015/2446, Article 1(48).
    """
    assert item.customs is not None, "it was looked at just now"
    if item.customs.unit_value is not None:
        return item.quantity * item.customs.unit_value
    discounts = sum(a.amount for a in item.adjustments if a.funded_by is not FundedBy.THIRD_PARTY)
    return item.quantity * item.unit_price - discounts - included_tax


def _refuse_heavier(goods: Sequence[DeclaredGoods], packages: Sequence[PackageBody]) -> None:
    declared, packed = sum(each.weight_grams for each in goods), sum(each.weight_grams for each in packages)
    if declared > packed:
        raise _incomplete("packages", f"The goods weigh {declared} g, and the packages that hold them {packed} g.")


def _export_filing(goods: Sequence[DeclaredGoods], currency: str, here: Place, there: Place, terms: CustomsTerms) -> tuple[str, str]:
    """Give an export from the US its exemption legend or filing number (15 CFR Part 30); refuses what is not filed and must be."""
    start, end = territory_of(here).code, territory_of(there).code
    if start not in EXPORTING or (start == "VI" and end in ("US", "PR")):
        return "", ""
    if terms.itn is not None:
        return "", terms.itn
    if terms.eel_pfc is not None and terms.eel_pfc not in (LOW_VALUE, TO_CANADA):
        return terms.eel_pfc, ""
    if end == "CA":
        return TO_CANADA, ""
    if currency == "USD" and all(value <= UNFILED_MAX_CENTS for value in _by_code(goods).values()):
        return LOW_VALUE, ""
    if currency != "USD" and terms.eel_pfc == LOW_VALUE:
        return LOW_VALUE, ""
    if end in POSSESSIONS:
        return TO_TERRITORIES, ""
    raise _incomplete(
        "customs.itn",
        "Goods of one HS code that are worth more than 2500 USD leave the US with an ITN (15 CFR 30.37(a))."
        if currency == "USD"
        else f"Whether a value in {currency} must be filed in the US is not known: give the ITN, or the exemption (eel_pfc).",
    )


def _by_code(goods: Sequence[DeclaredGoods]) -> dict[str, int]:
    values: dict[str, int] = {}
    for each in goods:
        values[each.hs_code] = values.get(each.hs_code, 0) + each.value
    return values


def _numbers(
    content: OrderContent, goods: Sequence[DeclaredGoods], way: Way, stated: Sequence[TaxNumber], registered: Registered
) -> list[DeclaredNumber]:
    """Choose the numbers that say something at this border: the shop's, and the VAT number of a buyer in business."""
    by_register = {(each.kind, each.country): each for each in (*registered.numbers, *stated)}
    # The exporter's number first: of several EORI numbers a carrier may take one.
    known = sorted(by_register.values(), key=lambda each: each.kind is TaxNumberKind.EORI and not _registers(each.country, way.here))
    chosen = [
        DeclaredNumber(kind=each.kind, number=each.number, country=each.country, of_sender=not way.is_return)
        for each in known
        if _counts(each.kind, each.country, content, goods, way, registered)
    ]
    unnamed = registered.ioss and not any(each.kind is TaxNumberKind.IOSS for each in chosen)
    if unnamed and _counts(TaxNumberKind.IOSS, "", content, goods, way, registered):
        # Only with its number is the import free of the tax that the sale bore (Directive 2006/112/EC, Article 143(1)(ca)).
        raise _incomplete("customs.numbers", "The store collects import VAT by the IOSS, so the label needs its number.")
    if (theirs := _plain(content.vat_id)) and not way.is_return and (_buyer(content) or not in_eu_vat_area(way.there)):
        prefix = theirs[:2] if theirs[:2].isalpha() else way.end.country_code
        # Greece writes its VAT numbers with EL (Directive 2006/112/EC, Article 215).
        country = "GR" if prefix == "EL" else prefix
        chosen.append(DeclaredNumber(kind=TaxNumberKind.VAT, number=theirs, country=country, of_sender=False))
    return chosen


def _buyer(content: OrderContent) -> str:
    """Name the country in which the buyer is registered for its tax, as the tax of the sale has it; empty for consumers."""
    found = vat_ids.checked(content.vat_id, country="" if content.billing_address is None else content.billing_address.country_code)
    return found.country if found is not None and found.valid else ""


def _plain(number: str) -> str:
    return "".join(character for character in number.upper() if character.isalnum())


def _counts(
    kind: TaxNumberKind, country: str, content: OrderContent, goods: Sequence[DeclaredGoods], way: Way, registered: Registered
) -> bool:
    here, there = way.here, way.there
    match kind:
        case TaxNumberKind.EORI:
            return any(_registers(country, place) for place in (here, there))
        case TaxNumberKind.VAT:
            return country in {code for place in (here, there) for code in (place.country, territory_of(place).tax)}
        case TaxNumberKind.EIN:
            return bool(EXPORTING & {territory_of(here).code, territory_of(there).code})
    destined = {
        TaxNumberKind.IOSS: in_eu_vat_area(there) and not in_eu_vat_area(here),
        TaxNumberKind.VOEC: there.country == "NO" and here.country != "NO",
        TaxNumberKind.ARN: there.country == "AU" and here.country != "AU",
    }
    buyer = _buyer(content)
    business = buyer == territory_of(there).tax or (in_eu_vat_area(there) and buyer in EU_GOODS)
    return destined[kind] and not business and not way.is_return and not _exceeds(kind, goods, content.currency, registered)


def _registers(country: str, place: Place) -> bool:
    """Tell whether a country's EORI numbers are those of a place: one of any member state is the whole EU's customs territory's."""
    area = EU_AREA if country in EU or country == NORTHERN_IRELAND else country
    return area in territory_of(place).customs or country == place.country


def _exceeds(kind: TaxNumberKind, goods: Sequence[DeclaredGoods], currency: str, registered: Registered) -> bool:
    """Tell whether goods are worth more than a scheme takes; a price in a currency without a limit is taken at the shop's word."""
    scheme_currency, most = SCHEME_MAX[kind]
    if currency != scheme_currency:
        stated = registered.limits.get(kind, {}).get(currency)
        if stated is None:
            return False
        most = stated
    if kind is TaxNumberKind.VOEC:
        return any(each.value > most * each.quantity for each in goods)
    return sum(each.value for each in goods) > most


def _refuse_without_eori(declaration: Declaration, here: Place) -> None:
    """Refuse a commercial export that needs a declaration of its own and names no exporter (Regulation (EU) 952/2013, Article 9)."""
    most = UNDECLARED_EXPORT_MAX.get(declaration.currency)
    area = {"EUR": EU_AREA, "GBP": "GB"}.get(declaration.currency)
    named = any(each.kind is TaxNumberKind.EORI and _registers(each.country, here) for each in declaration.numbers)
    if most is not None and area in territory_of(here).customs and not named and sum(each.value for each in declaration.goods) > most:
        raise _incomplete(
            "customs.numbers", f"A commercial export of more than {most // 100} {declaration.currency} needs the EORI number."
        )


def _incomplete(field: str, detail: str) -> CustomsIncomplete:
    return CustomsIncomplete(detail, {"field": f"$.{field}"})


def registered_in(nexus: Iterable[NexusBody], *, day: date) -> Registered:
    """Read from the registrations that stand on a day what goes onto labels."""
    standing = [each for each in nexus if each.registered and each.valid_from <= day and (each.valid_to is None or day <= each.valid_to)]
    numbers = [number for each in standing if (number := _number_of(each)) is not None]
    limits: dict[TaxNumberKind, dict[str, int]] = {}
    for each in standing:
        kind = TaxNumberKind.IOSS if each.ioss else SCHEMES.get(each.country)
        if kind is not None:
            limits.setdefault(kind, {}).update(each.import_limits)
    return Registered(numbers=tuple(numbers), limits=limits, ioss=any(each.ioss for each in standing))


def _number_of(nexus: NexusBody) -> TaxNumber | None:
    """Read a registration's number as one for labels, if it is one: a state's or the Union scheme's is not."""
    number = _plain(nexus.registration_number)
    if nexus.region or nexus.oss or not number:
        return None
    kind = TaxNumberKind.IOSS if nexus.ioss else SCHEMES.get(nexus.country, TaxNumberKind.VAT)
    if not FORMS[kind].fullmatch(number):
        return None
    # The member state of identification is in the number, as ISO 3166-1 counts it.
    country = ISO_NUMERIC.get(number[2:5], "EU") if nexus.ioss else nexus.country
    return TaxNumber(kind=kind, number=number, country=country)
