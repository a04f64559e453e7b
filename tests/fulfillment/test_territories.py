"""Territories: whose tax, whose VAT area and whose customs, as the law has it, for goods from there as for goods to there."""

from itertools import product
from typing import Any

import pytest

from services.fulfillment.domain.places import located
from services.fulfillment.domain.shipping.shipments import CustomsNeeded, refuse_without_customs
from services.fulfillment.domain.tax.engine import Row
from services.fulfillment.domain.tax.regional import doubts
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule
from services.fulfillment.domain.tax.sale import NoTaxRule, Registration, Sale, is_distance_sale, lacks_rules
from services.fulfillment.domain.territories import EU, TERRITORIES, crosses_customs_border, in_eu_vat_area, territory_of
from services.fulfillment.domain.vat_ids import checked
from shared.contracts.orders import Address, Item, SupplyKind
from shared.ids import new_id
from tests.fulfillment.rates import DAY, goods, national, rule, sold

VAT_5, VAT_6_1, VAT_6_2, VAT_7 = (f"Directive 2006/112/EC, Article {article}" for article in ("5", "6(1)", "6(2)", "7(1)"))
UCC = "Regulation (EU) 952/2013, Article 4"
US_CUSTOMS = "19 CFR 101.1"
DMM = "USPS DMM 608.2.4"

