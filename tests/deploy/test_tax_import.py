"""Tax rules from files into a store: all or none, a dry run that shows what would change, and a set to begin with."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy import taxes
from deploy.taxes import STARTER, ImportRefused
from services.fulfillment.domain.tax.engine import Kind, Line, Row, compute
from services.fulfillment.domain.tax.rules import SHIPPING_CODE, Place
from services.fulfillment.domain.tax.sale import Registration, Sale, rules_of
from services.fulfillment.domain.territories import EU
from shared.ids import new_id
from shared.messages import Environment
from tests.world import Place as World

HEADING = "country,name,rate_percent,valid_from,source\n"


def a_file(folder: Path, *rows: str) -> Path:
    file = folder / "rules.csv"
    file.write_text(HEADING + "\n".join(rows) + "\n")
    return file


async def bring_in(world: World, store: Any, file: Path, *, replace: bool = False, dry_run: bool = False) -> Any:
    found = await taxes.bring_in(
        world.database_url, taxes.read(file), store_id=store, environment=Environment.SANDBOX, replace=replace, dry_run=dry_run
    )
    return len(found.added), len(found.same), len(found.missing)


async def rules_of_store(world: World, store: Any) -> list[Any]:
    connection = await asyncpg.connect(world.database_url)
    try:
        return list(
            await connection.fetch("SELECT * FROM fulfillment.tax_jurisdiction_rules WHERE store_id = $1 AND removed_at IS NULL", store)
        )
    finally:
        await connection.close()


class TestImport:
    async def test_brings_rules_in_once(self, place: World, tmp_path: Path) -> None:
        store, file = new_id(), a_file(tmp_path, "DE,MwSt,19,2024-01-01,law", "FR,TVA,20,2024-01-01,law")

        assert await bring_in(place, store, file, dry_run=True) == (2, 0, 0)
        assert await bring_in(place, store, file) == (2, 0, 0)
        assert await bring_in(place, store, file) == (0, 2, 0)

    async def test_a_changed_rate_ends_the_one_before(self, place: World, tmp_path: Path) -> None:
        store = new_id()
        await bring_in(place, store, a_file(tmp_path, "DE,MwSt,19,2024-01-01,law", "FR,TVA,20,2024-01-01,law"))
        before = await rules_of_store(place, store)
        assert len(before) == 2

        assert await bring_in(place, store, a_file(tmp_path, "DE,MwSt,16,2024-07-01,law")) == (1, 0, 1)

        after = await rules_of_store(place, store)
        assert {(rule["name"], f"{rule['rate_percent']:f}", str(rule["valid_to"])) for rule in after} == {
            ("MwSt", "19.000000", "2024-06-30"),
            ("MwSt", "16.000000", "None"),
            ("TVA", "20.000000", "None"),
        }
        # It is the same rule in another version.
        assert {rule["id"] for rule in before} <= {rule["id"] for rule in after}

    async def test_two_rates_from_the_same_day_contradict_each_other(self, place: World, tmp_path: Path) -> None:
        store = new_id()
        await bring_in(place, store, a_file(tmp_path, "DE,MwSt,19,2024-01-01,law"))

        with pytest.raises(ImportRefused, match="Two rules hold at the same time"):
            await bring_in(place, store, a_file(tmp_path, "DE,MwSt,16,2024-01-01,law"))

    async def test_a_file_can_be_the_whole_truth(self, place: World, tmp_path: Path) -> None:
        store = new_id()
        await bring_in(place, store, a_file(tmp_path, "DE,MwSt,19,2024-01-01,law", "FR,TVA,20,2024-01-01,law"))
        changed = a_file(tmp_path, "DE,MwSt,16,2024-01-01,law")

        assert await bring_in(place, store, changed, replace=True, dry_run=True) == (1, 0, 2)
        assert await bring_in(place, store, changed, replace=True) == (1, 0, 2)
        assert await bring_in(place, store, changed) == (0, 1, 0)

    @pytest.mark.parametrize(
        ("rows", "said"),
        [
            (["DE,MwSt,nineteen,2024-01-01,law"], "row 1"),
            (["DE,MwSt,19,2024-01-01,law", "de,MwSt,19,2024-01-01,law"], "row 2: country 'de'"),
            (["DE,MwSt,19,2024-01-01,"], "source is empty"),
        ],
    )
    async def test_what_is_wrong_is_said_by_row_and_nothing_is_taken(self, tmp_path: Path, rows: list[str], said: str) -> None:
        with pytest.raises(ImportRefused, match=said) as refused:
            taxes.read(a_file(tmp_path, *rows))

        assert "Nothing was changed." in str(refused.value)

    def test_a_file_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ImportRefused, match="cannot be read"):
            taxes.read(tmp_path / "nowhere.csv")


RULES = taxes.read(STARTER)
DAY = max(rule.valid_from for rule in RULES)
US = {rule.region for rule in RULES if rule.country == "US"}
CANADA = {rule.region for rule in RULES if rule.country == "CA"}


def taxed(place: Place, *, tax_code: str = "", registered: tuple[Registration, ...] | None = None, home: str = "") -> list[Row]:
    """Tax 100.00 of goods and 10.00 of shipping sold where the seller is at home."""
    known = registered if registered is not None else (Registration(country=place.country, region=place.region),)
    sale = Sale(ship_from=place, ship_to=place, day=DAY, home=home or place.country, registrations=known)
    lines = [Line(amount=10_000, tax_code=tax_code), Line(amount=1_000, tax_code=SHIPPING_CODE, kind=Kind.SHIPPING)]
    return compute(lines, rules_of(sale, RULES))


class TestStarter:
    def test_says_where_and_since_when_for_every_row(self) -> None:
        assert all(rule.source and rule.valid_from for rule in RULES)

    def test_covers_what_it_promises(self) -> None:
        countries = {rule.country for rule in RULES}
        assert EU | {"GB", "CH", "NO", "AU", "CA", "US"} <= countries
        assert len(US) == 51
        assert len(CANADA) == 13
        assert {rule.country for rule in RULES if rule.tax_code == "reduced"} >= EU - {"DK"}

    @pytest.mark.parametrize(
        ("place", "code", "percents"),
        [
            (Place(country="DE"), "", ["19"]),
            (Place(country="DE"), "reduced", ["7"]),
            (Place(country="DE"), "reduced.low.super", ["7"]),
            (Place(country="FR"), "reduced.low", ["5.5"]),
            (Place(country="PT", postal_code="9000-064"), "", ["22"]),
            (Place(country="PT", postal_code="9500-321"), "reduced.low", ["4"]),
            (Place(country="AT", postal_code="6992"), "", ["19"]),
            (Place(country="GB"), "zero", ["0"]),
            (Place(country="CA", region="CA-ON"), "", ["13"]),
            (Place(country="CA", region="CA-QC"), "", ["5", "9.975"]),
            (Place(country="CA", region="CA-AB"), "", ["5"]),
            (Place(country="US", region="US-WA"), "", ["6.5"]),
            (Place(country="US", region="US-OR"), "", ["0"]),
            (Place(country="AU"), "", ["10"]),
        ],
    )
    def test_a_sale_at_home_is_taxed_at_the_known_rate(self, place: Place, code: str, percents: list[str]) -> None:
        rows = [row for row in taxed(place, tax_code=code) if row.line == 0]

        assert [row.rate_percent for row in rows] == [Decimal(percent) for percent in percents]
        assert sum(row.amount for row in rows) == round(sum(Decimal(percent) * 100 for percent in percents) + Decimal("0.0000001"))

    @pytest.mark.parametrize("region", sorted(US | CANADA))
    def test_every_state_and_province_gives_an_answer(self, region: str) -> None:
        rows = taxed(Place(country=region[:2], region=region))

        assert {row.line for row in rows} == {0, 1}

    @pytest.mark.parametrize("country", sorted(EU))
    def test_shipping_goes_with_the_goods_in_the_union(self, country: str) -> None:
        goods, shipping = taxed(Place(country=country))

        assert shipping.amount * 10 == goods.amount
