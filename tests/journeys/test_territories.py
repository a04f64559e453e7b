"""Territories over HTTP: quotes, evidence, returns and labels where a country's tax or customs end before its border, or beyond it."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.fulfillment import shop
from tests.fulfillment.shop import BERLIN, PARIS, ZURICH, a_rule, an_order, finalize, ok, quote
from tests.world import Place, World, a_world

MUG = {**shop.MUG, "quantity": 1, "unit_price": 10_000, "tax_behavior": "exclusive"}
RULES = (
    a_rule("GB", "VAT", "20"),
    a_rule("CH", "MWST", "8.1"),
    a_rule("US", "state tax", "7.25", region="US-CA", level="state"),
)


def at(country: str, postal_code: str, city: str, **more: Any) -> dict[str, Any]:
    return {"name": "A Buyer", "street_address": "Main Street 1", "city": city, "postal_code": postal_code, "country_code": country, **more}


MONACO, MONACO_BY_FRANCE = at("MC", "98000", "Monaco"), at("FR", "98000", "Monaco")
MIQUELON, REUNION = at("FR", "97500", "Saint-Pierre"), at("FR", "97400", "Saint-Denis")
HELIGOLAND, LIVIGNO = at("DE", "D-27498", "Helgoland"), at("IT", "23041", "Livigno", country_area="SO")
BELFAST, LONDON = at("GB", "BT1 5GS", "Belfast"), at("GB", "SW1A 1AA", "London")
MADRID, CANARIES = at("ES", "28001", "Madrid", country_area="Madrid"), at("ES", "35001", "Las Palmas", country_area="Las Palmas")
LOS_ANGELES, APO = at("US", "90001", "Los Angeles", country_area="CA"), at("US", "09012", "APO", country_area="AE")
SAN_JUAN, GUAM = at("US", "00901", "San Juan", country_area="PR"), at("GU", "96910", "Hagatna")
HONG_KONG, VADUZ = at("HK", "", "Central", country_area="Hong Kong Island"), at("LI", "9490", "Vaduz")


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, fulfillment={}) as made:
        await shop.set_up(made, carriers=["sandbox"])
        for rule in RULES:
            await ok(await made.send("POST", "/api/v1/admin/tax/rules", rule))
        await ok(await made.send("POST", "/api/v1/admin/tax/nexus", {"country": "US", "region": "US-CA", "valid_from": shop.SINCE}))
        yield made


async def from_here(world: World, here: dict[str, Any]) -> None:
    """Let the shop sell from somewhere, at home in that country."""
    settings = {**shop.SETTINGS, "carriers": ["sandbox"], "ship_from": here, "home_country": here["country_code"]}
    await ok(await world.send("PUT", "/api/v1/admin/fulfillment/settings", settings))


async def goods_taxed(world: World, there: dict[str, Any], **changes: Any) -> tuple[int, str, list[str]]:
    """Quote 100.00 of goods, and say what tax they bear, why, and what the buyer is shown besides."""
    order_id = await an_order(world, shipping_address=there, items=[MUG], **changes)
    snapshot = await ok(await quote(world, order_id))
    [line] = [each for each in snapshot["tax_lines"] if each["line"] == 0]
    return line["amount"], line["reason"], [each["code"] for each in snapshot["notices"]]


# Numbers are the examples of python-stdnum's modules: eu.vat by gb.vat, ch.vat, no.mva.
QUOTES = [
    ("D1", BERLIN, MONACO, "", (2_000, "standard_rated", []), "Directive 2006/112/EC, Article 7"),
    ("D1", BERLIN, MONACO_BY_FRANCE, "", (2_000, "standard_rated", []), "Directive 2006/112/EC, Article 7"),
    ("D2", BERLIN, MIQUELON, "", (0, "export", []), "Directive 2006/112/EC, Article 5; TFEU, Annex II"),
    ("D6", BERLIN, HELIGOLAND, "", (0, "export", []), "Directive 2006/112/EC, Article 6(2)(a)"),
    ("D7", BERLIN, BELFAST, "", (2_000, "standard_rated", []), "Windsor Framework, Article 8 and Annex 3; HMRC VATNIEU3720"),
    ("D7", BERLIN, LONDON, "", (0, "export", []), "Great Britain is outside the EU"),
    ("D8", BERLIN, BELFAST, "XI 980 7806 84", (0, "intra_community_supply", []), "Directive 2006/112/EC, Article 138; Annex 3"),
    ("D14", BERLIN, PARIS, "GB 980 7806 84", (2_000, "standard_rated", ["vat-id-not-eu"]), "a number, but no EU one"),
    ("D14", BERLIN, PARIS, "CHE-107.787.577 MWST", (2_000, "standard_rated", ["vat-id-not-eu"]), "a number, but no EU one"),
    ("D14", BERLIN, PARIS, "CHE-107.787.578 MWST", (2_000, "standard_rated", ["vat-id-invalid"]), "a wrong check digit"),
    ("D14", BERLIN, ZURICH, "CHE-107.787.577 MWST", (0, "export", []), "an export has no need of one"),
    ("D1", PARIS, MONACO, "", (2_000, "standard_rated", []), "Directive 2006/112/EC, Article 7"),
    ("D1", MONACO, PARIS, "", (2_000, "standard_rated", []), "Directive 2006/112/EC, Article 7"),
    ("LI", ZURICH, VADUZ, "", (810, "standard_rated", []), "MWSTG (CH), Article 3(a)"),
    ("C4", LOS_ANGELES, APO, "", (0, "not_collecting", ["tax-not-collected"]), "no state's tax"),
    ("C4", LOS_ANGELES, SAN_JUAN, "", (0, "not_collecting", ["tax-not-collected"]), "13 L.P.R.A. § 32021: its own tax"),
    ("C4", LOS_ANGELES, GUAM, "", (0, "not_collecting", ["tax-not-collected"]), "its own tax (11 GCA § 26202)"),
    ("C4", LOS_ANGELES, LOS_ANGELES, "", (725, "standard_rated", []), "registered there"),
    ("C18", HONG_KONG, HONG_KONG, "", (0, "not_collecting", ["tax-not-collected"]), "Hong Kong levies no sales tax"),
]


@pytest.mark.parametrize(
    ("case", "here", "there", "vat_id", "expected", "source"), QUOTES, ids=[f"{n}-{each[0]}" for n, each in enumerate(QUOTES)]
)
async def test_a_quote_is_taxed_where_it_is_due(
    world: World, case: str, here: dict[str, Any], there: dict[str, Any], vat_id: str, expected: tuple[int, str, list[str]], source: str
) -> None:
    await from_here(world, here)

    assert await goods_taxed(world, there, vat_id=vat_id) == expected, source


async def test_tax_that_is_due_is_refused_without_a_rule(world: World) -> None:
    """F13 is no way round it: the seller collects in Italy by the One-Stop-Shop, and no rule is known."""
    await from_here(world, BERLIN)
    order_id = await an_order(world, shipping_address=at("IT", "00184", "Roma", country_area="RM"), items=[MUG])

    refused = await quote(world, order_id)

    assert (refused.status, refused.code) == (422, "no-tax-rule")


async def test_evidence_and_return_name_northern_ireland(world: World) -> None:
    """A One-Stop-Shop return says XI (Regulation (EU) 2020/194, Annex III, as the portals take it since 2021)."""
    await from_here(world, BERLIN)
    order_id = await an_order(world, shipping_address=BELFAST, items=[MUG])
    snapshot = await ok(await quote(world, order_id))
    paid = await ok(await world.authorize(order_id, snapshot["snapshot_id"]))
    await ok(await world.send("POST", f"/api/v1/admin/orders/{order_id}/payments/{paid['intent']['id']}/capture", {}))
    done = await ok(await finalize(world, order_id, snapshot["snapshot_id"]))

    assert done["evidence"]["territory"]["name"] == "Northern Ireland"
    assert (done["evidence"]["territory"]["tax"], "Windsor Framework" in done["evidence"]["territory"]["source"]) == ("XI", True)
    [row] = await world.rows("SELECT ship_from, ship_to FROM fulfillment.tax_documents WHERE order_id = $1", order_id)
    assert (row["ship_from"], row["ship_to"]) == ("DE", "XI")
    [counted] = await world.rows("SELECT country, count FROM fulfillment.tax_sales_totals WHERE country IN ('GB', 'XI') AND kind = 'sale'")
    assert (counted["country"], counted["count"]) == ("XI", 1)
    watch = {"country": "GB", "registered": False, "valid_from": shop.SINCE, "threshold_count": 10}
    await ok(await world.send("POST", "/api/v1/admin/tax/nexus", watch))
    views = (await ok(await world.send("GET", "/api/v1/admin/tax/nexus")))["nexus"]
    assert [each["threshold"]["count"] for each in views if each["nexus"]["country"] == "GB"] == [1]


LABELS = [
    ("I6", LOS_ANGELES, APO, True, "USPS DMM 608.2.4 and 703.2.3.6"),
    ("I6", LOS_ANGELES, GUAM, True, "19 CFR 101.1; USPS DMM 608.2.4"),
    ("I6", LOS_ANGELES, SAN_JUAN, False, "19 CFR 101.1"),
    ("I7", MADRID, CANARIES, True, "Directive 2006/112/EC, Article 6(1)(b); UCC, Article 1(3)"),
    ("I7", PARIS, REUNION, True, "Directive 2006/112/EC, Article 6(1)(c); UCC, Article 1(3)"),
    ("I7", BERLIN, HELIGOLAND, True, "UCC, Article 4(1)"),
    ("I8", PARIS, MONACO, False, "UCC, Article 4(2)(a)"),
    ("I8", ZURICH, VADUZ, False, "Treaty of 29 March 1923"),
    ("I8", BERLIN, BELFAST, False, "Windsor Framework, Article 5(3)"),
    ("I9", BERLIN, LIVIGNO, True, "UCC, Article 4(1)"),
    ("I9", BERLIN, LONDON, True, "a third country"),
    ("I9", BERLIN, PARIS, False, "UCC, Article 4(1)"),
]


@pytest.mark.parametrize(("case", "here", "there", "crosses", "source"), LABELS, ids=[f"{n}-{each[0]}" for n, each in enumerate(LABELS)])
async def test_a_label_needs_customs_where_there_is_a_border(
    world: World, case: str, here: dict[str, Any], there: dict[str, Any], crosses: bool, source: str
) -> None:
    await from_here(world, here)
    order_id = await an_order(world, shipping_address=there, items=[MUG])
    await ok(await quote(world, order_id))

    bought = await world.send("POST", f"/api/v1/admin/orders/{order_id}/shipping/labels", {})

    assert (bought.status, bought.code if crosses else "") == ((422, "customs-needed") if crosses else (201, "")), source
