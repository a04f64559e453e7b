"""What EasyPost is sent of customs and of how a parcel is handed over, when a shipment is made.

docs.easypost.com: docs/customs-infos, docs/customs-items, docs/shipments/tax-identifiers, docs/shipments/options. It has no incoterm of its
own where none is given (easypost-python, tests/cassettes/test_shipment_create_empty_objects.yaml), so that each carrier takes its own.
"""

from decimal import ROUND_DOWN, Decimal
from typing import Any

from services.fulfillment.domain.shipping.customs import Declaration, DeclaredGoods, DeclaredNumber, Terms
from services.fulfillment.providers import CarrierRefused
from shared.contracts.customs import NUMBERS_MAX, DangerousGoods, DeliveryConfirmation, DutiesAccount
from shared.money import Money, decimal_text

GRAMS_PER_OUNCE = Decimal("28.349523125")
HUNDREDTH = Decimal("0.01")
CONFIRMATIONS = {DeliveryConfirmation.SIGNATURE: "SIGNATURE", DeliveryConfirmation.ADULT_SIGNATURE: "ADULT_SIGNATURE"}
HAZMAT = {DangerousGoods.LITHIUM_BATTERIES: "LITHIUM", DangerousGoods.LIMITED_QUANTITY: "LIMITED_QUANTITY"}


def shipment_terms(terms: Terms) -> dict[str, Any]:
    """Write what goes into a shipment with its addresses and its parcel; refuses what EasyPost has no words for."""
    options: dict[str, Any] = {}
    said: dict[str, Any] = {"options": options}
    if terms.delivery_confirmation is not None:
        options["delivery_confirmation"] = CONFIRMATIONS[terms.delivery_confirmation]
    if len(terms.dangerous_goods) > 1:
        raise CarrierRefused("one_hazmat", "EasyPost takes one kind of dangerous goods a shipment")
    for each in terms.dangerous_goods:
        options["hazmat"] = HAZMAT[each]
    if (declaration := terms.declaration) is not None:
        said["customs_info"] = _customs_info(declaration)
        options["incoterm"] = declaration.incoterm.value
        if declaration.duties_account is not None:
            options["duty_payment"] = _payment(declaration.duties_account)
        if len(declaration.numbers) > NUMBERS_MAX:
            raise CarrierRefused("too_many_numbers", f"EasyPost takes {NUMBERS_MAX} tax identifiers a shipment")
        if declaration.numbers:
            said["tax_identifiers"] = [_tax_identifier(each) for each in declaration.numbers]
    return said


def _customs_info(declaration: Declaration) -> dict[str, Any]:
    filing = f"AES {declaration.itn}" if declaration.itn else declaration.eel_pfc
    return {
        "contents_type": declaration.contents.value,
        "contents_explanation": declaration.contents_explanation,
        "customs_certify": True,
        "customs_signer": declaration.signer,
        "non_delivery_option": declaration.non_delivery.value,
        "restriction_type": "none",
        "customs_items": [_item(each, declaration.currency) for each in declaration.goods],
        **({"eel_pfc": filing} if filing else {}),
    }


def _item(goods: DeclaredGoods, currency: str) -> dict[str, Any]:
    # Rounded down, so that all of them weigh no more than the parcel, which is rounded up; a gram is three hundredths.
    ounces = (Decimal(goods.weight_grams) / GRAMS_PER_OUNCE).quantize(HUNDREDTH, rounding=ROUND_DOWN)
    return {
        "description": goods.description,
        "quantity": goods.quantity,
        "weight": float(ounces),
        "value": decimal_text(Money(goods.value, currency)),
        "currency": currency,
        "hs_tariff_number": goods.hs_code,
        "origin_country": goods.origin_country,
    }


def _tax_identifier(number: DeclaredNumber) -> dict[str, str]:
    return {
        "entity": "SENDER" if number.of_sender else "RECEIVER",
        "tax_id": number.number,
        "tax_id_type": number.kind.value,
        "issuing_country": number.country,
    }


def _payment(account: DutiesAccount) -> dict[str, str]:
    payment = {"type": account.payer.value, "account": account.account, "country": account.country}
    return {**payment, **({"postal_code": account.postal_code} if account.postal_code else {})}