# As written in an address, whose tax, in the EU's VAT area for goods, the customs territory, and where the law says so.
PLACES = {
    # Of the EU's customs, outside its VAT.
    "GR 63086": ("GR-69", False, "EU", f"{VAT_6_1}(a) Mount Athos"),
    "GR 63087": ("GR-69", False, "EU", f"{VAT_6_1}(a) Mount Athos"),
    "GR GR-69": ("GR-69", False, "EU", f"{VAT_6_1}(a) Mount Athos"),
    "ES 35001": ("IC", False, "EU", f"{VAT_6_1}(b) Canary Islands"),
    "ES E-38001": ("IC", False, "EU", f"{VAT_6_1}(b) Canary Islands"),
    "ES ES-GC": ("IC", False, "EU", f"{VAT_6_1}(b) Canary Islands"),
    "ES ES-TF": ("IC", False, "EU", f"{VAT_6_1}(b) Canary Islands"),
    "ES ES-CN": ("IC", False, "EU", f"{VAT_6_1}(b) Canary Islands"),
    "IC 35001": ("IC", False, "EU", f"{VAT_6_1}(b) Canary Islands"),
    "FR 97100": ("GP", False, "EU", f"{VAT_6_1}(c) Guadeloupe"),
    "FR 97110": ("GP", False, "EU", f"{VAT_6_1}(c) Guadeloupe"),
    "GP 97110": ("GP", False, "EU", f"{VAT_6_1}(c) Guadeloupe"),
    "FR 97200": ("MQ", False, "EU", f"{VAT_6_1}(c) Martinique"),
    "FR 97300": ("GF", False, "EU", f"{VAT_6_1}(c) French Guiana"),
    "FR 97400": ("RE", False, "EU", f"{VAT_6_1}(c) Réunion"),
    "FR F-97490": ("RE", False, "EU", f"{VAT_6_1}(c) Réunion"),
    "RE": ("RE", False, "EU", f"{VAT_6_1}(c) Réunion"),
    "FR FR-974": ("RE", False, "EU", f"{VAT_6_1}(c) Réunion"),
    "FR 97600": ("YT", False, "EU", f"{VAT_6_1}(c) Mayotte; TFEU Article 355(1)"),
    "FR 97150": ("MF", False, "EU", f"{VAT_6_1}(c) Saint-Martin; TFEU Article 355(1)"),
    "FR 97800": ("MF", False, "EU", f"{VAT_6_1}(c) Saint-Martin; TFEU Article 355(1)"),
    "FI 22100": ("AX", False, "EU", f"{VAT_6_1}(d) Åland"),
    "FI AX-22100": ("AX", False, "EU", f"{VAT_6_1}(d) Åland"),
    "FI FI-01": ("AX", False, "EU", f"{VAT_6_1}(d) Åland"),
    "AX 22100": ("AX", False, "EU", f"{VAT_6_1}(d) Åland"),
    "IT 22061": ("IT-Campione", False, "EU", f"{VAT_6_1}(f) Campione, by Directive (EU) 2019/475; {UCC} by Regulation (EU) 2019/474"),
    "CH 6911": ("IT-Campione", False, "EU", "the same, by the Swiss post's code"),
    # Outside both.
    "DE 27498": ("DE-Heligoland", False, "DE-Heligoland", f"{VAT_6_2}(a) Heligoland; {UCC}"),
    "DE D-27498": ("DE-Heligoland", False, "DE-Heligoland", f"{VAT_6_2}(a) Heligoland; {UCC}"),
    "ES 51001": ("ES-CE", False, "ES-CE", f"{VAT_6_2}(c) Ceuta; {UCC}"),
    "ES 52001": ("ES-ML", False, "ES-ML", f"{VAT_6_2}(d) Melilla; {UCC}"),
    "EA 51001": ("ES-CE", False, "ES-CE", f"{VAT_6_2}(c) Ceuta; {UCC}"),
    "IT 23041": ("IT-Livigno", False, "IT-Livigno", f"{VAT_6_2}(e) Livigno; {UCC}"),
    "IT I-23041": ("IT-Livigno", False, "IT-Livigno", f"{VAT_6_2}(e) Livigno; {UCC}"),
    "FR 97500": ("PM", False, "PM", f"{VAT_5}(2); TFEU Annex II: Saint-Pierre-et-Miquelon"),
    "PM": ("PM", False, "PM", f"{VAT_5}(2); TFEU Annex II: Saint-Pierre-et-Miquelon"),
    "FR 97133": ("BL", False, "BL", f"{VAT_5}(2); European Council Decision 2010/718/EU: Saint-Barthélemy"),
    "FR 98413": ("TF", False, "TF", f"{VAT_5}(2); TFEU Annex II: French Southern Territories"),
    "FR 98600": ("WF", False, "WF", f"{VAT_5}(2); TFEU Annex II: Wallis and Futuna"),
    "FR 98714": ("PF", False, "PF", f"{VAT_5}(2); TFEU Annex II: French Polynesia"),
    "FR 98800": ("NC", False, "NC", f"{VAT_5}(2); TFEU Annex II: New Caledonia"),
    "NL NL-BQ1": ("BQ", False, "BQ", f"{VAT_5}(2); TFEU Annex II: Bonaire"),
    "AW": ("AW", False, "AW", f"{VAT_5}(2); TFEU Annex II: Aruba"),
    "CW": ("CW", False, "CW", f"{VAT_5}(2); TFEU Annex II: Curaçao"),
    "GL 3900": ("GL", False, "GL", f"{VAT_5}(2); TFEU Annex II: Greenland"),
    "DK DK-3900": ("GL", False, "GL", f"{VAT_5}(2); TFEU Annex II: Greenland"),
    "FO 100": ("FO", False, "FO", "TFEU Article 355(5)(a): Faroe Islands"),
    "SM 47890": ("SM", False, "SM", "San Marino is a state; customs union of 2002, no Italian VAT (DPR 633/72, Article 71)"),
    "IT 47891": ("SM", False, "SM", "San Marino is a state; customs union of 2002, no Italian VAT (DPR 633/72, Article 71)"),
    "VA 00120": ("VA", False, "VA", "Vatican City is a state (DPR 633/72, Article 71)"),
    "IT 00120": ("VA", False, "VA", "Vatican City is a state (DPR 633/72, Article 71)"),
    "AD AD100": ("AD", False, "AD", "Andorra is a state; customs union by declaration (Agreement of 1990)"),
    "TR 34000": ("TR", False, "TR", "Turkey is a state; customs union by declaration (A.TR, Decision 1/95)"),
    # Within both, by another country or by a rate of its own.
    "MC 98000": ("FR", True, "EU", f"{VAT_7} Monaco; {UCC}(2)(a)"),
    "FR 98000": ("FR", True, "EU", f"{VAT_7} Monaco; {UCC}(2)(a)"),
    "FR MC-98000": ("FR", True, "EU", f"{VAT_7} Monaco; {UCC}(2)(a)"),
    "MC": ("FR", True, "EU", f"{VAT_7} Monaco; {UCC}(2)(a)"),
    "CY 4640": ("CY", True, "EU", f"{VAT_7} Akrotiri; {UCC}(2)(b)"),
    "AT 6691": ("AT", True, "EU", "UStG 1994, § 10(4) Jungholz: Austria's, at 19 %"),
    "AT 6992": ("AT", True, "EU", "UStG 1994, § 10(4) Mittelberg: Austria's, at 19 %"),
    "DE 87491": ("AT", True, "EU", "UStG 1994, § 10(4) Jungholz, by the German post's code"),
    "DE 87568": ("AT", True, "EU", "UStG 1994, § 10(4) Mittelberg, by the German post's code"),
    "PT 9000-064": ("PT", True, "EU", "Directive 2006/112/EC, Article 105: Madeira"),
    "PT 9500-321": ("PT", True, "EU", "Directive 2006/112/EC, Article 105: Azores"),
    "FR 20000": ("FR", True, "EU", "Corsica is France (CGI, Article 297: rates)"),
    "ES 07001": ("ES", True, "EU", "the Balearic Islands are Spain"),
    "DK 3700": ("DK", True, "EU", "Bornholm is Denmark"),
    "DE 78267": ("DE", True, "EU", "next to Büsingen"),
    "FI 21600": ("FI", True, "EU", "next to Åland"),
    "IT 23030": ("IT", True, "EU", "next to Livigno"),
    "IT 22060": ("IT", True, "EU", "once Campione's as well, now that of other towns near Como"),
    "EL 10552": ("GR", True, "EU", "Directive 2006/112/EC, Article 215: EL is Greece"),
    # The United Kingdom.
    "GB BT1 1AA": ("GB", True, "EU GB", "Windsor Framework, Articles 4, 5 and 8: Northern Ireland"),
    "GB bt15gs": ("GB", True, "EU GB", "Windsor Framework, Articles 4, 5 and 8: Northern Ireland"),
    "GB GB-NIR": ("GB", True, "EU GB", "Windsor Framework, Articles 4, 5 and 8: Northern Ireland"),
    "XI BT1 1AA": ("GB", True, "EU GB", "Windsor Framework, Articles 4, 5 and 8: Northern Ireland"),
    "GB SW1A 1AA": ("GB", False, "GB", "Great Britain"),
    "UK SW1A 1AA": ("GB", False, "GB", "Great Britain"),
    "GB B1 1AA": ("GB", False, "GB", "Birmingham, not Belfast"),
    "IM IM1 1AE": ("GB", False, "GB", "Isle of Man Act 1979, s. 1 and 6"),
    "GB IM1 1AE": ("GB", False, "GB", "Isle of Man Act 1979, s. 1 and 6"),
    "JE JE2 3AB": ("JE", False, "GB", "VATA 1994, s. 96; Customs Agreement with Jersey of 2018"),
    "GB JE2 3AB": ("JE", False, "GB", "VATA 1994, s. 96; Customs Agreement with Jersey of 2018"),
    "GG GY1 1WG": ("GG", False, "GB", "VATA 1994, s. 96; Customs Agreement with Guernsey of 2018"),
    "GB GY1 1WG": ("GG", False, "GB", "VATA 1994, s. 96; Customs Agreement with Guernsey of 2018"),
    "GI GX11 1AA": ("GI", False, "GI", "VATA 1994, s. 96; UK-EU agreement of 2026: own transaction tax, T2 transit to and from the EU"),
    # Switzerland.
    "CH 8001": ("CH", False, "CH", "MWSTG, Article 3(a)"),
    "LI 9490": ("CH", False, "CH", "MWSTG, Article 3(a); Treaty of 29 March 1923, Article 1"),
    "CH 9490": ("CH", False, "CH", "MWSTG, Article 3(a); Treaty of 29 March 1923, Article 1"),
    "DE 78266": ("CH", False, "CH", f"{VAT_6_2}(b) Büsingen; {UCC}; Treaty of 23 November 1964, Article 1"),
    "DE DE-78266": ("CH", False, "CH", f"{VAT_6_2}(b) Büsingen; {UCC}; Treaty of 23 November 1964, Article 1"),
    "CH 8238": ("CH", False, "CH", f"{VAT_6_2}(b) Büsingen; {UCC}; Treaty of 23 November 1964, Article 1"),
    "CH 7563": ("CH-Samnaun", False, "CH-Samnaun", "MWSTG, Article 4(1); ZG, Article 3(3)"),
    # Norway.
    "NO 0150": ("NO", False, "NO", "merverdiavgiftsloven, § 1-2"),
    "NO 9170": ("SJ", False, "SJ", "merverdiavgiftsloven, § 1-2: Svalbard"),
    "NO 8099": ("SJ", False, "SJ", "merverdiavgiftsloven, § 1-2: Jan Mayen"),
    "SJ 9170": ("SJ", False, "SJ", "merverdiavgiftsloven, § 1-2: Svalbard"),
    # The United States.
    "US 20001": ("US", False, "US", f"{US_CUSTOMS}: the District of Columbia"),
    "US 96813": ("US", False, "US", f"{US_CUSTOMS}: Hawaii is a State"),
    "US 99501": ("US", False, "US", f"{US_CUSTOMS}: Alaska is a State"),
    "US 00901": ("PR", False, "US", f"{US_CUSTOMS}: Puerto Rico is of the customs territory; IVU, 13 L.P.R.A. § 32021"),
    "US US-PR": ("PR", False, "US", f"{US_CUSTOMS}: Puerto Rico is of the customs territory; IVU, 13 L.P.R.A. § 32021"),
    "PR 00901-1234": ("PR", False, "US", f"{US_CUSTOMS}: Puerto Rico is of the customs territory; IVU, 13 L.P.R.A. § 32021"),
    "US 00802": ("VI", False, "VI", f"{US_CUSTOMS}: the Virgin Islands are not"),
    "VI 00802": ("VI", False, "VI", f"{US_CUSTOMS}: the Virgin Islands are not"),
    "US 96910": ("GU", False, "GU", f"{US_CUSTOMS}; {DMM}: Guam"),
    "US 96799": ("AS", False, "AS", f"{US_CUSTOMS}; {DMM}: American Samoa"),
    "US 96950": ("MP", False, "MP", f"{US_CUSTOMS}; {DMM}: Northern Mariana Islands"),
    "US 96940": ("PW", False, "PW", f"{DMM}: Palau is a state"),
    "US 96960": ("MH", False, "MH", f"{DMM}: the Marshall Islands are a state"),
    "US 09012": ("US", False, "", f"{DMM}: APO, Europe"),
    "US US-AE": ("US", False, "", f"{DMM}: APO, Europe"),
    "US 34001": ("US", False, "", f"{DMM}: APO, Americas"),
    "US 96201-5000": ("US", False, "", f"{DMM}: APO, Pacific"),
    # Others.
    "AU 2899": ("NF", False, "NF", "GST Act 1999, s. 195-1: Norfolk Island"),
    "AU 6798": ("CX", False, "CX", "GST Act 1999, s. 195-1: Christmas Island"),
    "AU 2000": ("AU", False, "AU", "GST Act 1999, s. 195-1"),
    "CK": ("CK", False, "CK", "the Cook Islands are a state; no part of New Zealand (Interpretation Act)"),
    "HK": ("HK", False, "HK", "Basic Law, Articles 108 and 116"),
    "CN CN-HK": ("HK", False, "HK", "Basic Law, Articles 108 and 116"),
    "MO": ("MO", False, "MO", "Basic Law of Macao, Articles 106 and 112"),
}


