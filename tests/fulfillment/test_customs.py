"""Customs: what is declared at which border, what must be known first, and what EasyPost and Shippo are sent."""

from datetime import date
from typing import Any

import msgspec
import pytest

from services.fulfillment.domain.shipping.customs import NOWHERE, CustomsIncomplete, Registered, Terms, registered_in, terms_of, way_of
from services.fulfillment.domain.shipping.shipments import CustomsNeeded
from services.fulfillment.providers import CarrierRefused, RatesRequest, easypost, shippo
from shared.contracts.customs import CustomsTerms, DeliveryConfirmation
from shared.contracts.fulfillment.pricing import PackageBody
from shared.contracts.fulfillment.tax import NexusBody
from shared.contracts.orders import Address, OrderContent

CUSTOMS = {"hs_code": "691200", "origin_country": "DE", "description": "Stoneware mug"}
MUG: dict[str, Any] = {
    "product_variant_id": "0192f0c1-7e00-7000-8000-000000000001",
    "name": "Mug",
    "quantity": 2,
    "unit_price": 1490,
    "weight_grams": 400,
    "customs": CUSTOMS,
}
PACKAGE = PackageBody(weight_grams=900, length_mm=300, width_mm=200, height_mm=100)
EORI = {"kind": "EORI", "number": "DE1234567890123", "country": "DE"}
GB_EORI = {"kind": "EORI", "number": "GB205672212000", "country": "GB"}
IOSS = {"kind": "IOSS", "number": "IM2760000742", "country": "DE"}
VOEC = {"kind": "VOEC", "number": "2000001", "country": "NO"}
GB_VAT = {"kind": "VAT", "number": "GB123456789", "country": "GB"}
ARN = {"kind": "ARN", "number": "300012345678", "country": "AU"}
EIN = {"kind": "EIN", "number": "12-3456789", "country": "US"}
NUMBERS = [EORI, GB_EORI, IOSS, VOEC, GB_VAT, ARN, EIN]
DUTIES = {"payer": "SENDER", "account": "123456789", "country": "US", "postal_code": "94107"}
ITN = "X20261130123456"


def at(country: str, postal_code: str = "", area: str = "", name: str = "Erika") -> Address:
    return Address(
        name=name, street_address="Main Street 1", city="Town", country_code=country, postal_code=postal_code, country_area=area, phone="1"
    )


PLACES = {
    "berlin": at("DE", "10178"),
    "heligoland": at("DE", "27498"),
    "paris": at("FR", "75001"),
    "reunion": at("FR", "97400"),
    "monaco": at("MC", "98000"),
    "madrid": at("ES", "28001"),
    "canaries": at("ES", "35001"),
    "livigno": at("IT", "23041"),
    "zurich": at("CH", "8001"),
    "vaduz": at("LI", "9490"),
    "london": at("GB", "SW1A 1AA"),
    "belfast": at("GB", "BT1 5GS"),
    "oslo": at("NO", "0150"),
    "boston": at("US", "02108", "MA"),
    "apo": at("US", "09009", "AE"),
    "guam": at("US", "96910", "GU"),
    "san_juan": at("US", "00901", "PR"),
    "toronto": at("CA", "M5H 2N2", "ON"),
    "tokyo": at("JP", "104-0061"),
    "sydney": at("AU", "2000", "NSW"),
}


def terms(
    start: str,
    end: str,
    *said: dict[str, Any] | None,
    packages: Any = (PACKAGE,),
    is_return: bool = False,
    registered: Registered = NOWHERE,
    **changes: Any,
) -> Terms:
    """Say what a carrier must know of two mugs, with changes to the order; the terms are the label's, the order's and the store's."""
    item = {**MUG, **changes.pop("item", {})}
    content = msgspec.convert({"currency": "EUR", "items": [item], **changes}, OrderContent)
    way = way_of(msgspec.structs.replace(PLACES[start], name="The Shop"), PLACES[end], is_return=is_return)
    spoken = [None if each is None else msgspec.convert(each, CustomsTerms) for each in said]
    return terms_of(content, packages, way, said=spoken, confirmations=(content.delivery_confirmation,), registered=registered)


def declared(start: str, end: str, *said: dict[str, Any] | None, **changes: Any) -> Any:
    """Give the declaration of two mugs as builtins."""
    found = terms(start, end, *said, **changes).declaration
    assert found is not None
    return msgspec.to_builtins(found)


