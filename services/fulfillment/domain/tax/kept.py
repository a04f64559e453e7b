"""What of a sale was paid and is kept, by line: captured, and neither refunded nor charged back."""

from collections.abc import Mapping, Sequence
from uuid import UUID

import msgspec

from shared.contracts.payments import IntentView
from shared.refund_shares import Returned, given_back, owed_parts

# The status of a payment without which its order went on: it pays for nothing, whatever it took.
SUPERSEDED = "superseded"
UNOWED = frozenset({SUPERSEDED, "abandoned"})
CAPTURED = "captured"
# The statuses of payments that have taken nothing, and may never.
ENDED = UNOWED | {"declined", "expired", "voided", "processing", "requires_action"}


class Payment(msgspec.Struct, frozen=True, kw_only=True):
    """A payment of an order, as far as its events tell; its amounts are of what the order owes."""

    intent_id: UUID
    snapshot_id: UUID
    version: int
    status: str
    captured_amount: int
    # In the order of the ledger.
    returned: tuple[Returned, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether it is what its order is paid with, also where nothing is captured yet."""
        return self.status not in ENDED

    @property
    def pays(self) -> bool:
        """Whether it has paid for its snapshot, with money or because there was nothing to pay."""
        return self.captured_amount > 0 or self.status == CAPTURED


def payment_of(intent: IntentView, returned: Sequence[Returned]) -> Payment:
    """Tell of a payment what its order owes of it; what was taken beyond that is no part of the sale, and goes back first."""
    status = SUPERSEDED if intent.superseded else intent.status
    captured = 0 if status in UNOWED else min(intent.captured_amount, intent.requested_amount or intent.captured_amount)
    # An event of an older version names no parts.
    whole = Returned(transaction_id=intent.id, amount=intent.refunded_amount + intent.charged_back_amount)
    return Payment(
        intent_id=intent.id,
        snapshot_id=intent.snapshot_id,
        version=intent.version,
        status=status,
        captured_amount=captured,
        returned=owed_parts(tuple(returned) or (whole,), excess=intent.captured_amount - captured),
    )


def not_kept(prices: Mapping[int | None, int], payments: Sequence[Payment]) -> dict[int | None, int]:
    """Work out what of each line's price is not kept, from all payments of a sale; in whichever order their news came, it is the same."""
    captured = sum(payment.captured_amount for payment in payments)
    parts = sorted((part for payment in payments for part in payment.returned), key=lambda part: part.transaction_id)
    return given_back(prices, parts, unpaid=max(0, sum(prices.values()) - captured))


def not_kept_of(sold: Mapping[int, int], payments: Sequence[Payment], *, unnamed: Sequence[int]) -> dict[int, int]:
    """Work it out by the lines of a document; refunds name goods by their position, and as shipping all that has no line.

    Of that, what comes first goes back first: shipping, and fees with the last of it.
    """
    prices: dict[int | None, int] = {}
    for line, price in sorted(sold.items()):
        name = None if line in unnamed else line
        prices[name] = prices.get(name, 0) + price
    back = not_kept(prices, payments)
    found = {}
    for line, price in sorted(sold.items()):
        name = None if line in unnamed else line
        found[line] = min(price, back[name]) if name is None else back[name]
        back[name] -= found[line]
    return found
