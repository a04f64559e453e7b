"""What each status of Stripe's means (docs.stripe.com/api/errors, docs.stripe.com/error-codes), by the simulation and the adapter alike.

tests/payments/test_intermediaries.py tries every status with bodies that are not Stripe's.
"""

import pytest

from services.payments.domain.intents import TransactionStatus
from shared.provider_answers import IndeterminateResponse
from tests.provider_facts.stripe.conftest import Stripe
from tests.world import SANDBOX_KEY

CREATE = "/v1/payment_intents"
HOLD = {"amount": "1000", "currency": "eur", "confirm": "true", "capture_method": "manual"}
# What is asked, with which key, and what Stripe answers: status, type, code. "Missing a required parameter": 400; "No valid API key
# provided": 401; "The parameters were valid but the request failed": 402; "The requested resource doesn't exist": 404.
ANSWERS = [
    (CREATE, {**HOLD, "payment_method": "pm_card_visa"}, SANDBOX_KEY, (200, None, None)),
    (CREATE, {"currency": "eur"}, SANDBOX_KEY, (400, "invalid_request_error", "parameter_missing")),
    (CREATE, {**HOLD, "colour": "red"}, SANDBOX_KEY, (400, "invalid_request_error", "parameter_unknown")),
    (CREATE, HOLD, "sk_test_other", (401, "invalid_request_error", "invalid_api_key")),
    (CREATE, {**HOLD, "payment_method": "pm_card_visa_chargeDeclined"}, SANDBOX_KEY, (402, "card_error", "card_declined")),
    ("/v1/payment_intents/pi_none/capture", {}, SANDBOX_KEY, (404, "invalid_request_error", "resource_missing")),
    ("/v1/refunds", {"payment_intent": "pi_none"}, SANDBOX_KEY, (400, "invalid_request_error", "resource_missing")),
    (CREATE, {**HOLD, "payment_method": "tok_500_once"}, SANDBOX_KEY, (500, "api_error", None)),
]


@pytest.mark.parametrize(("path", "form", "key", "expected"), ANSWERS)
async def test_the_simulation_answers(
    stripe: Stripe, path: str, form: dict[str, str], key: str, expected: tuple[int, str | None, str | None]
) -> None:
    answer = await stripe.http.post(path, data=form, headers={"Authorization": f"Bearer {key}"})

    error = answer.json().get("error", {})
    assert (answer.status_code, error.get("type"), error.get("code")) == expected
    assert answer.headers["Request-Id"].startswith("req_") or answer.status_code == 401


@pytest.mark.parametrize(
    ("method", "status"),
    [
        ("pm_card_visa", TransactionStatus.SUCCEEDED),
        ("pm_card_visa_chargeDeclined", TransactionStatus.DECLINED),
        ("pm_nobody", TransactionStatus.FAILED),
    ],
)
async def test_the_adapter_reads_an_outcome(stripe: Stripe, method: str, status: TransactionStatus) -> None:
    await stripe.hold()

    seen = await stripe.authorize(method)

    assert seen[0].status is status


@pytest.mark.parametrize("method", ["tok_500_once", "tok_429_once"])
async def test_the_adapter_reads_no_outcome(stripe: Stripe, method: str) -> None:
    """429 and 5xx: "Something went wrong on Stripe's end"; of whether it was executed they say nothing."""
    with pytest.raises(IndeterminateResponse):
        await stripe.authorize(method)
