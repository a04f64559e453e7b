"""Which rules apply where and when, and whom nobody taxes."""

from datetime import date, timedelta
from typing import Any

import pytest

from services.fulfillment.domain.postal import matches
from services.fulfillment.domain.tax.engine import Row
from services.fulfillment.domain.tax.reversal import RefundTooLarge, reversed_rows
from services.fulfillment.domain.tax.rules import Level, Place, Reason, Rule, Sourcing, selected
from services.fulfillment.domain.tax.sale import Exemption, NoTaxRule, Registration, Sale
from services.fulfillment.domain.territories import in_eu_vat_area
from tests.fulfillment.rates import DAY, PLACE, goods, national, rule, sold, taxed


class TestChoosing:
    def choose(self, rules: list[Rule], *, tax_code: str = "", day: date = DAY, place: Place = PLACE) -> list[str]:
        return [each.version for each in selected(rules, lambda _: place, tax_code=tax_code, day=day)]

    def test_the_more_specific_code_wins_within_a_jurisdiction(self) -> None:
        rules = [rule(percent, version=code or "all", tax_code=code) for percent, code in (("9", ""), ("5", "food"), ("0", "food.bread"))]

        assert self.choose(rules) == ["all"]
        assert self.choose(rules, tax_code="food.fish") == ["food"]
        assert self.choose(rules, tax_code="food.bread.rye") == ["food.bread"]
        assert self.choose(rules, tax_code="foodstuff") == ["all"]

    def test_named_postal_codes_win_over_everywhere(self) -> None:
        rules = [rule("9", version="all"), rule("4", version="there", postal_codes=("98100-98199",))]

        assert self.choose(rules) == ["there"]
        assert self.choose(rules, place=Place(country="US", region="US-WA", postal_code="98201")) == ["all"]

    def test_an_excluded_postal_code_is_not_covered(self) -> None:
        assert self.choose([rule("9", postal_codes_excluded=("981*",))]) == []

    @pytest.mark.parametrize(
        ("day", "version"), [(date(2023, 12, 31), "old"), (date(2024, 1, 1), "new"), (date(2024, 6, 30), "new"), (date(2024, 7, 1), "old")]
    )
    def test_a_rate_of_its_time(self, day: date, version: str) -> None:
        rules = [rule("19", version="old"), rule("16", version="new", valid_from=date(2024, 1, 1), valid_to=date(2024, 6, 30))]

        assert self.choose(rules, day=day) == [version]

    def test_come_in_the_order_in_which_they_are_worked_out(self) -> None:
        rules = [rule("1", "b", level=Level.CITY), rule("1", "a", level=Level.CITY), rule("1", "s"), rule("1", "last", priority=1)]

        assert [r.name for r in selected(rules, lambda _: PLACE, tax_code="", day=DAY)] == ["s", "a", "b", "last"]

    @pytest.mark.parametrize(
        ("code", "pattern", "named"),
        [
            ("98101", "98101", True),
            ("98101", "981*", True),
            ("98101", "98000-98200", True),
            ("98101", "98000-98100", False),
            ("9810", "98000-98200", False),
            ("K1A0B1", "K1A*", True),
            ("98101", "9810", False),
        ],
    )
    def test_postal_codes_are_named_one_by_one_by_beginning_or_by_range(self, code: str, pattern: str, named: bool) -> None:
        assert matches(code, pattern) is named

    def test_spaces_in_postal_codes_do_not_matter(self) -> None:
        place = Place(country="CA", region="CA-ON", postal_code="k1a 0b1")

        assert rule("1", country="CA", region="CA-ON", postal_codes=("K1A*",)).covers(place)


TEXAS = Place(country="US", region="US-TX", postal_code="75001")
AUSTIN = Place(country="US", region="US-TX", postal_code="78701")


