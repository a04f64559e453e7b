"""The starter table: every row with its source, and its figures against what others list."""

from datetime import date, timedelta
from decimal import Decimal

import msgspec
import pytest

from deploy import taxes
from services.fulfillment.domain.tax import importing, table_age
from services.fulfillment.domain.tax.rules import Place, Reason, Rule, ShippingMode, selected
from tests.fulfillment.rates import goods, of_line, shipping, taxed

STARTER = taxes.read(taxes.STARTER)
TODAY = date(2026, 11, 30)


def rates(country: str, region: str = "", *, code: str = "", day: date = TODAY, postal: str = "") -> list[Rule]:
    place = Place(country=country, region=region, postal_code=postal)
    return selected([rule for rule in STARTER if rule.country == country and rule.covers(place)], lambda _: place, tax_code=code, day=day)


def total(country: str, region: str = "", **where: object) -> Decimal:
    return sum((rule.rate_percent for rule in rates(country, region, **where)), Decimal())  # type: ignore[arg-type]


# duty27-eu-vat 0.1.0 (PyPI, data as of 2026-10-04): the present standard rate of each member state and since when; 2016-01-01 is the first
# day that it knows.
DUTY27 = {
    "AT": ("20", "2016-01-01"),
    "BE": ("21", "2016-01-01"),
    "BG": ("20", "2016-01-01"),
    "CY": ("19", "2016-01-01"),
    "CZ": ("21", "2016-01-01"),
    "DE": ("19", "2021-01-01"),
    "DK": ("25", "2016-01-01"),
    "EE": ("24", "2025-07-01"),
    "GR": ("24", "2016-06-01"),
    "ES": ("21", "2016-01-01"),
    "FI": ("25.5", "2024-09-01"),
    "FR": ("20", "2016-01-01"),
    "HR": ("25", "2016-01-01"),
    "HU": ("27", "2016-01-01"),
    "IE": ("23", "2021-03-01"),
    "IT": ("22", "2016-01-01"),
    "LT": ("21", "2016-01-01"),
    "LU": ("17", "2024-01-01"),
    "LV": ("21", "2016-01-01"),
    "MT": ("18", "2016-01-01"),
    "NL": ("21", "2016-01-01"),
    "PL": ("23", "2016-01-01"),
    "PT": ("23", "2016-01-01"),
    "RO": ("21", "2025-08-01"),
    "SE": ("25", "2016-01-01"),
    "SI": ("22", "2016-01-01"),
    "SK": ("23", "2025-01-01"),
}
# vatverify-rates 0.1.0 (PyPI, data of 2026-04-13): standard rate, and all reduced ones.
VATVERIFY: dict[str, tuple[str, str]] = {
    "AT": ("20", "10 13 19"),
    "BE": ("21", "6 12"),
    "BG": ("20", "9"),
    "CH": ("8.1", "2.6"),
    "CY": ("19", "3 5 9"),
    "CZ": ("21", "12"),
    "DE": ("19", "7"),
    "DK": ("25", ""),
    "EE": ("24", "9 13"),
    "GR": ("24", "4 6 13 17"),
    "ES": ("21", "4 10"),
    "FI": ("25.5", "10 13.5"),
    "FR": ("20", "0.9 1.05 2.1 5.5 8.5 10 13"),
    "GB": ("20", "5"),
    "HR": ("25", "5 13"),
    "HU": ("27", "5 18"),
    "IE": ("23", "9 13.5"),
    "IT": ("22", "4 5 10"),
    "LI": ("8.1", "2.6"),
    "LT": ("21", "5 12"),
    "LU": ("17", "3 8 14"),
    "LV": ("21", "5 12"),
    "MT": ("18", "5 7"),
    "NL": ("21", "9"),
    "NO": ("25", "12 15"),
    "PL": ("23", "5 8"),
    "PT": ("23", "6 13 16 22"),
    "RO": ("21", "11"),
    "SE": ("25", "6 12"),
    "SI": ("22", "5 9.5"),
    "SK": ("23", "5 19"),
}
# What that list has not: newer, or left out of it, each with its source.
NOT_THERE = {
    "AT": {"4.9"},  # thelocal.at, meridianglobalservices.com: selected food from 2026-07-01
    "CH": {"3.8"},  # MWSTG Art. 25(4): lodging
    "LI": {"3.8"},
    "PT": {"4", "9", "12"},  # Código do IVA, Art. 18(3): the islands
}
# sales-tax 2.23.0 (npm, "node-sales-tax"): GST, and each province's part of HST, PST, RST or QST.
NODE_CANADA = {
    "AB": "5",
    "BC": "12",
    "MB": "12",
    "NB": "15",
    "NL": "15",
    "NS": "14",
    "NT": "5",
    "NU": "5",
    "ON": "13",
    "PE": "15",
    "QC": "14.975",
    "SK": "11",
    "YT": "5",
}
# sales-tax 2.23.0 as well.
NODE_OTHERS = {"AU": "10", "NZ": "15", "JP": "10", "CH": "8.1", "NO": "25", "GB": "20", "MC": "20", "IM": "20", "JE": "5"}
# Tax Foundation, State & Local Sales Tax Rates as of January 1, 2016 (copied at bestcellular.com/tax-rates), with what changed since.
FOUNDATION_2016 = {
    "AL": "4",
    "AK": "0",
    "AZ": "5.6",
    "AR": "6.5",
    "CA": "7.5",
    "CO": "2.9",
    "CT": "6.35",
    "DE": "0",
    "FL": "6",
    "GA": "4",
    "HI": "4",
    "ID": "6",
    "IL": "6.25",
    "IN": "7",
    "IA": "6",
    "KS": "6.5",
    "KY": "6",
    "LA": "4",
    "ME": "5.5",
    "MD": "6",
    "MA": "6.25",
    "MI": "6",
    "MN": "6.875",
    "MS": "7",
    "MO": "4.225",
    "MT": "0",
    "NE": "5.5",
    "NV": "6.85",
    "NH": "0",
    "NJ": "7",
    "NM": "5.125",
    "NY": "4",
    "NC": "4.75",
    "ND": "5",
    "OH": "5.75",
    "OK": "4.5",
    "OR": "0",
    "PA": "6",
    "RI": "7",
    "SC": "6",
    "SD": "4",
    "TN": "7",
    "TX": "6.25",
    "UT": "5.95",
    "VT": "6",
    "VA": "5.3",
}
CHANGED_SINCE = {
    "CA": "7.25",  # 2017 (iwf.org and weekonwallstreet.com/2025/02/04, of the Foundation's later tables)
    "LA": "5",  # 2025 (the latter: "increased from 4.45 to 5.0 percent")
    "NJ": "6.625",  # 2018, P.L. 2016 c. 57
    "NM": "4.875",  # 2023 (fonoa.com, July 2023)
    "SD": "4.2",  # 2023 (the same)
    "UT": "6.1",  # 4.85 with 1.25 that every place adds
    "WA": "6.5",
    "WV": "6",
    "WI": "5",
    "WY": "4",  # the copy ends before them: checksalestax.com, states
}