def sent(carrier: Any, start: str, end: str, given: Terms) -> Any:
    """Give what an adapter sends for two mugs."""
    content = msgspec.convert({"currency": "EUR", "items": [MUG]}, OrderContent)
    request = RatesRequest(ship_from=PLACES[start], ship_to=PLACES[end], packages=(PACKAGE,), content=content, terms=given)
    body = carrier.shipment_body(request)
    return body.get("shipment", body)


def field_of(refused: CustomsIncomplete) -> Any:
    return refused.facts["field"]


class TestBorders:
    @pytest.mark.parametrize(
        ("start", "end", "crosses"),
        [
            # I6: USPS DMM 608.2.4 and 703.2.3.6, customs forms to and from APO, and to Guam; 19 CFR 101.1 for Puerto Rico.
            pytest.param("boston", "apo", True, id="I6_apo"),
            pytest.param("boston", "guam", True, id="I6_guam"),
            pytest.param("boston", "san_juan", False, id="I6_puerto_rico"),
            # I7: Directive 2006/112/EC, Article 6; Regulation (EU) 952/2013, Article 1(3).
            pytest.param("madrid", "canaries", True, id="I7_canaries"),
            pytest.param("canaries", "madrid", True, id="I7_from_the_canaries"),
            pytest.param("paris", "reunion", True, id="I7_reunion"),
            pytest.param("berlin", "heligoland", True, id="I7_heligoland"),
            # I8: Regulation (EU) 952/2013, Article 4(2)(a); ZG (CH), Article 3(2); Windsor Framework, Article 5.
            pytest.param("paris", "monaco", False, id="I8_monaco"),
            pytest.param("zurich", "vaduz", False, id="I8_liechtenstein"),
            pytest.param("berlin", "belfast", False, id="I8_northern_ireland"),
            pytest.param("berlin", "livigno", True, id="I9_livigno"),
            pytest.param("berlin", "london", True, id="I9_london"),
            pytest.param("berlin", "paris", False, id="I9_paris"),
        ],
    )
    @pytest.mark.parametrize("carrier", [easypost, shippo], ids=["easypost", "shippo"])
    def test_declaration_is_sent_where_goods_cross_one(self, carrier: Any, start: str, end: str, crosses: bool) -> None:
        given = terms(start, end, {"eel_pfc": "NOEEI 30.37(a)"})

        assert bool({"customs_info", "customs_declaration"} & sent(carrier, start, end, given).keys()) is crosses

    @pytest.mark.parametrize(("start", "end"), [("madrid", "canaries"), ("boston", "apo"), ("berlin", "heligoland")])
    def test_goods_without_customs_data_are_refused(self, start: str, end: str) -> None:
        """I6, I7."""
        with pytest.raises(CustomsNeeded):
            terms(start, end, item={"customs": None})

    def test_services_are_not_declared(self) -> None:
        """What is not sent crosses no border."""
        items = [MUG, {**MUG, "name": "Guarantee", "supply": "service", "customs": None, "weight_grams": None}]

        found = declared("berlin", "zurich", {"numbers": [EORI]}, items=items)

        assert [each["description"] for each in found["goods"]] == ["Stoneware mug"]


class TestDefaults:
    def test_terms_that_were_not_given(self) -> None:
        """I12: DAP, as neither EasyPost nor Shippo has a term where none is given; "return" is EasyPost's own (docs/customs-infos)."""
        found = declared("berlin", "zurich")

        assert {name: found[name] for name in ("contents", "non_delivery", "incoterm", "signer", "numbers", "eel_pfc", "itn")} == {
            "contents": "merchandise",
            "non_delivery": "return",
            "incoterm": "DAP",
            "signer": "The Shop",
            "numbers": (),
            "eel_pfc": "",
            "itn": "",
        }

    def test_label_before_order_before_store(self) -> None:
        label, order = {"contents": "gift"}, {"contents": "sample", "non_delivery": "abandon"}
        store = {"contents": "documents", "non_delivery": "return", "signer": "Ada Lovelace"}
        found = declared("berlin", "zurich", label, order, store)

        assert (found["contents"], found["non_delivery"], found["signer"]) == ("gift", "abandon", "Ada Lovelace")

    def test_what_comes_back_is_returned_goods_certified_by_the_shop(self) -> None:
        found = declared("zurich", "berlin", {"numbers": NUMBERS}, is_return=True)

        assert (found["contents"], found["signer"]) == ("returned_goods", "Erika")
        assert [(each["kind"], each["of_sender"]) for each in found["numbers"]] == [("EORI", False)]