class TestSales:
    def row(self, sale: Sale, *rules: Rule, **line: Any) -> Row:
        [row] = sold(sale, [goods(10_000, **line)], *rules)
        return row

    def sale(self, there: Place, here: Place, *registrations: Registration, **facts: Any) -> Sale:
        return Sale(ship_from=here, ship_to=there, day=DAY, home=here.country, registrations=registrations, **facts)

    def test_a_state_in_which_the_seller_is_not_registered_is_not_collected_for(self) -> None:
        sale = self.sale(PLACE, TEXAS, Registration(country="US", region="US-TX"))

        row = self.row(sale, rule("6.5"))

        assert (row.amount, row.reason, row.untaxed_amount) == (0, Reason.NOT_COLLECTING, 10_000)

    def test_one_in_which_they_are_is(self) -> None:
        assert self.row(self.sale(PLACE, TEXAS, Registration(country="US", region="US-WA")), rule("6.5")).amount == 650

    def test_a_registration_has_its_time(self) -> None:
        late = Registration(country="US", region="US-WA", valid_from=date(2027, 1, 1))

        assert self.row(self.sale(PLACE, TEXAS, late), rule("6.5")).reason is Reason.NOT_COLLECTING

    def test_a_country_with_which_the_seller_has_nothing_to_do(self) -> None:
        row = self.row(self.sale(Place(country="JP"), TEXAS), national("JP", "10"))

        assert (row.amount, row.reason, row.country) == (0, Reason.NOT_COLLECTING, "JP")

    def test_out_of_the_eu_is_an_export_unless_registered_there(self) -> None:
        rules = [national("GB", "20"), national("DE", "19")]
        there, here = Place(country="GB"), Place(country="DE")

        assert self.row(self.sale(there, here), *rules).reason is Reason.EXPORT
        assert self.row(self.sale(there, here, Registration(country="GB")), *rules).amount == 2_000

    @pytest.mark.parametrize(
        ("country", "postal_code", "inside"),
        [("DE", "27498", False), ("DE", "27499", True), ("ES", "35001", False), ("FR", "97110", False), ("GB", "SW1", False)],
    )
    def test_territories_outside_the_vat_area_are_exports(self, country: str, postal_code: str, inside: bool) -> None:
        place = Place(country=country, postal_code=postal_code)

        assert in_eu_vat_area(place) is inside
        row = self.row(self.sale(place, Place(country="DE"), Registration(oss=True)), national("DE", "19"), national(country, "20"))
        assert (row.reason is Reason.EXPORT) is not inside

    def test_a_place_that_no_rule_covers_is_refused_rather_than_guessed(self) -> None:
        sale = self.sale(Place(country="FR"), Place(country="DE"), Registration(oss=True))

        with pytest.raises(NoTaxRule):
            sold(sale, [goods(100)], national("DE", "19"))

    def test_an_exempt_customer_is_not_taxed_where_and_for_what_they_are_exempt(self) -> None:
        certificate = Exemption(certificate="R-1", country="US", region="US-WA", tax_codes=("supplies",))
        sale = self.sale(PLACE, TEXAS, Registration(country="US", region="US-WA"), exemptions=(certificate,))

        assert self.row(sale, rule("6.5"), tax_code="supplies.paper").reason is Reason.CUSTOMER_EXEMPT
        assert self.row(sale, rule("6.5"), tax_code="toys").amount == 650

    @pytest.mark.parametrize(
        ("time", "valid"),
        [
            ({"valid_from": DAY}, True),
            ({"valid_from": DAY + timedelta(days=1)}, False),
            ({"valid_to": DAY}, True),
            ({"valid_to": DAY - timedelta(days=1)}, False),
        ],
    )
    def test_first_and_last_day_count(self, time: Any, valid: bool) -> None:
        """For a border that is left out: of what a seller is registered for, and of what a customer is freed from."""
        here: Any = {"country": "US", "region": "US-WA"}
        others: Any = {"country": "US", "region": "US-TX"}
        registered = self.sale(PLACE, TEXAS, Registration(**here, **time), Registration(**others))
        freed = self.sale(PLACE, TEXAS, Registration(**here), exemptions=(Exemption(certificate="R-1", **here, **time),))

        assert self.row(registered, rule("6.5")).amount == (650 if valid else 0)
        assert self.row(freed, rule("6.5")).amount == (0 if valid else 650)

    def test_an_exemption_has_its_time(self) -> None:
        over = Exemption(certificate="R-1", country="US", valid_to=date(2026, 5, 31))
        sale = self.sale(PLACE, TEXAS, Registration(country="US", region="US-WA"), exemptions=(over,))

        assert self.row(sale, rule("6.5")).amount == 650

    @pytest.mark.parametrize(
        ("sourcing", "here", "version"),
        [
            (Sourcing.DESTINATION, AUSTIN, "there"),
            (Sourcing.ORIGIN, AUSTIN, "here"),
            (Sourcing.HYBRID, AUSTIN, "here"),
            (Sourcing.HYBRID, PLACE, "there"),
        ],
    )
    def test_where_a_sale_counts_as_made(self, sourcing: Sourcing, here: Place, version: str) -> None:
        texan = {"region": "US-TX", "sourcing": sourcing, "level": Level.CITY}
        rules = [
            rule("2", "city", version="there", postal_codes=("750*",), **texan),
            rule("1", "city", version="here", postal_codes=("787*",), **texan),
        ]

        assert self.row(self.sale(TEXAS, here, Registration(country="US", region="US-TX")), *rules).rule_version == version

    def test_a_foreign_vat_number_does_not_free_a_sale_at_home(self) -> None:
        sale = self.sale(Place(country="DE"), Place(country="DE"), buyer_vat_country="FR")

        assert self.row(sale, national("DE", "19")).amount == 1_900


class TestReversals:
    def test_copy_the_recorded_tax_in_proportion(self) -> None:
        rows = taxed([goods(1_499)], rule("10.25"))

        [back] = reversed_rows(rows, sold={0: 1_499}, before={}, now={0: 500})

        assert (back.amount, back.taxable_amount, back.rule_version) == (-51, -500, rows[0].rule_version)

    def test_leave_other_lines_alone(self) -> None:
        rows = taxed([goods(1_000), goods(2_000)], rule("10"))

        assert [row.line for row in reversed_rows(rows, sold={0: 1_000, 1: 2_000}, before={}, now={1: 2_000})] == [1]

    @pytest.mark.parametrize("asked", [501, -1])
    def test_refuse_more_than_is_left(self, asked: int) -> None:
        with pytest.raises(RefundTooLarge):
            reversed_rows(taxed([goods(1_000)], rule("10")), sold={0: 1_000}, before={0: 500}, now={0: asked})