def a_place(written: str) -> Place:
    """Read a place as the table writes it: a country and a postal code or a region."""
    country, _, rest = written.partition(" ")
    region = (
        rest if (rest.startswith(f"{country}-") and not rest[len(country) + 1 :].isdigit()) or rest in ("FR-974", "GR-69", "FI-01") else ""
    )
    return Place(country=country, region=region, postal_code="" if region else rest)


@pytest.mark.parametrize(("written", "tax", "in_eu", "customs", "source"), [(written, *facts) for written, facts in PLACES.items()])
def test_a_territory_is_as_the_law_has_it(written: str, tax: str, in_eu: bool, customs: str, source: str) -> None:
    """D1-D6 and their kind: however a place is written."""
    place = a_place(written)
    territory = territory_of(place)

    assert (territory.tax, in_eu_vat_area(place), territory.customs) == (tax, in_eu, frozenset(customs.split())), source


def test_every_row_names_its_source_and_is_tried_here() -> None:
    tried = {territory_of(a_place(written)).name for written in PLACES}
    # Rows of a kind of which others are tried: overseas territories by their own words for a postal code, and what has no own code.
    alike = {"Falkland Islands", "Saint Helena, Ascension and Tristan da Cunha", "British Indian Ocean Territory", "Pitcairn", "Taiwan"}
    alike |= {"South Georgia", "Turks and Caicos Islands", "Sint Maarten", "Clipperton", "Micronesia", "US Minor Outlying Islands"}
    alike |= {"Cocos (Keeling) Islands", "Akrotiri and Dhekelia", "British Forces Post Office"}

    assert all(each.source for each in TERRITORIES)
    assert {each.name for each in TERRITORIES} - tried == alike


# What others list, as facts: (country, postal code) and whether the EU's VAT rules on goods hold there.
# karrio, providers/dhl_freight_sweden, in_eu_vat_area (its own test); its blocks FR 97000, 97999 and DK 3800 to 3899, which no place uses
# but for Tórshavn of old, were left out.
KARRIO = (
    *("SE 11143", "PL 00-001", "GR 10552", "EL 10552", "DE 10115", "IT 00100", "FI 00100", "ES 28001", "GB BT1 1AA", "GB bt1 1aa"),
    *("MC 98000", "FR 98000", "FR 75004", "DK 1620", "DK 3799", "DK 4000", "FI FI-00100", "DK DK-1620", "GB GB-BT1 1AA", "SE SE-111 43"),
)
KARRIO_OUTSIDE = (
    *("DE 78266", "DE 27498", "IT 23041", "IT 22061", "FI 22100", "FI 22 100", "AX 22100", "ES 35001", "ES 38001", "ES 51001", "ES 52001"),
    *("IC 35001", "GP 97110", "GF 97300", "MQ 97200", "RE 97400", "YT 97600", "NO 0154", "GB SW1A 1AA", "GB EC1A 1BB", "FR 97110"),
    *("FR 97400", "DK 3800", "DK 3900", "DK 3999", "FI FI-22100", "FI fi-22100", "DK DK-3900", "ES ES-35001", "FR FR-97200", "GR 630 86"),
    "CH 8001",
)
# drupalcommerce/commerce, EuropeanUnionVat.php: excluded_postal_codes, and the territories that its zones add.
DRUPAL = ("MC 98000", "AT 6691", "AT 6991", "PT 9000-001", "PT 9500-001", "ES 07001")
DRUPAL_OUTSIDE = ("DE 27498", "DE 78266", "ES 35001", "ES 38999", "ES 51001", "ES 52001", "FI 22100", "GR 63086", "IT 22061", "IT 23041")
JUDGED = [
    *product(KARRIO, (True,), ("karrio",)),
    *product(KARRIO_OUTSIDE, (False,), ("karrio",)),
    *product(DRUPAL, (True,), ("drupalcommerce",)),
    *product(DRUPAL_OUTSIDE, (False,), ("drupalcommerce",)),
]