class TestGoods:
    @pytest.mark.parametrize(
        ("item", "value"),
        [
            ({}, 2980),
            ({"adjustments": [{"label": "sale", "amount": 980}]}, 2000),
            # Regulation (EU) 952/2013, Article 70(1) and (2): what a third party pays is part of what is paid.
            ({"adjustments": [{"label": "coupon", "amount": 980, "funded_by": "third_party"}]}, 2980),
            ({"unit_price": 0, "customs": {**CUSTOMS, "unit_value": 500}}, 1000),
        ],
        ids=["price", "discount", "paid_by_a_third_party", "free"],
    )
    def test_values_are_of_all_units(self, item: dict[str, Any], value: int) -> None:
        """docs.easypost.com/docs/customs-items and shippo 3.9.0, CustomsItemCreateRequest: value and weight of all units."""
        [goods] = declared("berlin", "zurich", item=item)["goods"]

        assert (goods["value"], goods["weight_grams"], goods["quantity"]) == (value, 800, 2)

    def test_tax_in_the_price_is_no_part_of_the_value(self) -> None:
        """Delegated Regulation (EU) 2015/2446, Article 1(48): 178.50 with 19 % is worth 150.00, which the IOSS takes."""
        tax = {"jurisdiction": "MwSt", "rate_percent": "19", "amount": 2_850, "behavior": "inclusive", "line": 0}
        price = {"quantity": 1, "unit_price": 17_850, "tax_behavior": "inclusive"}
        found = declared("zurich", "berlin", {"numbers": [IOSS]}, item=price, tax_lines=[tax])

        assert (found["goods"][0]["value"], [each["kind"] for each in found["numbers"]]) == (15_000, ["IOSS"])

    @pytest.mark.parametrize(
        ("changes", "field"),
        [
            ({"item": {"unit_price": 0}}, "$.items[0].customs.unit_value"),
            ({"item": {"weight_grams": 0}}, "$.items[0].weight_grams"),
            ({"item": {"weight_grams": None}}, "$.items[0].weight_grams"),
            ({"packages": (PackageBody(weight_grams=799),)}, "$.packages"),
        ],
        ids=["no_value", "no_weight", "unknown_weight", "heavier_than_the_parcel"],
    )
    def test_what_carriers_refuse_is_refused_before(self, changes: dict[str, Any], field: str) -> None:
        """docs.easypost.com/docs/customs-items: weight and value must be greater than zero."""
        with pytest.raises(CustomsIncomplete) as refused:
            terms("berlin", "zurich", **changes)
        assert field_of(refused.value) == field

    def test_rounded_items_never_weigh_more_than_the_parcel(self) -> None:
        """EasyPost weighs in ounces: three lines of 333 g in a parcel of 999 g, and 500 of 1 g in one of 500 g."""
        for count, grams in ((3, 333), (500, 1)):
            items = [{**MUG, "quantity": 1, "unit_price": 100, "weight_grams": grams}] * count
            content = msgspec.convert({"currency": "EUR", "items": items}, OrderContent)
            packages = (PackageBody(weight_grams=count * grams),)
            given = terms_of(content, packages, way_of(PLACES["berlin"], PLACES["zurich"]), said=(), confirmations=())
            request = RatesRequest(ship_from=PLACES["berlin"], ship_to=PLACES["zurich"], packages=packages, content=content, terms=given)
            shipment = easypost.shipment_body(request)["shipment"]
            weights = [item["weight"] for item in shipment["customs_info"]["customs_items"]]

            assert min(weights) > 0
            assert sum(weights) <= shipment["parcel"]["weight"]


