"""Stripe's disputes: what each took and gave back, whatever its status has been and however it is read."""

from typing import Any

import msgspec
import pytest

from services.payments.domain.intents import Operation
from services.payments.providers.stripe import objects
from tests.payments.stripe.test_client import AMOUNT, DISPUTE, INTENT, MOVES_NOTHING

DAY = 86_400
INTENT_CAPTURED = msgspec.convert({**INTENT, "status": "succeeded", "amount_received": AMOUNT}, objects.PaymentIntent)


def moved(*amounts: int, currency: str = "eur") -> list[dict[str, Any]]:
    """Balance transactions of a dispute, a day apart."""
    return [{"id": f"txn_{n}", "amount": a, "currency": currency, "created": DAY * n} for n, a in enumerate(amounts)]


# Disputes of 900 as they may be read, and what they took and gave back. Statuses and balance transactions: stripe.Dispute of the Python
# library 16.1 (docs.stripe.com/api/disputes/object, "zero, one, or two balance transactions"). Partly won is "lost" and returns a part:
# support.stripe.com/questions/dispute-for-full-charge-amount-after-a-partial-refund-was-issued.
DISPUTES: dict[str, tuple[dict[str, Any], list[int], list[int]]] = {
    **{f"C19 {status}": ({"status": status, "balance_transactions": []}, [], []) for status in MOVES_NOTHING},
    "not withdrawn yet": ({"status": "needs_response", "balance_transactions": []}, [], []),
    "disputed": ({"status": "needs_response", "balance_transactions": moved(-900)}, [900], []),
    "appealed": ({"status": "appeal_under_review", "balance_transactions": moved(-900)}, [900], []),
    "lost": ({"status": "lost", "balance_transactions": moved(-900)}, [900], []),
    "won": ({"status": "won", "balance_transactions": moved(-900, 900)}, [900], [900]),
    "won, not given back yet": ({"status": "won", "balance_transactions": moved(-900)}, [900], [900]),
    "C17 lost and won after all": ({"status": "won", "balance_transactions": moved(-900, 900)}, [900], [900]),
    "F14 won, then lost": ({"status": "lost", "balance_transactions": moved(-900, 900, -900)}, [900, 900], [900]),
    "F14 won, then lost, of which two are listed": ({"status": "lost", "balance_transactions": moved(-900, 900)}, [900, 900], [900]),
    "F14 lost twice, won twice": ({"status": "won", "balance_transactions": moved(-900, 900, -900, 900)}, [900, 900], [900, 900]),
    "F14 prevented after all": ({"status": "prevented", "balance_transactions": moved(-900, 900)}, [900], [900]),
    "prevented by giving the money": ({"status": "prevented", "balance_transactions": moved(-900)}, [900], []),
    "partly lost": ({"status": "lost", "balance_transactions": moved(-900, 300)}, [900], [300]),
    "C14 for more": ({"status": "lost", "balance_transactions": moved(-1_050)}, [1_050], []),
    "lost without a withdrawal": ({"status": "lost", "balance_transactions": []}, [], []),
    "in another currency": ({"status": "lost", "balance_transactions": moved(-1_800, 600, currency="usd")}, [900], [300]),
    "won at another rate": ({"status": "won", "balance_transactions": moved(-1_800, 1_950, currency="usd")}, [900], [900]),
    "with its fee": (
        {"status": "lost", "balance_transactions": [*moved(-900), {"id": "txn_9", "amount": -15, "currency": "eur", "created": DAY * 9,
                                                                   "reporting_category": "fee"}]}, [900], []),
    "read without them": ({"status": "lost", "balance_transactions": None}, [900], []),
    "won, read without them": ({"status": "won", "balance_transactions": None}, [900], [900]),
}  # fmt: skip


@pytest.mark.parametrize(("facts", "taken", "back"), DISPUTES.values(), ids=DISPUTES)
def test_a_dispute_is_what_it_moved(facts: dict[str, Any], taken: list[int], back: list[int]) -> None:
    dispute = msgspec.convert({**DISPUTE, **facts}, objects.Dispute)

    found = objects.transaction(INTENT_CAPTURED, disputes=[dispute]).observations

    seen = {kind: [o for o in found if o.operation is kind] for kind in (Operation.CHARGEBACK, Operation.CHARGEBACK_REVERSAL)}
    assert [[o.amount for o in each] for each in seen.values()] == [taken, back]
    for each in seen.values():
        assert [o.provider_txn_id for o in each] == ["dp_1", "dp_1:2"][: len(each)]


def test_two_disputes_of_one_payment_keep_apart() -> None:
    """C15, C18: what one gives back does not hide what the other took."""
    won, lost = ({**DISPUTE, "id": each} for each in ("dp_1", "dp_2"))
    read = [
        {**lost, "status": "lost", "balance_transactions": moved(-900)},
        {**won, "status": "won", "balance_transactions": moved(-900, 900)},
    ]

    found = objects.transaction(INTENT_CAPTURED, disputes=msgspec.convert(read, list[objects.Dispute])).observations

    assert sorted((o.operation.value, o.provider_txn_id, o.amount) for o in found[2:]) == [
        ("chargeback", "dp_1", 900),
        ("chargeback", "dp_2", 900),
        ("chargeback_reversal", "dp_1", 900),
    ]
