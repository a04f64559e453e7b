"""What our adapter sends is what Stripe's own descriptions allow, to the letter."""

from typing import Any
from urllib.parse import parse_qsl

import jsonschema
import pytest
from stripe import params

from deploy.sandbox.faces.stripe import nested
from services.payments.domain.guards import UnsupportedByProvider
from services.payments.providers import AuthorizeRequest, CaptureRequest, ConfirmRequest, Prepared, RefundRequest, Request, VoidRequest
from services.payments.providers.stripe.amounts import from_stripe, to_stripe
from services.payments.providers.stripe.requests import fields_of_form, form, prepare
from shared.ids import new_id

TEXT = {"type": "string", "maxLength": 5000}
TEXTS = {"type": "object", "additionalProperties": TEXT}
NUMBER = {"type": "string", "pattern": "^[0-9]+$"}
TRUTH = {"enum": ["true", "false"]}
# Keys of metadata have at most 40 characters, values 500 (docs.stripe.com/api/metadata).
METADATA = {
    "type": "object",
    "propertyNames": {"maxLength": 40},
    "additionalProperties": {"type": "string", "maxLength": 500},
    "maxProperties": 50,
}

# The parameters we use, of stripe/openapi at 63a67463 (version 2023-08-16, MIT), where no object takes any other; `final_capture` and
# `request_multicapture` are younger and come from stripe-python 16.1.0 (version 2026-10-28.endive, MIT).
SPECIFIED: dict[str, dict[str, Any]] = {
    "/v1/payment_intents": {
        "required": ["amount", "currency"],
        "properties": {
            "amount": NUMBER,
            "currency": TEXT,
            "payment_method": TEXT,
            "payment_method_types": TEXTS,
            "payment_method_options": {
                "type": "object",
                "properties": {
                    "card": {
                        "type": "object",
                        "properties": {"request_multicapture": {"enum": ["if_available", "never"]}},
                        "additionalProperties": False,
                    }
                },
                "additionalProperties": False,
            },
            "capture_method": {"enum": ["automatic", "automatic_async", "manual"]},
            "confirm": TRUTH,
            "return_url": {"type": "string"},
            "error_on_requires_action": TRUTH,
            "metadata": METADATA,
            "expand": TEXTS,
        },
    },
    "/v1/payment_intents/pi_1/capture": {
        "properties": {"amount_to_capture": NUMBER, "final_capture": TRUTH, "metadata": METADATA, "expand": TEXTS}
    },
    "/v1/payment_intents/pi_1/cancel": {
        "properties": {
            "cancellation_reason": {"enum": ["abandoned", "duplicate", "fraudulent", "requested_by_customer"]},
            "expand": TEXTS,
        }
    },
    "/v1/refunds": {
        "properties": {
            "amount": NUMBER,
            "payment_intent": TEXT,
            "reason": {"enum": ["duplicate", "fraudulent", "requested_by_customer"]},
            "metadata": METADATA,
            "expand": TEXTS,
        }
    },
}
# `allowed_payment_method_types` since 2026-10-28.endive; in the version we pin it has its old name.
RENAMED = {"payment_method_types"}
TYPED: dict[str, type] = {
    "/v1/payment_intents": params.PaymentIntentCreateParams,
    "/v1/payment_intents/pi_1/capture": params.PaymentIntentCaptureParams,
    "/v1/payment_intents/pi_1/cancel": params.PaymentIntentCancelParams,
    "/v1/refunds": params.RefundCreateParams,
}


def an_authorization(**changes: Any) -> AuthorizeRequest:
    facts = {
        "reference": new_id(),
        "order_id": new_id(),
        "amount": 10_000,
        "currency": "EUR",
        "payment_method": "pm_card_visa",
        "return_url": "https://shop.example/back?order=1&x=ü",
    }
    return AuthorizeRequest(**{**facts, **changes})


def a_refund(reason: str) -> RefundRequest:
    return RefundRequest(reference=new_id(), provider_payment_id="pi_1", amount=1, currency="EUR", reason=reason)


REQUESTS: list[Request] = [
    an_authorization(),
    an_authorization(return_url=None),
    *(CaptureRequest(reference=new_id(), provider_payment_id="pi_1", amount=5, currency="EUR", final=final) for final in (True, False)),
    VoidRequest(reference=new_id(), provider_payment_id="pi_1"),
    *(a_refund(reason) for reason in ("", "fraudulent", "it came in pieces " * 100)),
]