class TestExportFromTheUnitedStates:
    """I11: 15 CFR 30.37(a) (2500 USD or less by Schedule B code), 30.36 (to Canada), 30.2(d)(2) (possessions), Appendix C."""

    @pytest.mark.parametrize(
        ("end", "dollars", "legend"),
        [
            ("tokyo", 2500, "NOEEI 30.37(a)"),
            ("apo", 2500, "NOEEI 30.37(a)"),
            ("toronto", 9000, "NOEEI 30.36"),
            ("guam", 9000, "NOEEI 30.2(d)(2)"),
        ],
    )
    def test_exempt_exports_bear_their_legend(self, end: str, dollars: int, legend: str) -> None:
        found = declared("boston", end, currency="USD", item={"quantity": 1, "unit_price": dollars * 100})

        assert (found["eel_pfc"], found["itn"]) == (legend, "")

    @pytest.mark.parametrize("legend", [None, "NOEEI 30.37(a)", "NOEEI 30.36"])
    def test_others_need_an_itn(self, legend: str | None) -> None:
        dear: dict[str, Any] = {"currency": "USD", "item": {"quantity": 1, "unit_price": 250_001}}
        with pytest.raises(CustomsIncomplete) as refused:
            terms("boston", "tokyo", {"eel_pfc": legend}, **dear)

        assert field_of(refused.value) == "$.customs.itn"
        assert declared("boston", "tokyo", {"itn": ITN}, **dear)["itn"] == ITN
        assert declared("boston", "apo", {"eel_pfc": "NOEEI 30.39"}, **dear)["eel_pfc"] == "NOEEI 30.39"

    def test_lines_of_one_code_count_together(self) -> None:
        one, other = {**MUG, "quantity": 1, "unit_price": 150_000}, {**MUG, "customs": {**CUSTOMS, "hs_code": "691100"}}

        assert declared("boston", "tokyo", currency="USD", items=[one, {**other, "quantity": 1, "unit_price": 150_000}])["eel_pfc"]
        with pytest.raises(CustomsIncomplete):
            terms("boston", "tokyo", currency="USD", items=[one, one], packages=(PACKAGE,))

    def test_value_in_another_currency_is_not_guessed(self) -> None:
        with pytest.raises(CustomsIncomplete) as refused:
            terms("boston", "tokyo", currency="EUR")

        assert field_of(refused.value) == "$.customs.itn"
        assert declared("boston", "tokyo", {"eel_pfc": "NOEEI 30.37(a)"}, currency="EUR")["eel_pfc"] == "NOEEI 30.37(a)"

    def test_exports_from_elsewhere_bear_none(self) -> None:
        assert declared("tokyo", "boston", {"eel_pfc": "NOEEI 30.37(a)", "itn": ITN}, currency="JPY")["eel_pfc"] == ""
        assert declared("guam", "tokyo", currency="USD", item={"unit_price": 900_000})["eel_pfc"] == ""

    @pytest.mark.parametrize("field", [{"itn": "20261130123456"}, {"eel_pfc": "none"}])
    def test_malformed_proofs_are_refused(self, field: dict[str, str]) -> None:
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(field, CustomsTerms)


