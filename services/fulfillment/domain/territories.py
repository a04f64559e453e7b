"""Territories: whose tax, whose customs territory and whose rules on goods hold at a place, by law."""

from functools import lru_cache

import msgspec

from services.fulfillment.domain.postal import normalized
from services.fulfillment.domain.tax.rules import Place, Rule
from shared.regions import around

EU = frozenset(
    {
        *("AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU"),
        *("IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)
EU_AREA = "EU"
NORTHERN_IRELAND = "XI"
# VAT numbers of these free a supply of goods, and a One-Stop-Shop return names these: Northern Ireland among them by the Windsor
# Framework (Protocol on Ireland/Northern Ireland, Article 8 and Annex 3).
EU_GOODS = EU | {NORTHERN_IRELAND}
# Countries that levy no sales tax themselves; their states do (for the US: each state's own law, there is no federal sales tax).
TAXED_BY_STATES = frozenset({"US"})
# Codes that are not ISO 3166-1's, yet written in addresses: Greece's of VAT numbers (Directive 2006/112/EC, Article 215) and the one that
# the United Kingdom has reserved.
OTHER_CODES = {"EL": "GR", "UK": "GB"}
PLACES_CACHED_MAX = 10_000
NOWHERE = Place(country="")


class Territory(msgspec.Struct, frozen=True, kw_only=True):
    """A place whose tax or customs are not simply those of the country in its address."""

    name: str
    # ISO 3166-1, with its reserved codes (IC, EA) and the one that VAT numbers use (XI); else the country's and the name.
    code: str
    # Whose VAT or sales tax is due there: another country's code where the two are one area, else its own.
    tax: str
    # The areas in which goods move without a tax at a border.
    vat: frozenset[str]
    # The customs territories in which goods move without duties; none where every parcel is declared.
    customs: frozenset[str]
    # How addresses and rules of other countries name it: by the beginnings of postal codes, or by ISO 3166-2 codes.
    postal_codes: dict[str, tuple[str, ...]] = {}
    regions: tuple[str, ...] = ()
    # By which of them its tax country's own rules know it.
    region: str = ""
    postal_code: str = ""
    source: str = ""

    @property
    def parents(self) -> frozenset[str]:
        """The countries in whose addresses it is found."""
        return frozenset({*self.postal_codes, *(region[:2] for region in self.regions)}) - {self.code, self.tax}

    @property
    def country(self) -> str:
        """Say by which two letters tax returns name it."""
        return self.code[:2] if self.code == self.tax or self.code == NORTHERN_IRELAND else self.tax


class RulePlaces(msgspec.Struct, frozen=True, kw_only=True):
    """A place as tax rules name it, by the country of the rule."""

    # For every rule of the country, the nearest first; and only for rules that name postal codes or a region.
    whole: dict[str, Place]
    part: dict[str, Place]

    @property
    def countries(self) -> tuple[str, ...]:
        """Give the countries whose rules may hold there, the one that names it most closely first."""
        return (*self.whole, *self.part)

    @property
    def places(self) -> tuple[Place, ...]:
        """Give every name of the place."""
        return (*self.whole.values(), *self.part.values())

    def for_rule(self, rule: Rule) -> Place:
        """Give the place as a rule names it."""
        partial = rule.country in self.part and (rule.region or rule.postal_codes)
        return (self.part if partial else self.whole).get(rule.country, NOWHERE)


def territory_of(place: Place) -> Territory:
    """Find the territory in which a place lies."""
    country = OTHER_CODES.get(place.country, place.country)
    return _territory_of(country, place.region, normalized(country, place.postal_code))


def crosses_customs_border(here: Place, there: Place) -> bool:
    """Tell whether goods need a customs declaration on their way between two places.

    Within one customs territory they need one where VAT ends (Regulation (EU) 952/2013, Article 1(3)).
    """
    origin, target = territory_of(here), territory_of(there)
    free = origin.customs & target.customs and origin.vat & target.vat
    return not free and {origin.code, target.code} not in OPEN_BORDERS


def in_eu_vat_area(place: Place) -> bool:
    """Tell whether the EU's VAT rules on goods hold at a place."""
    return EU_AREA in territory_of(place).vat


@lru_cache(PLACES_CACHED_MAX)
def rule_places(place: Place) -> RulePlaces:
    """Say under which names rules know a place: Réunion as RE, or as the postal codes 974 of FR; Monaco as FR, wherever in it."""
    territory = territory_of(place)
    written = OTHER_CODES.get(place.country, place.country)
    at_home = written == territory.tax
    own = Place(
        country=territory.tax,
        region=territory.region or (place.region if at_home else ""),
        postal_code=place.postal_code if at_home else territory.postal_code or place.postal_code,
    )
    whole = {territory.code: Place(country=territory.code, postal_code=place.postal_code), territory.tax: own}
    part = {
        country: Place(
            country=country,
            region=next((each for each in (place.region, *territory.regions) if each.startswith(f"{country}-")), ""),
            postal_code=place.postal_code,
        )
        for country in sorted(territory.parents | {written})
        if country not in whole
    }
    return RulePlaces(whole=whole, part=part)


def _own(code: str, name: str, source: str, **named: object) -> Territory:
    """Describe a territory with a tax and a customs territory of its own."""
    given = {"tax": code, "vat": frozenset({code}), "customs": frozenset({code}), **named}
    return msgspec.convert({"name": name, "code": code, "source": source, **given}, Territory)


def _of(tax: str, area: str, code: str, name: str, source: str, **named: object) -> Territory:
    """Describe a territory that is in another country's tax and customs area."""
    return _own(code, name, source, **{"tax": tax, "vat": frozenset({area}), "customs": frozenset({area}), **named})


def _fiscal(code: str, name: str, source: str, **named: object) -> Territory:
    """Describe a territory of the EU's customs, but not of its VAT."""
    return _own(code, name, source, customs=frozenset({EU_AREA}), **named)


MILITARY_MAIL = "US-APO"
VAT_6_1 = "Directive 2006/112/EC, Article 6(1)"
VAT_6_2 = "Directive 2006/112/EC, Article 6(2)"
VAT_7 = "Directive 2006/112/EC, Article 7"
UCC_4 = "Regulation (EU) 952/2013, Article 4"
OCT = "TFEU, Article 355(2) and Annex II: outside the EU's VAT (Directive 2006/112/EC, Article 5(2)) and customs territory (UCC, Article 4)"
OUTERMOST = f"{VAT_6_1}(c): TFEU, Articles 349 and 355(1); {UCC_4}(1): within the customs territory; CGI, Article 294"
CROWN = (
    "not in the United Kingdom (VATA 1994, s. 96 and 30); in a customs union with it since 2018 (Customs Agreements of 26 November 2018)"
)
US_CUSTOMS = "19 CFR 101.1: the customs territory is the States, the District of Columbia and Puerto Rico"
US_MAIL = f"{US_CUSTOMS}; USPS DMM 608.2.4 (customs forms)"
US_MILITARY = "USPS DMM 608.2.4 and 703.2.3.6 (customs forms to and from APO, FPO and DPO)"
FREELY_ASSOCIATED = "a state in free association with the US: 19 CFR 101.1 does not name it; USPS DMM 608.2.4"
GST_AU = "A New Tax System (GST) Act 1999, s. 195-1 (indirect tax zone: no external Territory); Customs Act 1901, s. 4(1)"
PVAT_UK = "VATA 1994, s. 96; an overseas territory is not in the United Kingdom"

TERRITORIES = (
    # The EU: outside its VAT, within its customs territory.
    _fiscal("GR-69", "Mount Athos", f"{VAT_6_1}(a)", postal_codes={"GR": ("63086", "63087")}, regions=("GR-69",)),
    _fiscal("IC", "Canary Islands", f"{VAT_6_1}(b)", postal_codes={"ES": ("35", "38")}, regions=("ES-CN", "ES-GC", "ES-TF")),
    _fiscal("AX", "Åland", f"{VAT_6_1}(d)", postal_codes={"FI": ("22",)}, regions=("FI-01",)),
    _fiscal(
        *("IT-Campione", "Campione d'Italia", f"{VAT_6_1}(f), by Directive (EU) 2019/475; {UCC_4}(1), by Regulation (EU) 2019/474"),
        postal_codes={"IT": ("22061",), "CH": ("6911",)},
    ),
    _fiscal("GP", "Guadeloupe", OUTERMOST, postal_codes={"FR": ("971",)}, regions=("FR-971", "FR-GP", "FR-GUA")),
    _fiscal("MQ", "Martinique", OUTERMOST, postal_codes={"FR": ("972",)}, regions=("FR-972", "FR-MQ")),
    _fiscal("GF", "French Guiana", OUTERMOST, postal_codes={"FR": ("973",)}, regions=("FR-973", "FR-GF")),
    _fiscal("RE", "Réunion", OUTERMOST, postal_codes={"FR": ("974",)}, regions=("FR-974", "FR-RE", "FR-LRE")),
    _fiscal("YT", "Mayotte", OUTERMOST, postal_codes={"FR": ("976",)}, regions=("FR-976", "FR-YT", "FR-MAY")),
    _fiscal("MF", "Saint-Martin", OUTERMOST, postal_codes={"FR": ("97150", "978")}, regions=("FR-MF", "FR-978")),
    # The EU: outside both.
    _own("DE-Heligoland", "Heligoland", f"{VAT_6_2}(a); {UCC_4}(1)", postal_codes={"DE": ("27498",)}),
    _own("ES-CE", "Ceuta", f"{VAT_6_2}(c); {UCC_4}(1)", postal_codes={"ES": ("51",), "EA": ("51",)}, regions=("ES-CE",)),
    _own("ES-ML", "Melilla", f"{VAT_6_2}(d); {UCC_4}(1)", postal_codes={"ES": ("52",), "EA": ("52",)}, regions=("ES-ML",)),
    _own("IT-Livigno", "Livigno", f"{VAT_6_2}(e); {UCC_4}(1)", postal_codes={"IT": ("23041",)}),
    _own("PM", "Saint-Pierre-et-Miquelon", OCT, postal_codes={"FR": ("975",)}, regions=("FR-PM", "FR-975")),
    _own(
        "BL",
        "Saint-Barthélemy",
        f"{OCT}; European Council Decision 2010/718/EU",
        postal_codes={"FR": ("97133", "977")},
        regions=("FR-BL", "FR-977"),
    ),
    _own("TF", "French Southern Territories", OCT, postal_codes={"FR": ("984",)}, regions=("FR-TF", "FR-984")),
    _own("WF", "Wallis and Futuna", OCT, postal_codes={"FR": ("986",)}, regions=("FR-WF", "FR-986")),
    _own("PF", "French Polynesia", OCT, postal_codes={"FR": ("987",)}, regions=("FR-PF", "FR-987")),
    _own("NC", "New Caledonia", OCT, postal_codes={"FR": ("988",)}, regions=("FR-NC", "FR-988")),
    _own("CP", "Clipperton", OCT, postal_codes={"FR": ("98799", "989")}, regions=("FR-CP",)),
    _own("AW", "Aruba", OCT, regions=("NL-AW",)),
    _own("CW", "Curaçao", OCT, regions=("NL-CW",)),
    _own("SX", "Sint Maarten", OCT, regions=("NL-SX",)),
    _own("BQ", "Bonaire, Sint Eustatius and Saba", OCT, regions=("NL-BQ1", "NL-BQ2", "NL-BQ3")),
    _own("GL", "Greenland", f"{OCT}; Treaty on Greenland (OJ L 29, 1.2.1985)", postal_codes={"DK": ("39",)}),
    _own("FO", "Faroe Islands", f"TFEU, Article 355(5)(a); {UCC_4}(1)", postal_codes={"DK": ("38", "FO")}),
    _own(
        "SM", "San Marino", "no part of Italy; Agreement on customs union with the EU (OJ L 84, 28.3.2002)", postal_codes={"IT": ("4789",)}
    ),
    _own("VA", "Vatican City", f"no part of Italy; {UCC_4}(1)", postal_codes={"IT": ("00120",)}),
    # The EU: within both by another country.
    _of("FR", EU_AREA, "MC", "Monaco", f"{VAT_7}(1); {UCC_4}(2)(a)", postal_codes={"FR": ("980",)}),
    _of("CY", EU_AREA, "CY-Bases", "Akrotiri and Dhekelia", f"{VAT_7}(1); {UCC_4}(2)(b)"),
    _of("AT", EU_AREA, "AT", "Jungholz", "UStG 1994 (AT), § 10(4)", postal_codes={"DE": ("87491",)}, postal_code="6691", region="AT-7"),
    _of(
        "AT",
        EU_AREA,
        "AT",
        "Mittelberg",
        "UStG 1994 (AT), § 10(4)",
        postal_codes={"DE": ("87567", "87568", "87569")},
        postal_code="6993",
        region="AT-8",
    ),
    _of(
        "PT",
        EU_AREA,
        "PT",
        "Azores",
        "Directive 2006/112/EC, Article 105",
        postal_codes={"PT": ("95", "96", "97", "98", "99")},
        regions=("PT-20",),
        region="PT-20",
    ),
    _of(
        "PT",
        EU_AREA,
        "PT",
        "Madeira",
        "Directive 2006/112/EC, Article 105",
        postal_codes={"PT": ("90", "91", "92", "93", "94")},
        regions=("PT-30",),
        region="PT-30",
    ),
    # The United Kingdom.
    _own(
        *(NORTHERN_IRELAND, "Northern Ireland", "Windsor Framework, Articles 4, 5, 6 and 8 with Annex 3; VATA 1994, Schedule 9ZB"),
        tax="GB",
        vat=frozenset({"GB", EU_AREA}),
        customs=frozenset({"GB", EU_AREA}),
        postal_codes={"GB": ("BT",)},
        regions=("GB-NIR",),
        region="GB-NIR",
    ),
    _of(
        "GB",
        "GB",
        "IM",
        "Isle of Man",
        "Isle of Man Act 1979, s. 1 and 6; Customs Agreement of 2018",
        postal_codes={"GB": ("IM",)},
    ),
    _own("JE", "Jersey", CROWN, customs=frozenset({"GB"}), postal_codes={"GB": ("JE",)}),
    _own("GG", "Guernsey", CROWN, customs=frozenset({"GB"}), postal_codes={"GB": ("GY",)}),
    _own("GI", "Gibraltar", PVAT_UK, postal_codes={"GB": ("GX11",)}),
    _own("FK", "Falkland Islands", PVAT_UK, postal_codes={"GB": ("FIQQ",)}),
    _own("SH", "Saint Helena, Ascension and Tristan da Cunha", PVAT_UK, postal_codes={"GB": ("STHL", "ASCN", "TDCU")}),
    _own("IO", "British Indian Ocean Territory", PVAT_UK, postal_codes={"GB": ("BBND",)}),
    _own("PN", "Pitcairn", PVAT_UK, postal_codes={"GB": ("PCRN",)}),
    _own("GS", "South Georgia", PVAT_UK, postal_codes={"GB": ("SIQQ",)}),
    _own("TC", "Turks and Caicos Islands", PVAT_UK, postal_codes={"GB": ("TKCA",)}),
    _own(
        "GB-BFPO",
        "British Forces Post Office",
        "BFPO: a customs declaration (CN22/CN23) on every parcel",
        tax="GB",
        customs=frozenset(),
        postal_codes={"GB": ("BF1",)},
    ),
    # Switzerland.
    _of(
        "CH",
        "CH",
        "LI",
        "Liechtenstein",
        "MWSTG (CH), Article 3(a); ZG (CH), Article 3(2); Treaty of 29 March 1923",
        postal_codes={"CH": ("9485", "9486", "9487", "9488", "949")},
    ),
    _of(
        *(
            "CH",
            "CH",
            "DE-Büsingen",
            "Büsingen",
            f"{VAT_6_2}(b); {UCC_4}(1); MWSTG (CH), Article 3(a); Treaty of 23 November 1964, Article 1",
        ),
        postal_codes={"DE": ("78266",), "CH": ("8238",)},
        postal_code="8238",
    ),
    _own("CH-Samnaun", "Samnaun and Sampuoir", "MWSTG (CH), Article 4(1); ZG (CH), Article 3(3)", postal_codes={"CH": ("7562", "7563")}),
    # Norway.
    _own(
        "SJ",
        "Svalbard and Jan Mayen",
        "merverdiavgiftsloven, § 1-2; tollavgiftsloven and vareførselsloven, § 1-1",
        postal_codes={"NO": ("917", "8099")},
        regions=("NO-21", "NO-22"),
    ),
    # The United States; they levy no tax at a border with Puerto Rico, which has one of its own.
    _own(
        "PR",
        "Puerto Rico",
        US_CUSTOMS,
        vat=frozenset({"US"}),
        customs=frozenset({"US"}),
        postal_codes={"US": ("006", "007", "009")},
        regions=("US-PR",),
    ),
    _own("VI", "US Virgin Islands", US_CUSTOMS, postal_codes={"US": ("008",)}, regions=("US-VI",)),
    _own("GU", "Guam", US_MAIL, postal_codes={"US": ("9691", "9692", "9693")}, regions=("US-GU",)),
    _own("AS", "American Samoa", US_MAIL, postal_codes={"US": ("96799",)}, regions=("US-AS",)),
    _own("MP", "Northern Mariana Islands", US_MAIL, postal_codes={"US": ("9695",)}, regions=("US-MP",)),
    _own("UM", "US Minor Outlying Islands", US_CUSTOMS, regions=("US-UM",)),
    _own("PW", "Palau", FREELY_ASSOCIATED, postal_codes={"US": ("96939", "96940")}, regions=("US-PW",)),
    _own("FM", "Micronesia", FREELY_ASSOCIATED, postal_codes={"US": ("96941", "96942", "96943", "96944")}, regions=("US-FM",)),
    _own("MH", "Marshall Islands", FREELY_ASSOCIATED, postal_codes={"US": ("96960", "96970")}, regions=("US-MH",)),
    _own(
        MILITARY_MAIL,
        "Armed Forces Americas",
        US_MILITARY,
        tax="US",
        customs=frozenset(),
        postal_codes={"US": ("340",)},
        regions=("US-AA",),
        region="US-AA",
    ),
    _own(
        *(MILITARY_MAIL, "Armed Forces Europe", US_MILITARY),
        tax="US",
        customs=frozenset(),
        postal_codes={"US": ("090", "091", "092", "093", "094", "095", "096", "097", "098")},
        regions=("US-AE",),
        region="US-AE",
    ),
    _own(
        *(MILITARY_MAIL, "Armed Forces Pacific", US_MILITARY),
        tax="US",
        customs=frozenset(),
        postal_codes={"US": ("962", "963", "964", "965", "966")},
        regions=("US-AP",),
        region="US-AP",
    ),
    # Others.
    _own("NF", "Norfolk Island", GST_AU, postal_codes={"AU": ("2899",)}),
    _own("CX", "Christmas Island", GST_AU, postal_codes={"AU": ("6798",)}),
    _own("CC", "Cocos (Keeling) Islands", GST_AU, postal_codes={"AU": ("6799",)}),
    _own("HK", "Hong Kong", "Basic Law of Hong Kong, Articles 108 and 116", postal_codes={"CN": ("999077",)}, regions=("CN-HK", "CN-91")),
    _own("MO", "Macao", "Basic Law of Macao, Articles 106 and 112", postal_codes={"CN": ("999078",)}, regions=("CN-MO", "CN-92")),
    _own("TW", "Taiwan", "a separate customs territory (WTO, WT/L/433)", regions=("CN-TW", "CN-71")),
)
# Goods pass without a declaration though the tax changes.
OPEN_BORDERS = (
    # Parcels between Italy and San Marino go with an invoice alone (Decree of the Minister of Finance of 21 June 2021).
    {"IT", "SM"},
)


def _named() -> tuple[dict[str, Territory], dict[str, Territory], dict[str, tuple[tuple[str, Territory], ...]]]:
    """Index the table by code, by region, and by postal code, the longest first."""
    by_code = {each.code: each for each in TERRITORIES if len(each.code) == 2 and each.code not in EU}
    by_region = {region: each for each in TERRITORIES for region in each.regions}
    prefixes = [(country, prefix, each) for each in TERRITORIES for country, known in each.postal_codes.items() for prefix in known]
    countries = {country for country, _, _ in prefixes}
    by_postal_code = {
        country: tuple(sorted(((p, each) for c, p, each in prefixes if c == country), key=lambda named: -len(named[0])))
        for country in countries
    }
    return by_code, by_region, by_postal_code


BY_CODE, BY_REGION, BY_POSTAL_CODE = _named()


@lru_cache(PLACES_CACHED_MAX)
def _territory_of(country: str, region: str, postal_code: str) -> Territory:
    if country in BY_CODE:
        return BY_CODE[country]
    regions = around(region)
    if found := next((BY_REGION[each] for each in regions if each in BY_REGION), None):
        return found
    for prefix, territory in BY_POSTAL_CODE.get(country, ()):
        # A region that is named goes before a postal code: a slip in the code must not free a sale from that region's tax.
        elsewhere = region and any(each.startswith(f"{country}-") for each in territory.regions)
        if postal_code.startswith(prefix) and not elsewhere:
            return territory
    area = frozenset({EU_AREA if country in EU else country})
    return Territory(name=country, code=country, tax=country, vat=area, customs=area)
