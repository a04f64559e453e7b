"""What our adapter sends is what Stripe's own descriptions allow, to the letter."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from stripe import params

from deploy.sandbox.faces.stripe import nested
from services.payments.domain.guards import UnsupportedByProvider
from services.payments.providers import (
    AuthorizeRequest,
    Captured,
    CaptureRequest,
    ConfirmRequest,
    Prepared,
    RefundRequest,
    Request,
    VoidRequest,
)
from services.payments.providers.stripe.amounts import from_stripe, to_stripe
from services.payments.providers.stripe.requests import fields_of_form, form, prepare
from shared.ids import new_id
from tests.provider_facts.stripe.sdk_types import unfit_form

# The library's types are the judge (stripe-python 16.1.0, version 2026-10-28.endive, MIT).
TYPED: dict[str, type] = {
    "/v1/payment_intents": params.PaymentIntentCreateParams,
    "/v1/payment_intents/pi_1/capture": params.PaymentIntentCaptureParams,
    "/v1/payment_intents/pi_1/cancel": params.PaymentIntentCancelParams,
    "/v1/refunds": params.RefundCreateParams,
}
# docs.stripe.com/metadata
METADATA_KEYS_MAX, METADATA_KEY_MAX_CHARACTERS, METADATA_VALUE_MAX_CHARACTERS = 50, 40, 500


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


def a_capture_after(earlier: int) -> CaptureRequest:
    before = tuple(Captured(reference=new_id(), amount=10**11) for _ in range(earlier))
    return CaptureRequest(reference=new_id(), provider_payment_id="pi_1", amount=5, currency="IDR", final=True, earlier=before)


REQUESTS: list[Request] = [
    an_authorization(),
    an_authorization(return_url=None),
    *(CaptureRequest(reference=new_id(), provider_payment_id="pi_1", amount=5, currency="EUR", final=final) for final in (True, False)),
    VoidRequest(reference=new_id(), provider_payment_id="pi_1"),
    *(a_capture_after(earlier) for earlier in (9, 10, 49)),
    *(a_refund(reason) for reason in ("", "fraudulent", "it came in pieces " * 100)),
]


def sent(prepared: Prepared) -> dict[str, Any]:
    return nested(parse_qsl(prepared.body.decode(), strict_parsing=True))


@pytest.mark.parametrize("multicapture", [True, False])
@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
class TestWhatIsSent:
    def test_is_what_stripes_own_library_sends(self, request_: Request, multicapture: bool) -> None:
        prepared = prepare(request_, multicapture=multicapture)

        assert unfit_form(sent(prepared), TYPED[prepared.path]) == []

    def test_metadata_is_within_its_limits(self, request_: Request, multicapture: bool) -> None:
        metadata = sent(prepare(request_, multicapture=multicapture)).get("metadata", {})

        assert len(metadata) <= METADATA_KEYS_MAX
        assert all(len(key) <= METADATA_KEY_MAX_CHARACTERS and not set(key) & set("[]") for key in metadata)
        assert all(len(value) <= METADATA_VALUE_MAX_CHARACTERS for value in metadata.values())


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