class TestNumbers:
    """I10, F17."""

    @pytest.mark.parametrize(
        ("start", "end", "changes", "kinds"),
        [
            ("berlin", "zurich", {}, ["EORI"]),
            ("berlin", "london", {"currency": "GBP"}, ["EORI", "EORI", "VAT"]),
            ("berlin", "oslo", {"currency": "NOK"}, ["EORI", "VOEC"]),
            # merverdiavgiftsforskriften § 14-4-1: articles of less than 3000 NOK.
            ("berlin", "oslo", {"currency": "NOK", "item": {"unit_price": 300_001}}, ["EORI"]),
            ("zurich", "berlin", {}, ["EORI", "IOSS"]),
            # Directive 2006/112/EC, Article 369l: consignments of 150 EUR at most, to others than those registered for VAT.
            ("zurich", "berlin", {"item": {"unit_price": 7_500}}, ["EORI", "IOSS"]),
            ("zurich", "berlin", {"item": {"unit_price": 7_501}}, ["EORI"]),
            # A number that cannot be one, or of a country outside the EU, makes a consumer, whose tax was collected at the sale.
            ("zurich", "berlin", {"vat_id": "hello"}, ["EORI", "IOSS"]),
            ("zurich", "berlin", {"vat_id": "GB980780684"}, ["EORI", "IOSS", "VAT"]),
            ("zurich", "berlin", {"vat_id": "DE136695976"}, ["EORI", "VAT"]),
            ("canaries", "madrid", {}, ["EORI", "IOSS"]),
            ("madrid", "canaries", {}, ["EORI"]),
            # GST Act 1999, section 84-79: 1000 AUD.
            ("tokyo", "sydney", {"currency": "AUD"}, ["ARN"]),
            ("tokyo", "sydney", {"currency": "AUD", "item": {"unit_price": 60_000}}, []),
            ("boston", "tokyo", {"currency": "USD"}, ["EIN"]),
        ],
    )
    def test_numbers_go_where_they_say_something(self, start: str, end: str, changes: dict[str, Any], kinds: list[str]) -> None:
        found = declared(start, end, {"numbers": NUMBERS}, **changes)

        assert sorted(each["kind"] for each in found["numbers"]) == sorted(kinds)

    @pytest.mark.parametrize(
        ("nexus", "start", "end", "changes", "found"),
        [
            ({"ioss": True, "registration_number": "IM 276 0000742"}, "zurich", "berlin", {}, [("IOSS", "IM2760000742", "DE")]),
            ({"country": "NO", "registration_number": "2000001"}, "berlin", "oslo", {}, [("VOEC", "2000001", "NO")]),
            ({"country": "GB", "registration_number": "GB 123 4567 89"}, "berlin", "london", {}, [("VAT", "GB123456789", "GB")]),
            ({"country": "AU", "registration_number": "300012345678"}, "berlin", "sydney", {}, [("ARN", "300012345678", "AU")]),
            # What is no number of a label, or of another day.
            ({"oss": True, "registration_number": "DE136695976"}, "zurich", "berlin", {}, []),
            ({"country": "US", "region": "US-CA", "registration_number": "123456789"}, "berlin", "boston", {}, []),
            ({"country": "NO", "registration_number": "2000001", "valid_to": "2026-11-29"}, "berlin", "oslo", {}, []),
            ({"country": "NO", "registration_number": "2000001", "valid_from": "2026-12-01"}, "berlin", "oslo", {}, []),
            # The first and the last day count.
            (
                {"country": "NO", "registration_number": "2000001", "valid_from": "2026-11-30", "valid_to": "2026-11-30"},
                *("berlin", "oslo", {}, [("VOEC", "2000001", "NO")]),
            ),
            # The limit as the store states it in another currency.
            (
                {"ioss": True, "registration_number": "IM2760000742", "import_limits": {"CHF": 14_000}},
                *("zurich", "berlin", {"currency": "CHF", "item": {"unit_price": 7_001}}, []),
            ),
        ],
    )
    def test_registrations_give_theirs(self, nexus: Any, start: str, end: str, changes: Any, found: list[Any]) -> None:
        body = msgspec.convert({"valid_from": "2021-07-01", **nexus}, NexusBody)
        numbers = declared(start, end, registered=registered_in([body], day=date(2026, 11, 30)), **changes)["numbers"]

        assert [(each["kind"], each["number"], each["country"]) for each in numbers] == found

    def test_ioss_without_its_number_is_refused(self) -> None:
        """Directive 2006/112/EC, Article 143(1)(ca): the import is free of VAT where the number is given with it."""
        body = msgspec.convert({"valid_from": "2021-07-01", "ioss": True}, NexusBody)
        registered = registered_in([body], day=date(2026, 11, 30))
        with pytest.raises(CustomsIncomplete) as refused:
            terms("zurich", "berlin", registered=registered)

        assert field_of(refused.value) == "$.customs.numbers"
        assert declared("zurich", "berlin", {"numbers": [IOSS]}, registered=registered)["numbers"]
        assert not declared("zurich", "berlin", registered=registered, item={"unit_price": 7_501})["numbers"]

    @pytest.mark.parametrize(
        ("start", "currency", "price", "numbers", "fits"),
        [
            # Delegated Regulation (EU) 2015/2446, Article 141(4) and (4a): 1000 EUR; HMRC Notice 143 (2020-12-22): 900 GBP.
            ("berlin", "EUR", 50_000, [], True),
            ("berlin", "EUR", 50_001, [], False),
            ("berlin", "EUR", 50_001, [GB_EORI], False),
            ("berlin", "EUR", 50_001, [EORI], True),
            ("canaries", "EUR", 50_001, [EORI], True),
            ("london", "GBP", 45_001, [], False),
            ("london", "GBP", 45_001, [GB_EORI], True),
        ],
    )
    def test_commercial_export_needs_the_eori(self, start: str, currency: str, price: int, numbers: list[Any], fits: bool) -> None:
        def tried() -> Terms:
            return terms(start, "zurich", {"numbers": numbers}, currency=currency, item={"unit_price": price})

        if fits:
            assert tried().declaration is not None
        else:
            with pytest.raises(CustomsIncomplete) as refused:
                tried()
            assert field_of(refused.value) == "$.customs.numbers"

    @pytest.mark.parametrize(
        "number",
        [
            {"kind": "IOSS", "number": "DE136695976", "country": "DE"},
            {"kind": "EORI", "number": "1234", "country": "DE"},
            {**EORI, "country": "FR"},
            {"kind": "VOEC", "number": "NO2000001", "country": "NO"},
            {"kind": "EIN", "number": "1", "country": "US"},
        ],
    )
    def test_what_is_no_such_number_is_refused(self, number: dict[str, str]) -> None:
        with pytest.raises(msgspec.ValidationError, match=r"\$\.numbers\[0\]"):
            msgspec.convert({"numbers": [number]}, CustomsTerms)