@pytest.mark.parametrize(("written", "inside", "judge"), JUDGED)
def test_others_say_the_same_of_the_eu_vat_area(written: str, inside: bool, judge: str) -> None:
    country, _, postal_code = written.partition(" ")

    assert in_eu_vat_area(Place(country=country, postal_code=postal_code)) is inside, judge


RULES = (
    *(national(country, "20", name=f"VAT {country}") for country in sorted(EU)),
    *(national("AT", "19", name="VAT AT", postal_codes=(code,)) for code in ("6691", "6991-6993")),
    *(national(country, "20", name=f"VAT {country}") for country in ("GB", "CH", "NO", "AU")),
    *(rule("7.25", "state tax", region=region) for region in ("US-CA", "US-NY")),
)
LOCAL = Rule(
    version="IGIC", country="ES", postal_codes=("35*", "38*"), name="IGIC", rate_percent=national("ES", "7").rate_percent, valid_from=DAY
)
OSS = Registration(oss=True)


def a_sale(here: str, there: str, *registrations: Registration, home: str = "", **facts: Any) -> Sale:
    origin = a_place(here)
    return Sale(ship_from=origin, ship_to=a_place(there), day=DAY, home=home or origin.country, registrations=registrations, **facts)


def taxed_as(sale: Sale, *rules: Rule) -> tuple[int, Reason, str]:
    [row] = sold(sale, [goods(10_000)], *(rules or RULES))
    return row.amount, row.reason, row.country


@pytest.mark.parametrize("there", [written for written, (tax, *_) in PLACES.items() if tax not in ("DE", "FR", "GB", "US")])
def test_a_sale_to_a_territory_is_taxed_by_its_own_rules(there: str) -> None:
    """D2-D6: from Germany with the One-Stop-Shop, to wherever the EU's VAT ends or goes on."""
    tax, in_eu, _, source = PLACES[there]

    amount, reason, country = taxed_as(a_sale("DE 10115", there, OSS))

    assert (amount > 0, reason, country if in_eu else tax) == (
        (True, Reason.STANDARD_RATED, tax) if in_eu else (False, Reason.EXPORT, tax)
    ), source


@pytest.mark.parametrize(
    "here", [written for written, (tax, in_eu, *_) in PLACES.items() if not in_eu and tax not in ("GB", "CH", "NO", "AU")]
)
def test_a_sale_from_outside_is_no_sale_within_the_eu(here: str) -> None:
    """The kind of D1-D6 for the place sold from: nothing is taxed as if it came from the country in the address."""
    tax, _, _, source = PLACES[here]

    assert taxed_as(a_sale(here, "DE 10115", home=tax[:2]))[:2] == (
        (2_000, Reason.STANDARD_RATED) if tax[:2] == "DE" else (0, Reason.NOT_COLLECTING)
    ), source


@pytest.mark.parametrize("written", PLACES)
def test_a_place_is_at_home_with_itself(written: str) -> None:
    """Within a territory a sale is domestic: never an export, never within the EU, and needs no customs unless every parcel does."""
    tax, *_ = PLACES[written]
    amount, reason, _ = taxed_as(a_sale(written, written))

    assert reason is (
        Reason.STANDARD_RATED if any(rule.country == tax and rule.level is Level.COUNTRY for rule in RULES) else Reason.NOT_COLLECTING
    )
    assert crosses_customs_border(a_place(written), a_place(written)) is (not PLACES[written][2])
    assert (amount > 0) is (reason is Reason.STANDARD_RATED)