def sent(prepared: Prepared) -> dict[str, Any]:
    return nested(parse_qsl(prepared.body.decode(), strict_parsing=True))


@pytest.mark.parametrize("multicapture", [True, False])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
class TestWhatIsSent:
    def test_fits_the_description(self, request_: Request, multicapture: bool) -> None:
        prepared = prepare(request_, multicapture=multicapture)

        schema = {"type": "object", "additionalProperties": False, **SPECIFIED[prepared.path]}
        jsonschema.Draft202012Validator(schema).validate(sent(prepared))

    def test_is_known_to_stripes_own_library(self, request_: Request, multicapture: bool) -> None:
        prepared = prepare(request_, multicapture=multicapture)

        assert sent(prepared).keys() - RENAMED <= TYPED[prepared.path].__annotations__.keys()


class TestMeaning:
    def test_an_authorization_holds_and_does_not_capture(self) -> None:
        request = an_authorization()

        body = sent(prepare(request, multicapture=True))

        assert (body["amount"], body["currency"], body["capture_method"], body["confirm"]) == ("10000", "eur", "manual", "true")
        assert body["return_url"] == request.return_url
        assert body["metadata"] == {"tender_reference": str(request.reference), "tender_order": str(request.order_id)}

    def test_without_an_address_to_come_back_to_a_check_by_the_bank_is_a_decline(self) -> None:
        body = sent(prepare(an_authorization(return_url=None), multicapture=True))

        assert body["error_on_requires_action"] == "true"
        assert "return_url" not in body

    @pytest.mark.parametrize(
        ("multicapture", "final", "flag", "note"),
        [(True, False, "false", "5"), (True, True, "true", "5 final"), (False, False, None, "5 final"), (False, True, None, "5 final")],
    )
    def test_a_capture_notes_itself_in_the_payment(self, multicapture: bool, final: bool, flag: str | None, note: str) -> None:
        request = CaptureRequest(reference=new_id(), provider_payment_id="pi_1", amount=5, currency="EUR", final=final)

        body = sent(prepare(request, multicapture=multicapture))

        assert body.get("final_capture") == flag
        assert body["metadata"] == {f"cap_{request.reference.hex}": note}

    def test_confirming_only_looks(self) -> None:
        prepared = prepare(ConfirmRequest(provider_payment_id="pi_1/../x"), multicapture=True)

        assert (prepared.method, prepared.body) == ("GET", b"")
        assert prepared.path == "/v1/payment_intents/pi_1%2F..%2Fx?expand%5B0%5D=latest_charge.refunds"

    def test_forms_are_read_back_for_the_audit(self) -> None:
        raw = form({"a": 1, "yes": True, "metadata": {"k": "v w"}, "expand": ["x", "y"]})

        assert raw == b"a=1&yes=true&metadata%5Bk%5D=v+w&expand%5B0%5D=x&expand%5B1%5D=y"
        assert fields_of_form(raw) == {"a": "1", "yes": "true", "metadata": {"k": "v w"}, "expand": {"0": "x", "1": "y"}}


class TestAmounts:
    """docs.stripe.com/currencies: zero-decimal, three-decimal and special cases."""

    @pytest.mark.parametrize(
        ("amount", "currency", "theirs"),
        [
            *((1_099, currency, 1_099) for currency in ("EUR", "USD", "HUF", "TWD")),
            *((500, currency, 500) for currency in ("JPY", "KRW", "CLP", "VND", "XAF")),
            *((5, currency, 500) for currency in ("ISK", "UGX")),
            (500, "MGA", 5),
            *((5_120, currency, 5_120) for currency in ("KWD", "BHD", "TND", "JOD", "OMR")),
        ],
    )
    def test_are_counted_as_stripe_counts(self, amount: int, currency: str, theirs: int) -> None:
        assert to_stripe(amount, currency) == theirs
        assert from_stripe(theirs, currency) == amount

    @pytest.mark.parametrize(("amount", "currency"), [(5_124, "KWD"), (501, "MGA")])
    def test_what_cannot_be_expressed_is_refused_and_not_rounded(self, amount: int, currency: str) -> None:
        with pytest.raises(UnsupportedByProvider):
            prepare(an_authorization(amount=amount, currency=currency), multicapture=True)

    def test_a_part_of_a_unit_is_not_read_as_none(self) -> None:
        with pytest.raises(ValueError, match="whole number"):
            from_stripe(550, "ISK")
