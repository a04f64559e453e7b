"""Rules from files: all of them or none, and every row's problem named."""

import csv
import io
from datetime import date
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from services.fulfillment.domain.tax.importing import COLUMNS, RulesRefused, changes, from_csv, from_json
from services.fulfillment.domain.tax.rules import Level, Reason, RoundingScope, Rule, ShippingMode

ROW: dict[str, Any] = {"country": "DE", "name": "USt", "rate_percent": "19", "valid_from": "2021-01-01", "source": "UStG §12"}


def in_csv(*rows: dict[str, Any]) -> list[Rule]:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows([{**ROW, **row} for row in rows])
    return from_csv(text.getvalue())


def in_json(*rows: dict[str, Any]) -> list[Rule]:
    return from_json(msgspec.json.encode([{**ROW, **row} for row in rows]))


def refusal(*rows: dict[str, Any]) -> Any:
    with pytest.raises(RulesRefused) as refused:
        in_csv(*rows)
    return refused.value.facts


class TestReading:
    def test_a_row_with_everything(self) -> None:
        wanted = {
            "country": "US",
            "region": "US-NY",
            "level": "city",
            "name": "New York City",
            "tax_code": "clothing",
            "rate_percent": "4.500",
            "reason": "reduced_rated",
            "taxed_above": "11000",
            "shipping": "follows_goods",
            "scope": "document",
            "compound": "true",
            "valid_to": "2030-12-31",
            "postal_codes": "100* 10301-10314",
        }

        [rule] = in_csv(wanted)

        assert (rule.level, rule.reason, rule.shipping, rule.scope) == (
            Level.CITY,
            Reason.REDUCED_RATED,
            ShippingMode.FOLLOWS_GOODS,
            RoundingScope.DOCUMENT,
        )
        assert (rule.rate_percent, rule.taxed_above, rule.compound) == (Decimal("4.5"), 11_000, True)
        assert (rule.postal_codes, rule.valid_to) == (("100*", "10301-10314"), date(2030, 12, 31))

    def test_json_and_csv_say_the_same(self) -> None:
        assert in_json({"postal_codes": ["27498"], "rate_percent": 19.0}) == [
            msgspec.structs.replace(in_csv({"postal_codes": "27498"})[0], rate_percent=Decimal("19.0"))
        ]

    def test_the_same_rule_has_the_same_version_however_it_is_written(self) -> None:
        versions = {rule.version for rate in ("19", "19.0", "19.000000") for rule in in_csv({"rate_percent": rate})}

        assert len(versions) == 1
        assert in_csv({"rate_percent": "18"})[0].version not in versions

    def test_a_mark_at_the_beginning_of_a_file_does_not_matter(self) -> None:
        assert len(from_csv("\ufeff" + ",".join(ROW) + "\n" + ",".join(ROW.values()) + "\n")) == 1


class TestRefusing:
    @pytest.mark.parametrize(
        ("row", "said"),
        [
            ({"country": "Germany"}, "two capital letters"),
            ({"region": "Bayern"}, "ISO 3166-2"),
            ({"region": "FR-IDF"}, "DE-XX"),
            ({"rate_percent": "19%"}, "rate_percent"),
            ({"rate_percent": "-1"}, "rate_percent"),
            ({"rate_percent": "100.000001"}, "over 100"),
            ({"rate_percent": "1.1234567"}, "more than 6 decimals"),
            ({"rate_percent": "NaN"}, "rate_percent"),
            ({"level": "galaxy"}, "level"),
            ({"valid_from": "1.1.2021"}, "valid_from"),
            ({"valid_to": "2020-12-31"}, "before valid_from"),
            ({"postal_codes": "27498 d'oh"}, "postal code"),
            ({"taxed_above": "100", "taxed_up_to": "100"}, "taxed_up_to"),
            ({"reason": "zero_rated"}, "contradict"),
            ({"source": ""}, "source"),
            ({"name": " "}, "name is empty"),
        ],
    )
    def test_each_problem_is_named_with_its_row(self, row: dict[str, Any], said: str) -> None:
        facts = refusal({"valid_from": "2020-01-01", "valid_to": "2020-12-31"}, row)

        assert [each["row"] for each in facts["rows"]] == [2]
        assert said in facts["rows"][0]["problem"]

    def test_all_problems_are_told_at_once(self) -> None:
        facts = refusal({"country": "x"}, {}, {"rate_percent": "much"})

        assert (facts["count"], [each["row"] for each in facts["rows"]]) == (2, [1, 3])

    def test_two_that_hold_at_the_same_time_for_the_same(self) -> None:
        facts = refusal({"valid_to": "2024-06-30"}, {"tax_code": "food"}, {"valid_from": "2024-06-30", "rate_percent": "16"})

        assert facts["rows"] == [{"row": 3, "problem": "it holds at the same time as row 1, for the same"}]

    def test_one_after_the_other_is_a_change_of_rate(self) -> None:
        assert len(in_csv({"valid_to": "2024-06-30"}, {"valid_from": "2024-07-01", "rate_percent": "16"})) == 2

    @pytest.mark.parametrize("text", ["", "country,colour\nDE,red\n", 'country,name\n"DE,x\n'])
    def test_a_file_that_is_none(self, text: str) -> None:
        with pytest.raises(RulesRefused):
            from_csv(text)

    @pytest.mark.parametrize("raw", [b"", b"{}", b'[{"country": "DE"}]', b'[{"colour": "red"}]', b"[1]"])
    def test_json_that_is_no_list_of_rules(self, raw: bytes) -> None:
        with pytest.raises(RulesRefused):
            from_json(raw)


def test_an_import_says_what_it_would_change() -> None:
    old = in_csv({}, {"country": "FR", "rate_percent": "20"})
    new = in_csv({}, {"country": "FR", "rate_percent": "21"}, {"country": "IT", "rate_percent": "22"})

    found = changes(old, new)

    assert [rule.country for rule in found.added] == ["FR", "IT"]
    assert [rule.country for rule in found.same] == ["DE"]
    assert [(rule.country, rule.rate_percent) for rule in found.missing] == [("FR", Decimal(20))]
    assert changes(new, new) == msgspec.structs.replace(found, added=(), same=tuple(new), missing=())
