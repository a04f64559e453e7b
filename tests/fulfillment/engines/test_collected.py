"""What providers collect in all against what they say of lines and parts: the whole is charged, and what taxes nothing has no rate."""

from typing import Any

import pytest

from services.fulfillment.domain.tax.engine import Kind, Line, Row
from services.fulfillment.domain.tax.rules import Place
from services.fulfillment.providers.avalara import rows_from as rows_from_avalara
from services.fulfillment.providers.taxjar import ANSWERS, rows_from
from shared.provider_answers import IndeterminateResponse
from tests.fulfillment.engines.test_providers import asked
from tests.provider_facts.taxjar.calculations import RECORDED

NEW_YORK = Place(country="US", region="US-NY")


def a_line(number: int, amount: float, tax: float, *, state: float, city: float) -> dict[str, Any]:
    """What TaxJar says of a line under 4 % and 4.875 %."""
    of_state = {"state_taxable_amount": amount, "state_sales_tax_rate": 0.04, "state_amount": state}
    of_city = {"city_taxable_amount": amount, "city_tax_rate": 0.04875, "city_amount": city}
    return {"id": str(number), "taxable_amount": amount, "tax_collectable": tax, **of_state, **of_city}


def an_answer(total: float, *lines: dict[str, Any]) -> dict[str, Any]:
    return {"has_nexus": True, "freight_taxable": True, "amount_to_collect": total, "breakdown": {"line_items": list(lines)}}


def by_line(rows: list[Row]) -> list[int]:
    return [sum(row.amount for row in rows if row.line == n) for n in sorted({row.line for row in rows})]


class TestC17:
    """taxjar-go, issue 22: rounded by itself, the order's tax is a cent off what its lines say; woocommerce-services, issue 2532: two.

    The reference calls `amount_to_collect` the "amount of sales tax to collect".
    """

    def test_the_total_of_a_recorded_answer_is_charged(self) -> None:
        """solidus_taxjar, cassette of 2022-04-13: 0.89 and 8.88 for 9.76."""
        tax = {**RECORDED, "breakdown": {**RECORDED["breakdown"], "line_items": [{**RECORDED["breakdown"]["line_items"][0], "id": "0"}]}}

        rows = rows_from(tax, asked(Line(amount=1_000), Line(amount=10_000, kind=Kind.SHIPPING), place=NEW_YORK))

        assert by_line(rows) == [89, 887]

    def test_a_cent_goes_where_the_parts_say_so(self) -> None:
        """The line of 3.16 keeps its jurisdictions: 0.13 and 0.16 are 0.29, a cent over its own 0.28."""
        small = a_line(1, 3.16, 0.28, state=0.13, city=0.16)
        rows = rows_from(
            an_answer(1.18, a_line(0, 10.0, 0.89, state=0.4, city=0.49), small),
            asked(Line(amount=1_000), Line(amount=316), place=NEW_YORK),
        )

        assert [(row.line, row.name, row.amount) for row in rows] == [
            (0, "state", 40),
            (0, "city", 49),
            (1, "state", 13),
            (1, "city", 16),
        ]

    @pytest.mark.parametrize(("total", "lines"), [(1.42, [29, 29, 28, 28, 28]), (1.38, [27, 27, 28, 28, 28]), (1.40, [28] * 5)])
    def test_more_than_one_cent_is_spread(self, total: float, lines: list[int]) -> None:
        """woocommerce-services, issue 2532: five lines of 0.28, and two cents more in all."""
        answer = an_answer(total, *(a_line(n, 3.16, 0.28, state=0.13, city=0.15) for n in range(5)))

        assert by_line(rows_from(answer, asked(*[Line(amount=316)] * 5, place=NEW_YORK))) == lines

    @pytest.mark.parametrize("total", [0, 0.86, 0.92, 89])
    def test_a_sum_that_no_rounding_explains_proves_nothing(self, total: float) -> None:
        with pytest.raises(IndeterminateResponse), ANSWERS.reading():
            rows_from(an_answer(total, a_line(0, 10.0, 0.89, state=0.4, city=0.49)), asked(Line(amount=1_000), place=NEW_YORK))


def test_c16_a_part_that_taxes_nothing_has_no_rate() -> None:
    """saleor, pull request 17238."""
    details = [
        {"jurisType": "STA", "region": "NY", "country": "US", "taxName": "NY STATE TAX", "rate": 0.04, "tax": 0.4, "taxableAmount": 10.0},
        {"jurisType": "CTY", "region": "NY", "country": "US", "taxName": "COUNTY", "rate": 0.03, "tax": 0.0, "taxableAmount": 0.0},
    ]
    answer = {"lines": [{"lineNumber": "0", "tax": 0.4, "taxableAmount": 10.0, "details": details}]}

    rows = rows_from_avalara(answer, asked(Line(amount=1_000), place=NEW_YORK))

    assert [(row.name, f"{row.rate_percent:f}", row.amount) for row in rows] == [("NY STATE TAX", "4", 40)]