SALES = [
    ("D1", "DE 10115", "MC 98000", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D1", "DE 10115", "FR 98000", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D1", "FR 75001", "MC 98000", (), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D1", "FR 75001", "FR 98000", (), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D1", "MC 98000", "FR 75001", (), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D1", "MC 98000", "MC 98000", (), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D1", "MC 98000", "DE 10115", (), {}, (2_000, Reason.STANDARD_RATED, "FR"), "Article 59c: below the threshold where it comes from"),
    ("D1", "MC 98000", "DE 10115", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "DE"), "Article 33(a)"),
    ("D1", "MC 98000", "CH 8001", (), {}, (0, Reason.EXPORT, "CH"), "Article 146"),
    ("D1 business", "DE 10115", "MC 98000", (OSS,), {"buyer_vat_country": "FR"}, (0, Reason.INTRA_COMMUNITY_SUPPLY, "FR"), "Article 138"),
    ("D1 at home", "FR 75001", "MC 98000", (), {"buyer_vat_country": "FR"}, (2_000, Reason.STANDARD_RATED, "FR"), "Article 138: no border"),
    ("D1 by FR", "DE 10115", "MC 98000", (Registration(country="FR"),), {}, (2_000, Reason.STANDARD_RATED, "FR"), VAT_7),
    ("D2", "DE 10115", "FR 97500", (OSS,), {}, (0, Reason.EXPORT, "PM"), VAT_5),
    ("D2", "FR 75001", "FR 97500", (), {}, (0, Reason.EXPORT, "PM"), VAT_5),
    ("D3", "ES 28001", "ES 35001", (), {}, (0, Reason.EXPORT, "IC"), f"{VAT_6_1}(b)"),
    ("D4", "FR 75001", "RE 97400", (), {}, (0, Reason.EXPORT, "RE"), f"{VAT_6_1}(c); CGI, Article 294(2)"),
    ("D6", "DE 10115", "DE D-27498", (OSS,), {}, (0, Reason.EXPORT, "DE"), f"{VAT_6_2}(a)"),
    ("D6", "FR 75001", "DE D-27498", (OSS,), {}, (0, Reason.EXPORT, "DE"), f"{VAT_6_2}(a)"),
    ("D6", "DE 10115", "DE DE-78266", (OSS,), {}, (0, Reason.EXPORT, "CH"), f"{VAT_6_2}(b)"),
    (
        "D6 registered",
        "DE 10115",
        "DE 78266",
        (OSS, Registration(country="CH")),
        {},
        (2_000, Reason.STANDARD_RATED, "CH"),
        "MWSTG, Article 3(a)",
    ),
    ("D6 domestic", "CH 8001", "DE 78266", (), {}, (2_000, Reason.STANDARD_RATED, "CH"), "MWSTG, Article 3(a)"),
    ("D6 from", "DE 78266", "DE 10115", (), {"home": "CH"}, (0, Reason.EXPORT, "DE"), f"{VAT_6_2}(b): an import into Germany"),
    ("D7", "DE 10115", "GB BT1 1AA", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "GB"), "Windsor Framework, Article 8; VATNIEU3720"),
    ("D7", "DE 10115", "XI BT1 1AA", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "GB"), "Windsor Framework, Article 8; VATNIEU3720"),
    ("D7 small", "DE 10115", "GB BT1 1AA", (), {}, (2_000, Reason.STANDARD_RATED, "DE"), "VATNIEU3720: below the threshold, of origin"),
    ("D7 GB", "DE 10115", "GB SW1A 1AA", (OSS,), {}, (0, Reason.EXPORT, "GB"), "the One-Stop-Shop does not cover Great Britain"),
    ("D7 XI", "DE 10115", "GB SW1A 1AA", (Registration(country="XI"),), {}, (0, Reason.EXPORT, "GB"), "a number for Northern Ireland"),
    ("D7 UK", "DE 10115", "GB BT1 1AA", (Registration(country="GB"),), {}, (2_000, Reason.STANDARD_RATED, "GB"), "VATREG37300"),
    ("D7 from", "GB BT1 1AA", "DE 10115", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "DE"), "VATA 1994, Schedule 9ZB, para. 29"),
    ("D7 from", "GB BT1 1AA", "DE 10115", (), {}, (2_000, Reason.STANDARD_RATED, "GB"), "VATA 1994, Schedule 9ZB, para. 29"),
    ("D7 from", "GB BT1 1AA", "GB SW1A 1AA", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "GB"), "within the United Kingdom"),
    ("D7 within", "GB SW1A 1AA", "GB BT1 1AA", (), {}, (2_000, Reason.STANDARD_RATED, "GB"), "within the United Kingdom"),
    (
        "D8",
        "DE 10115",
        "GB BT1 1AA",
        (OSS,),
        {"buyer_vat_country": "XI"},
        (0, Reason.INTRA_COMMUNITY_SUPPLY, "GB"),
        "Article 138; Protocol, Annex 3",
    ),
    (
        "D8 from",
        "GB BT1 1AA",
        "FR 75001",
        (),
        {"buyer_vat_country": "FR"},
        (0, Reason.INTRA_COMMUNITY_SUPPLY, "FR"),
        "VATA 1994, Schedule 9ZB",
    ),
    (
        "D8 own",
        "GB BT1 1AA",
        "IE D01 F5P2",
        (),
        {"buyer_vat_country": "XI"},
        (2_000, Reason.STANDARD_RATED, "GB"),
        "Article 138: a number elsewhere",
    ),
    (
        "D8 GB",
        "DE 10115",
        "GB BT1 1AA",
        (OSS,),
        {"buyer_vat_country": "GB"},
        (2_000, Reason.STANDARD_RATED, "GB"),
        "a GB number is none for goods",
    ),
    ("Man", "GB SW1A 1AA", "IM IM1 1AE", (), {}, (2_000, Reason.STANDARD_RATED, "GB"), "Isle of Man Act 1979, s. 1"),
    ("Man", "IM IM1 1AE", "GB SW1A 1AA", (), {}, (2_000, Reason.STANDARD_RATED, "GB"), "Isle of Man Act 1979, s. 1"),
    (
        "Man",
        "DE 10115",
        "IM IM1 1AE",
        (OSS, Registration(country="GB")),
        {},
        (2_000, Reason.STANDARD_RATED, "GB"),
        "Isle of Man Act 1979, s. 1",
    ),
    ("Jersey", "GB SW1A 1AA", "JE JE2 3AB", (), {}, (0, Reason.EXPORT, "JE"), "VATA 1994, s. 30(6) and 96"),
    ("Guernsey", "GB SW1A 1AA", "GB GY1 1WG", (), {}, (0, Reason.EXPORT, "GG"), "VATA 1994, s. 30(6) and 96"),
    ("Liechtenstein", "CH 8001", "LI 9490", (), {}, (2_000, Reason.STANDARD_RATED, "CH"), "MWSTG, Article 3(a)"),
    ("Liechtenstein", "LI 9490", "CH 8001", (), {}, (2_000, Reason.STANDARD_RATED, "CH"), "MWSTG, Article 3(a)"),
    ("Samnaun", "CH 8001", "CH 7563", (), {}, (0, Reason.EXPORT, "CH"), "MWSTG, Article 4(1)"),
    ("Svalbard", "NO 0150", "NO 9170", (), {}, (0, Reason.EXPORT, "SJ"), "merverdiavgiftsloven, § 6-21"),
    ("Norfolk", "AU 2000", "AU 2899", (), {}, (0, Reason.EXPORT, "NF"), "GST Act 1999, s. 38-185 and 195-1"),
    ("Jungholz", "DE 10115", "DE 87491", (OSS,), {}, (1_900, Reason.STANDARD_RATED, "AT"), "UStG 1994, § 10(4)"),
    ("Mittelberg", "AT 1010", "DE 87567", (), {}, (1_900, Reason.STANDARD_RATED, "AT"), "UStG 1994, § 10(4)"),
    ("Greece", "DE 10115", "EL 10552", (OSS,), {}, (2_000, Reason.STANDARD_RATED, "GR"), "Directive 2006/112/EC, Article 215"),
    ("C4", "US US-CA", "US US-AE", (Registration(country="US", region="US-CA"),), {}, (0, Reason.NOT_COLLECTING, "US"), "no state's tax"),
    ("C4", "US US-CA", "US 09012", (Registration(country="US", region="US-CA"),), {}, (0, Reason.NOT_COLLECTING, "US"), "no state's tax"),
    (
        "C4",
        "US US-CA",
        "US US-PR",
        (Registration(country="US", region="US-CA"),),
        {},
        (0, Reason.NOT_COLLECTING, "PR"),
        "13 L.P.R.A. § 32021",
    ),
    (
        "C4",
        "US US-CA",
        "PR 00901",
        (Registration(country="US", region="US-CA"),),
        {},
        (0, Reason.NOT_COLLECTING, "PR"),
        "13 L.P.R.A. § 32021",
    ),
    ("C4", "US US-CA", "GU 96910", (), {}, (0, Reason.NOT_COLLECTING, "GU"), "no state's tax"),
    ("C4", "US US-CA", "US 96910", (), {}, (0, Reason.NOT_COLLECTING, "GU"), "no state's tax"),
    ("C18", "US US-CA", "US US-NY", (), {}, (0, Reason.NOT_COLLECTING, "US"), "registered nowhere"),
    ("C18", "HK", "HK", (), {}, (0, Reason.NOT_COLLECTING, "HK"), "Hong Kong levies no sales tax"),
    (
        "a ZIP's slip",
        "US US-CA",
        "US US-CA",
        (Registration(country="US", region="US-CA"),),
        {},
        (725, Reason.STANDARD_RATED, "US"),
        "a named state",
    ),
]