class TestDuties:
    """I12: DDP only where an account pays."""

    def test_ddp_without_an_account_is_refused(self) -> None:
        with pytest.raises(CustomsIncomplete) as refused:
            terms("berlin", "zurich", {"incoterm": "DDP"})
        assert field_of(refused.value) == "$.customs.duties_account"

    def test_account_alone_leaves_them_to_the_recipient(self) -> None:
        """docs.easypost.com/docs/shipments/options: anything but "DDP" passes duties on to the recipient."""
        options = sent(easypost, "berlin", "zurich", terms("berlin", "zurich", None, None, {"duties_account": DUTIES}))["options"]

        assert (options["incoterm"], "duty_payment" in options) == ("DAP", False)

    def test_other_contents_need_an_explanation(self) -> None:
        """docs.easypost.com/docs/customs-infos, contents_explanation; shippo 3.9.0, CustomsDeclarationCreateRequest."""
        with pytest.raises(CustomsIncomplete) as refused:
            terms("berlin", "zurich", {"contents": "other"})
        assert field_of(refused.value) == "$.customs.contents_explanation"
        assert declared("berlin", "zurich", {"contents": "other", "contents_explanation": "trophy"})["contents"] == "other"


ALL: dict[str, Any] = {
    "signer": "Ada Lovelace",
    "contents": "sample",
    "contents_explanation": "samples for a fair",
    "non_delivery": "abandon",
    "incoterm": "DDP",
    "duties_account": DUTIES,
}


class TestEasyPost:
    """docs.easypost.com: docs/customs-infos, docs/shipments/tax-identifiers, docs/shipments/options; easypost-go, shipment_options.go."""

    def test_everything_that_was_said_is_sent(self) -> None:
        given = terms("boston", "london", {**ALL, "itn": ITN, "numbers": [EIN, GB_EORI]}, currency="USD")
        shipment = sent(easypost, "boston", "london", msgspec.structs.replace(given, delivery_confirmation=DeliveryConfirmation.SIGNATURE))

        assert shipment["customs_info"] == {
            "contents_type": "sample",
            "contents_explanation": "samples for a fair",
            "customs_certify": True,
            "customs_signer": "Ada Lovelace",
            "non_delivery_option": "abandon",
            "restriction_type": "none",
            # easypost.com/customs-guide: "AES" and the ITN.
            "eel_pfc": f"AES {ITN}",
            "customs_items": [
                {
                    "description": "Stoneware mug",
                    "quantity": 2,
                    "weight": 28.21,
                    "value": "29.80",
                    "currency": "USD",
                    "hs_tariff_number": "691200",
                    "origin_country": "DE",
                }
            ],
        }
        assert shipment["tax_identifiers"] == [
            {"entity": "SENDER", "tax_id": "12-3456789", "tax_id_type": "EIN", "issuing_country": "US"},
            {"entity": "SENDER", "tax_id": "GB205672212000", "tax_id_type": "EORI", "issuing_country": "GB"},
        ]
        duties = {"type": "SENDER", "account": "123456789", "country": "US", "postal_code": "94107"}
        said = {"incoterm": "DDP", "duty_payment": duties, "delivery_confirmation": "SIGNATURE"}
        assert said.items() <= shipment["options"].items()

    @pytest.mark.parametrize(("goods", "hazmat"), [("lithium_batteries", "LITHIUM"), ("limited_quantity", "LIMITED_QUANTITY")])
    def test_dangerous_goods_and_signatures_at_home_too(self, goods: str, hazmat: str) -> None:
        given = terms("boston", "boston", item={"dangerous_goods": goods}, delivery_confirmation="adult_signature")
        options = sent(easypost, "boston", "boston", given)["options"]

        assert (options["hazmat"], options["delivery_confirmation"]) == (hazmat, "ADULT_SIGNATURE")
        assert "incoterm" not in options

    def test_plain_parcel_says_nothing_of_it(self) -> None:
        assert sent(easypost, "boston", "boston", terms("boston", "boston"))["options"].keys() == {"label_format", "currency"}

    def test_two_kinds_of_dangerous_goods_are_refused(self) -> None:
        items = [{**MUG, "dangerous_goods": kind} for kind in ("lithium_batteries", "limited_quantity")]
        with pytest.raises(CarrierRefused):
            sent(easypost, "boston", "boston", terms("boston", "boston", items=items))


