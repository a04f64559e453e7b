"""What a provider cannot do is refused before anything is written."""

import msgspec
import pytest

from services.payments.providers.sandbox import SandboxPayments
from tests.world import World


@pytest.mark.parametrize(
    ("lacking", "operation", "body"),
    [
        ({"partial_capture": False}, "capture", {"amount": 1}),
        ({"final_capture": False}, "capture", {"final": True}),
        ({"partial_refund": False}, "refund", {"amount": 1}),
    ],
)
async def test_an_operation_beyond_the_provider_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch, lacking: dict[str, bool], operation: str, body: dict[str, object]
) -> None:
    payment = await (world.a_captured_payment() if operation == "refund" else world.a_payment())
    before = len(await payment.transactions())
    monkeypatch.setattr(SandboxPayments, "capabilities", msgspec.structs.replace(SandboxPayments.capabilities, **lacking))

    answer = await payment._do(operation, body)

    assert (answer.status, answer.code) == (422, "unsupported-by-provider")
    assert len(await payment.transactions()) == before


async def test_a_second_capture_beyond_the_provider_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    payment = await world.a_payment()
    await payment.capture(1_000)
    able = msgspec.structs.replace(SandboxPayments.capabilities, multiple_captures=False, void_after_capture=False)
    monkeypatch.setattr(SandboxPayments, "capabilities", able)

    captured, voided = await payment.capture(1_000), await payment.void()

    assert (captured.code, voided.code) == ("unsupported-by-provider", "unsupported-by-provider")


async def test_a_currency_the_provider_does_not_take_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SandboxPayments, "capabilities", msgspec.structs.replace(SandboxPayments.capabilities, currencies=("USD",)))
    order_id = await world.an_order()

    answer = await world.authorize(order_id, await world.a_snapshot(order_id))

    assert (answer.status, answer.code) == (422, "unsupported-by-provider")
    assert (await world.ledger(order_id))["payments"] == []