@pytest.mark.parametrize(
    ("case", "here", "there", "registrations", "facts", "expected", "source"), SALES, ids=[f"{n}-{each[0]}" for n, each in enumerate(SALES)]
)
def test_a_sale_is_taxed_as_the_law_has_it(
    case: str,
    here: str,
    there: str,
    registrations: tuple[Registration, ...],
    facts: dict[str, Any],
    expected: tuple[int, Reason, str],
    source: str,
) -> None:
    sale = a_sale(here, there, *registrations, **facts)

    assert taxed_as(sale) == expected, source


@pytest.mark.parametrize(
    ("country", "region", "postal_code", "code"),
    [
        ("US", "US-CA", "09012", "US"),
        ("ES", "ES-M", "35001", "ES"),
        ("FR", "FR-IDF", "97400", "FR"),
        ("GB", "GB-ENG", "BT1 1AA", "GB"),
        ("GB", "GB-BFS", "", "XI"),
        ("DE", "DE-SH", "27498", "DE-Heligoland"),
        ("IT", "IT-SO", "23041", "IT-Livigno"),
        ("FR", "FR-PAC", "98000", "MC"),
        ("AU", "AU-NSW", "2899", "NF"),
        ("GB", "GB-ENG", "JE2 3AB", "JE"),
    ],
)
def test_a_named_region_goes_before_a_postal_code(country: str, region: str, postal_code: str, code: str) -> None:
    """A slip in the code frees from no tax; what lies in a region, or in none of its own, is known by the code."""
    assert territory_of(Place(country=country, region=region, postal_code=postal_code)).code == code


def test_a_slip_in_the_code_is_said() -> None:
    address = Address(name="A", street_address="B", city="Madrid", postal_code="35001", country_code="ES", country_area="Madrid")
    place = located(address)

    [notice] = doubts(place, a_sale("DE 10115", "ES 28001", OSS), RULES, field="$.shipping_address")

    assert (territory_of(place.place).code, notice.code) == ("ES", "region-contradictory")


class TestRules:
    def test_of_a_territory_are_written_under_its_country_or_its_own_code(self) -> None:
        own = national("IC", "7", name="IGIC")

        for here, there in product(("ES 35001", "IC 35001"), ("ES 38001", "IC 38001", "ES ES-TF")):
            assert taxed_as(a_sale(here, there), own, *RULES)[:2] == (700, Reason.STANDARD_RATED)
        assert taxed_as(a_sale("ES 35001", "ES 38001"), LOCAL, *RULES) == (700, Reason.STANDARD_RATED, "ES")
        assert taxed_as(a_sale("IC 35001", "IC 38001", home="ES"), LOCAL, *RULES) == (700, Reason.STANDARD_RATED, "ES")

    def test_of_a_territory_are_not_its_countrys(self) -> None:
        assert taxed_as(a_sale("ES 28001", "ES 28002"), national("IC", "7"), LOCAL, *RULES) == (2_000, Reason.STANDARD_RATED, "ES")

    def test_written_twice_tax_once(self) -> None:
        """A rule for MC besides France's, or for RE besides France's of 974."""
        monaco, by_code = national("MC", "20", name="TVA"), national("RE", "8.5", name="TVA")
        by_postal_code = national("FR", "8.5", name="TVA DOM", postal_codes=("974*",))

        assert taxed_as(a_sale("FR 75001", "MC 98000"), monaco, *RULES) == (2_000, Reason.STANDARD_RATED, "MC")
        assert taxed_as(a_sale("RE 97400", "FR 97410"), by_code, by_postal_code, *RULES) == (850, Reason.STANDARD_RATED, "RE")

    @pytest.mark.parametrize("region", ["US-PR", ""])
    def test_a_registration_may_name_a_territory_as_a_region(self, region: str) -> None:
        registered = Registration(country="US", region="US-PR") if region else Registration(country="PR")

        assert taxed_as(a_sale("US US-CA", "US 00901", registered), national("PR", "10.5"), *RULES)[0] == 1_050

    @pytest.mark.parametrize(
        ("here", "there", "registrations", "rules"),
        [
            ("DE 10115", "DE 10115", (), (national("DE", "7", tax_code="books"),)),
            ("DE 10115", "DE 10115", (OSS,), (national("FR", "20"),)),
            ("DE 10115", "FR 75001", (OSS,), (national("DE", "19"),)),
            ("DE 10115", "GB BT1 1AA", (OSS,), (national("DE", "19"),)),
            ("US US-CA", "US US-CA", (Registration(country="US", region="US-CA"),), (rule("4", region="US-NY"),)),
            ("US US-CA", "US 90001", (Registration(country="US", region="US-CA"),), (rule("4", region="US-CA"),)),
            ("ES 35001", "ES 38001", (), (national("ES", "7", postal_codes=("35*", "38*"), tax_code="books"),)),
        ],
        ids=["code", "at home in the scheme", "scheme", "scheme, XI", "state", "state unknown", "territory"],
    )
    def test_where_the_seller_is_registered_are_never_guessed(
        self, here: str, there: str, registrations: tuple[Registration, ...], rules: tuple[Rule, ...]
    ) -> None:
        with pytest.raises(NoTaxRule):
            taxed_as(a_sale(here, there, *registrations), *rules)

    @pytest.mark.parametrize(
        ("here", "there", "rules", "lacking"),
        [
            ("US US-CA", "US US-AE", RULES, True),
            ("US US-CA", "GU 96910", RULES, True),
            ("HK", "HK", RULES, True),
            ("JE", "JE", (), True),
            ("DE 10115", "DE 10115", (), True),
            ("US US-CA", "US US-NY", RULES, False),
            ("US US-CA", "JP", RULES, False),
            ("DE 10115", "DE 10115", RULES, False),
        ],
    )
    def test_that_are_lacking_at_home_are_said(self, here: str, there: str, rules: tuple[Rule, ...], lacking: bool) -> None:
        """F13, C4, C18: nothing is collected, and a notice says so."""
        sale = a_sale(here, there)
        rows: list[Row] = sold(sale, [goods(10_000)], *rules)

        assert lacks_rules(sale, rows) is lacking
        assert not lacking or [(row.amount, row.reason) for row in rows] == [(0, Reason.NOT_COLLECTING)]