class TestAgainstOthers:
    @pytest.mark.parametrize("country", DUTY27)
    def test_standard_rates_of_the_eu(self, country: str) -> None:
        [rule] = rates(country)

        assert (rule.rate_percent, rule.valid_from) == (Decimal(DUTY27[country][0]), date.fromisoformat(DUTY27[country][1]))

    @pytest.mark.parametrize("country", VATVERIFY)
    def test_reduced_rates_are_those_of_another_list(self, country: str) -> None:
        standard, reduced = VATVERIFY[country]
        ours = {rule.rate_percent for rule in STARTER if rule.country == country and rule.reason is Reason.REDUCED_RATED}
        islands = {rule.rate_percent for rule in STARTER if rule.country == country and rule.postal_codes}
        theirs, newer = {Decimal(each) for each in reduced.split()}, {Decimal(each) for each in NOT_THERE.get(country, ())}

        assert total(country) == Decimal(standard)
        assert ours | islands <= theirs | newer
        assert newer <= (ours | islands) - theirs

    def test_the_eu_and_the_lists_have_the_same_countries(self) -> None:
        assert len(DUTY27) == 27
        assert DUTY27.keys() | {"GB", "CH", "NO", "LI"} == VATVERIFY.keys()

    @pytest.mark.parametrize("province", NODE_CANADA)
    def test_canada(self, province: str) -> None:
        """E3."""
        assert total("CA", f"CA-{province}") == Decimal(NODE_CANADA[province])

    @pytest.mark.parametrize("country", NODE_OTHERS)
    def test_countries_outside_the_eu(self, country: str) -> None:
        assert total(country) == Decimal(NODE_OTHERS[country])

    @pytest.mark.parametrize("state", sorted(FOUNDATION_2016.keys() | CHANGED_SINCE.keys()))
    def test_states_hold_every_statewide_part(self, state: str) -> None:
        """One meaning: the state's own rate with what every place in it must add (CA, UT, VA; NV sets its counties' part itself)."""
        assert total("US", f"US-{state}") == Decimal(CHANGED_SINCE.get(state) or FOUNDATION_2016[state])

    def test_every_state_is_there(self) -> None:
        assert len({rule.region for rule in STARTER if rule.country == "US"}) == 51
        assert len(FOUNDATION_2016.keys() | CHANGED_SINCE.keys()) == 50