class TestShippo:
    """shippo-python-sdk 3.9.0, src/shippo/models/components: CustomsDeclarationCreateRequest, ShipmentExtra."""

    def test_everything_that_was_said_is_sent(self) -> None:
        given = terms("boston", "london", {**ALL, "itn": ITN, "numbers": [EIN, GB_EORI]}, currency="USD")
        body = sent(shippo, "boston", "london", given)

        assert body["customs_declaration"] == {
            "contents_type": "SAMPLE",
            "contents_explanation": "samples for a fair",
            "non_delivery_option": "ABANDON",
            "certify": True,
            "certify_signer": "Ada Lovelace",
            "incoterm": "DDP",
            "duties_payor": {
                "type": "SENDER",
                "account": "123456789",
                "address": {"name": "Ada Lovelace", "zip": "94107", "country": "US"},
            },
            "eel_pfc": "AES_ITN",
            "aes_itn": ITN,
            "exporter_identification": {"eori_number": "GB205672212000", "tax_id": {"number": "12-3456789", "type": "EIN"}},
            "items": [
                {
                    "description": "Stoneware mug",
                    "quantity": 2,
                    "net_weight": "800",
                    "mass_unit": "g",
                    "value_amount": "29.80",
                    "value_currency": "USD",
                    "origin_country": "DE",
                    "hs_code": "691200",
                }
            ],
        }

    def test_dap_is_ddu_to_it(self) -> None:
        """ "If expecting DAP for other carriers, please use DDU" (CustomsDeclarationIncotermEnum)."""
        assert sent(shippo, "berlin", "zurich", terms("berlin", "zurich"))["customs_declaration"]["incoterm"] == "DDU"

    def test_ioss_number_says_that_vat_is_paid(self) -> None:
        body = sent(shippo, "zurich", "berlin", terms("zurich", "berlin", {"numbers": NUMBERS}))["customs_declaration"]

        assert body["exporter_identification"] == {
            "eori_number": "DE1234567890123",
            "tax_id": {"number": "IM2760000742", "type": "IOSS"},
        }
        assert body["is_vat_collected"] is True

    @pytest.mark.parametrize(("start", "end", "eori"), [("berlin", "london", EORI), ("london", "berlin", GB_EORI)])
    def test_eori_number_is_the_exporters(self, start: str, end: str, eori: Any) -> None:
        """CustomsExporterIdentification.eori_number: one alone."""
        declaration = sent(shippo, start, end, terms(start, end, {"numbers": [GB_EORI, EORI]}))["customs_declaration"]

        assert declaration["exporter_identification"]["eori_number"] == eori["number"]

    @pytest.mark.parametrize(
        ("start", "end", "said", "changes"),
        [
            ("berlin", "oslo", {"numbers": [VOEC]}, {}),
            ("boston", "apo", {"eel_pfc": "NOEEI 30.39"}, {"currency": "USD"}),
        ],
        ids=["voec", "legend"],
    )
    def test_what_it_has_no_field_for_is_refused(self, start: str, end: str, said: Any, changes: Any) -> None:
        with pytest.raises(CarrierRefused):
            sent(shippo, start, end, terms(start, end, said, **changes))

    def test_dangerous_goods_and_signatures(self) -> None:
        given = terms("boston", "boston", item={"dangerous_goods": "lithium_batteries"}, delivery_confirmation="adult_signature")

        assert sent(shippo, "boston", "boston", given)["extra"] == {
            "signature_confirmation": "ADULT",
            "dangerous_goods": {"contains": True, "lithium_batteries": {"contains": True}},
        }