SERVICES = [
    ("consumer", SupplyKind.DIGITAL, "", (OSS,), Reason.NOT_SUBJECT_TO_TAX),
    ("registered", SupplyKind.DIGITAL, "", (Registration(country="GB"),), Reason.STANDARD_RATED),
    ("a number for goods", SupplyKind.DIGITAL, "XI", (OSS,), Reason.NOT_SUBJECT_TO_TAX),
]


@pytest.mark.parametrize(("case", "supply", "vat_country", "registrations", "reason"), SERVICES)
def test_services_to_northern_ireland_leave_the_eu(
    case: str, supply: SupplyKind, vat_country: str, registrations: tuple[Registration, ...], reason: Reason
) -> None:
    """Protocol on Ireland/Northern Ireland, Annex 3, point 1: Directive 2006/112/EC holds as far as goods are concerned."""
    sale = a_sale("DE 10115", "GB BT1 1AA", *registrations, buyer_vat_country=vat_country)

    [row] = sold(sale, [goods(10_000, supply=supply)], *RULES)

    assert row.reason is reason, case


@pytest.mark.parametrize(
    ("here", "there", "registration", "expected"),
    [
        ("CH 8001", "GB BT1 1AA", Registration(ioss=True), (2_000, Reason.STANDARD_RATED, "GB")),
        ("CH 8001", "MC 98000", Registration(ioss=True), (2_000, Reason.STANDARD_RATED, "FR")),
        ("CH 8001", "ES 35001", Registration(ioss=True), (0, Reason.EXPORT, "IC")),
        ("DE 78266", "DE 10115", Registration(ioss=True), (2_000, Reason.STANDARD_RATED, "DE")),
        ("GB SW1A 1AA", "GB BT1 1AA", Registration(ioss=True), (2_000, Reason.STANDARD_RATED, "GB")),
        ("CH 8001", "GB BT1 1AA", OSS, (0, Reason.EXPORT, "GB")),
    ],
)
def test_a_scheme_is_for_where_the_eus_rules_on_goods_hold(
    here: str, there: str, registration: Registration, expected: tuple[int, Reason, str]
) -> None:
    """Directive 2006/112/EC, Article 369l, with Articles 6 and 7; for Northern Ireland gov.uk, VAT Import One Stop Shop."""
    sale = a_sale(here, there, registration, home="CH" if here == "DE 78266" else "", currency="EUR")

    assert taxed_as(sale) == expected


@pytest.mark.parametrize(
    ("here", "there", "facts", "counts"),
    [
        ("DE 10115", "MC 98000", {}, True),
        ("DE 10115", "GB BT1 1AA", {}, True),
        ("GB BT1 1AA", "IE D01 F5P2", {}, True),
        ("MC 98000", "FR 75001", {}, False),
        ("FR 75001", "FR 97400", {}, False),
        ("DE 10115", "DE 27498", {}, False),
        ("DE 10115", "GB SW1A 1AA", {}, False),
        ("DE 10115", "GB BT1 1AA", {"buyer_vat_country": "XI"}, False),
        ("DE 10115", "GB BT1 1AA", {"buyer_vat_country": "GB"}, True),
    ],
)
def test_the_threshold_counts_what_crosses_within_the_eu(here: str, there: str, facts: dict[str, Any], counts: bool) -> None:
    """Article 59c; HMRC VATNIEU3720: sales to Northern Ireland count."""
    assert is_distance_sale(a_sale(here, there, **facts), [goods(10_000)]) is counts