class TestWhatWasWrong:
    @pytest.mark.parametrize("province", ["QC", "BC", "SK", "MB", "AB", "ON", "NS"])
    def test_groceries_are_free_of_both_taxes(self, province: str) -> None:
        """E1 (revenuquebec.ca, zero-rated supplies) and E2 (Bulletin PST 206; regina.ctvnews.ca 1.7126888): 0, not 998, 700, 600, 700."""
        assert total("CA", f"CA-{province}", code="zero") == 0
        assert len(rates("CA", f"CA-{province}", code="zero")) == len(rates("CA", f"CA-{province}"))

    @pytest.mark.parametrize("province", ["QC", "BC", "SK", "MB", "AB", "ON", "NS", "NB", "NL", "PE"])
    def test_printed_books_bear_gst_alone(self, province: str) -> None:
        """revenuquebec.ca, printed books (QST 0, GST 5); CRA Info Sheet GI-065 (the provincial part of HST is given back at the sale)."""
        assert total("CA", f"CA-{province}", code="books") == 5

    def test_districts_rate_rises_in_october_2026(self) -> None:
        """kpmg.com, This Week in State Tax, 2025-12-15: 6 % through 2026-09-30, 7 % from 2026-10-01."""
        assert [total("US", "US-DC", day=date(2026, month, day)) for month, day in ((9, 30), (10, 1))] == [6, 7]

    @pytest.mark.parametrize(
        ("state", "mode"),
        [
            ("WA", "proportional"),  # RCW 82.08.145
            ("NJ", "proportional"),  # N.J.A.C. 18:24-27.2(c)
            ("OH", "proportional"),  # Ohio Adm. Code 5703-9-52(B)
            ("NE", "proportional"),  # 316 Neb. Admin. Code 1-079.02
            ("WI", "proportional"),  # Wis. Admin. Code Tax 11.94(2)(c)
            ("SD", "proportional"),  # ARSD 64:06:01:70
            ("MN", "proportional"),  # Revenue Notice 05-13, Fact Sheet 155
            # Members by the Agreement's definition of delivery charges (Rule 327.4).
            *((state, "proportional") for state in ("IN", "KY", "NC", "TN", "AR", "GA", "ND", "RI", "VT", "WV")),
            ("MI", "never"),  # Public Acts 20 and 21 of 2023
            ("KS", "never"),  # K.S.A. 79-3602, from 2023-07-01
            ("IL", "follows_goods"),  # Kean v. Wal-Mart Stores, 235 Ill. 2d 351 (2009)
            ("NY", "follows_goods"),  # TaxJar's case B6: all of it with one taxable article
        ],
    )
    def test_shipping_is_taxed_as_the_state_says(self, state: str, mode: str) -> None:
        assert {rule.shipping for rule in rates("US", f"US-{state}")} == {ShippingMode(mode)}

    def test_a_mixed_shipment_to_washington_is_taxed_by_share(self) -> None:
        """dor.wa.gov, delivery charges: of 10.00 for 60.00 taxable and 40.00 exempt 6.00 is taxed, at 6.5 %: 39."""
        washington = rates("US", "US-WA")
        exempt = msgspec.structs.replace(washington[0], version="x", tax_code="food", rate_percent=Decimal(), reason=Reason.PRODUCT_EXEMPT)

        rows = taxed([goods(6000), goods(4000, tax_code="food"), shipping(1000)], *washington, exempt)

        assert of_line(rows, 2) == 39