BORDERS = [
    ("I6", "US 90001", "US 09012", True, f"{DMM}; 703.2.3.6"),
    ("I6", "US US-NY", "US US-AP", True, f"{DMM}; 703.2.3.6"),
    ("I6", "US 90001", "US 96910", True, DMM),
    ("I6", "US 90001", "GU 96910", True, DMM),
    ("I6", "US 90001", "US 96799", True, DMM),
    ("I6", "US 90001", "VI 00802", True, US_CUSTOMS),
    ("I6", "US 90001", "PR 00901", False, US_CUSTOMS),
    ("I6", "US 90001", "US 00901", False, US_CUSTOMS),
    ("I6", "US 90001", "US 96813", False, US_CUSTOMS),
    ("I6", "PR 00901", "US 00802", True, US_CUSTOMS),
    ("I7", "ES 28001", "ES 35001", True, f"{VAT_6_1}(b); UCC, Article 1(3)"),
    ("I7", "ES 28001", "ES 51001", True, f"{VAT_6_2}(c)"),
    ("I7", "FR 75001", "FR 97400", True, f"{VAT_6_1}(c); UCC, Article 1(3)"),
    ("I7", "FR 75001", "RE 97400", True, f"{VAT_6_1}(c); UCC, Article 1(3)"),
    ("I7", "FR 75001", "FR 98714", True, VAT_5),
    ("I7", "DE 10115", "DE 27498", True, f"{VAT_6_2}(a)"),
    ("I7", "DE 10115", "DE 78266", True, f"{VAT_6_2}(b)"),
    ("I7", "FI 00100", "AX 22100", True, f"{VAT_6_1}(d); UCC, Article 1(3)"),
    ("I7", "IT 20100", "IT 22061", True, f"{VAT_6_1}(f); UCC, Article 1(3)"),
    ("I7", "CH 8001", "CH 6911", True, "Campione left the Swiss customs territory on 1 January 2020"),
    ("I7", "DK 1620", "GL 3900", True, VAT_5),
    ("I7", "NO 0150", "SJ 9170", True, "tollavgiftsloven, § 1-1"),
    ("I7", "CH 8001", "CH 7563", True, "ZG, Article 3(3)"),
    ("I7", "GB SW1A 1AA", "JE JE2 3AB", True, "Customs Agreement with Jersey of 2018; Royal Mail: CN22 to the Channel Islands"),
    ("I7", "AU 2000", "AU 2899", True, "Customs Act 1901, s. 4(1)"),
    ("I8", "FR 75001", "MC 98000", False, f"{UCC}(2)(a)"),
    ("I8", "DE 10115", "MC 98000", False, f"{UCC}(2)(a)"),
    ("I8", "CH 8001", "LI 9490", False, "Treaty of 29 March 1923"),
    ("I8", "CH 8001", "DE 78266", False, "Treaty of 23 November 1964"),
    ("I8", "DE 10115", "GB BT1 1AA", False, "Windsor Framework, Article 5(3)"),
    ("I8", "IE D01 F5P2", "XI BT1 1AA", False, "Windsor Framework, Article 5(3)"),
    (
        "I8",
        "GB SW1A 1AA",
        "GB BT1 1AA",
        False,
        "Windsor Framework, Articles 4 and 6; gov.uk: parcels to consumers need none since 1 May 2025",
    ),
    ("I8", "GB SW1A 1AA", "IM IM1 1AE", False, "Customs Agreement with Man of 2018"),
    ("I8", "PT 1000-001", "PT 9000-064", False, UCC),
    ("I8", "RE 97400", "FR 97410", False, "within Réunion"),
    ("I8", "IT 20100", "SM 47890", False, "Decree of 21 June 2021: an invoice alone"),
    ("I9", "DE 10115", "IT 23041", True, f"{VAT_6_2}(e)"),
    ("I9", "DE 10115", "GB SW1A 1AA", True, "a third country"),
    ("I9", "DE 10115", "SM 47890", True, "T2SM (Decision 4/92)"),
    ("I9", "DE 10115", "AD AD100", True, "T2 (Decision 1/2003)"),
    ("I9", "DE 10115", "TR 34000", True, "A.TR (Decision 1/95)"),
    ("I9", "DE 10115", "IM IM1 1AE", True, "a third country since 2021"),
    ("I9", "DE 10115", "FR 75001", False, UCC),
    ("I9", "DE 10115", "EL 10552", False, UCC),
]


@pytest.mark.parametrize(("case", "here", "there", "crosses", "source"), BORDERS, ids=[f"{n}-{each[0]}" for n, each in enumerate(BORDERS)])
def test_customs_are_where_the_law_has_a_border(case: str, here: str, there: str, crosses: bool, source: str) -> None:
    """In both directions: a declaration of export or of import, or none."""
    origin, target = a_place(here), a_place(there)
    item = Item(product_variant_id=new_id(), name="Mug", quantity=1, unit_price=1)

    assert crosses_customs_border(origin, target) is crosses_customs_border(target, origin) is crosses, source
    if crosses:
        with pytest.raises(CustomsNeeded):
            refuse_without_customs([item], origin, target)
    else:
        refuse_without_customs([item], origin, target)


@pytest.mark.parametrize(
    ("typed", "country", "number"),
    [
        ("GB 980 7806 84", "GB", "GB980780684"),
        ("gb980780684", "GB", "GB980780684"),
        ("XI 980 7806 84", "XI", "XI980780684"),
        ("CHE-107.787.577 MWST", "CH", "CHE107787577MWST"),
        ("CHE-107.787.577 TVA", "CH", "CHE107787577TVA"),
        ("CHE-107.787.577 IVA", "CH", "CHE107787577IVA"),
        ("NO 995 525 828 MVA", "NO", "NO995525828MVA"),
        ("AU 83 914 571 673", "AU", "AU83914571673"),
        ("EL 094259216", "GR", "EL094259216"),
        ("FR 53 0000 04605", "FR", "FR53000004605"),
    ],
)
def test_a_number_of_another_country_is_a_number(typed: str, country: str, number: str) -> None:
    """D14: the examples are those of python-stdnum's modules (gb.vat, ch.vat, no.mva, au.abn, gr.vat, mc.tva)."""
    found = checked(typed)

    assert found is not None
    assert (found.valid, found.country, found.number) == (True, country, number)


@pytest.mark.parametrize(
    ("typed", "country"), [("980780684", "GB"), ("980780684", "IM"), ("107.787.577 MWST", "CH"), ("995525828MVA", "NO")]
)
def test_a_number_without_letters_is_read_as_its_country_writes_it(typed: str, country: str) -> None:
    found = checked(typed, country=country)

    assert found is not None
    assert found.valid is (country != "CH")


@pytest.mark.parametrize(
    "typed", ["GB980780685", "XI980780685", "CHE-107.787.578 MWST", "CHE-107.787.577", "NO995525829MVA", "DE136695977", "XX1", "..", "é"]
)
@pytest.mark.parametrize("country", ["", "DE", "GB"])
def test_what_is_no_number_stays_none(typed: str, country: str) -> None:
    """A wrong check digit, a Swiss UID that is not registered for VAT (no suffix), no country."""
    found = checked(typed, country=country)

    assert found is not None
    assert not found.valid