class TestEveryRow:
    def test_says_where_it_is_from_and_when_it_was_compared(self) -> None:
        assert [rule for rule in STARTER if not rule.source.strip() or rule.checked_on is None] == []
        assert [rule for rule in STARTER if rule.checked_on and not date(2026, 9, 1) <= rule.checked_on <= TODAY] == []

    def test_is_valid_before_the_day_of_its_package(self) -> None:
        """A rate did not begin on the day on which somebody listed it: every country has one on 2026-07-01."""
        countries = {rule.country for rule in STARTER} - {"CA", "US"}

        assert [country for country in countries if not rates(country, day=date(2026, 7, 1))] == []
        assert {rule.valid_from for rule in STARTER if rule.valid_from >= date(2026, 7, 1)} == {date(2026, 7, 1), date(2026, 10, 1)}

    def test_a_places_own_table_is_not_asked_for_elsewhere(self) -> None:
        """Monaco has France's rates (Directive 2006/112/EC Art. 7), Liechtenstein Switzerland's, Man the UK's; Guernsey none."""
        for place, like in (("MC", "FR"), ("LI", "CH"), ("IM", "GB")):
            assert {(r.tax_code, r.rate_percent) for r in STARTER if r.country == place} == {
                (r.tax_code, r.rate_percent) for r in STARTER if r.country == like
            }
        assert [(rule.rate_percent, rule.reason) for rule in rates("GG")] == [(Decimal(), Reason.NOT_SUBJECT_TO_TAX)]

    def test_japans_are_rounded_down_once_a_rate(self) -> None:
        """A13: 10 and 8 since 2019-10-01 (newsonjapan.com 125607); one rounding a rate and invoice."""
        assert [total("JP", code=code) for code in ("", "reduced")] == [Decimal(10), Decimal(8)]
        assert rates("JP", day=date(2019, 9, 30)) == []
        assert {(rule.rounding.value, rule.scope.value) for rule in rates("JP")} == {("down", "rate_group")}


class TestAge:
    def test_a_table_is_old_a_year_after_it_was_compared(self) -> None:
        checked = date(2026, 11, 30)
        last_day = checked + timedelta(days=table_age.RULES_CHECKED_MAX_DAYS)

        assert table_age.oldest_check([checked, None], last_day) is None
        assert table_age.oldest_check([checked, last_day, None], last_day + timedelta(days=1)) == checked
        assert table_age.oldest_check([None], last_day) is None

    def test_comparing_it_again_is_no_new_version(self) -> None:
        [rule] = rates("DE")
        again = msgspec.structs.replace(rule, checked_on=date(2027, 11, 30))

        assert importing.version_of(again) == rule.version
        assert importing.changes([rule], [again]).same == (again,)
