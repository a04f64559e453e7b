"""What a provider's payout report says, line by line, and what our ledger says to it."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import Meta

from shared.contracts.orders import Amount, CurrencyCode, ShortText
from shared.messages import Message, Query
from shared.provider_values import check_moment

LINES_MAX = 200
# In whichever currency the bank account has: a thousand times the largest payment.
SETTLED_MAX_MINOR_UNITS = 10**18
SettledAmount = Annotated[int, Meta(ge=-SETTLED_MAX_MINOR_UNITS, le=SETTLED_MAX_MINOR_UNITS)]
UNSETTLED_ROWS_MAX = 200
SHA256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class SettlementLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A line of a payout report about one of our payments; amounts are minor units, signed as they move the provider's balance."""

    # What the provider calls the line.
    key: ShortText
    category: ShortText
    # Which operation of the payment it settles: capture, refund, refund_failure, chargeback, chargeback_reversal.
    operation: ShortText
    payment: ShortText
    gross: SettledAmount
    fee: SettledAmount
    net: SettledAmount
    currency: CurrencyCode
    # As the customer saw it, where the provider says so: positive, in the currency that was charged.
    customer_amount: Amount | None = None
    customer_currency: CurrencyCode | None = None
    payout: Annotated[str, Meta(max_length=200)] = ""
    settled_at: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse a line that does not add up, or that was paid out at no time."""
        if self.net != self.gross - self.fee:
            raise ValueError(f"net {self.net} is not gross {self.gross} less fee {self.fee}")
        check_moment("settled_at", self.settled_at)


class TakeSettlements(Message, frozen=True, kw_only=True, tag="background.payments.take_settlements.v1"):
    """Write down what was paid out for payments of ours."""

    provider: str
    file_sha256: str
    lines: tuple[SettlementLine, ...]


class ImportSettlements(Message, frozen=True, kw_only=True, tag="reconciler.import_settlements.v1"):
    """Match a piece of a payout report with the ledger, and keep what does not fit as a difference."""

    provider: str
    file_sha256: str
    lines: tuple[SettlementLine, ...]


class ListUnsettled(Query, frozen=True, kw_only=True, tag="payments.list_unsettled.v1"):
    """Read a page of captures and refunds of a time that no payout report has mentioned so far, the oldest first."""

    provider: str
    since: datetime
    until: datetime
    after: UUID | None = None
    limit: int = UNSETTLED_ROWS_MAX


class UnsettledView(msgspec.Struct, frozen=True, kw_only=True):
    """A capture or refund of which no payout is known."""

    transaction_id: UUID
    order_id: UUID
    operation: str
    amount: int
    currency: str
    provider_payment_id: str | None
    created_at: datetime


class UnsettledPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of what was not paid out; `next` is the cursor of the following one."""

    transactions: list[UnsettledView]
    next: UUID | None = None


class LineMatched(msgspec.Struct, frozen=True, kw_only=True):
    """What our ledger says to a line: matched, repeated, amount (it has another), or missing (it has none such)."""

    key: str
    result: str
    transaction_id: UUID | None = None
    order_id: UUID | None = None
    amount: int | None = None
    currency: str = ""


class SettlementsTaken(msgspec.Struct, frozen=True, kw_only=True):
    """What our ledger says to each line, in their order."""

    lines: list[LineMatched]


class SettlementsView(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a piece of a payout report."""

    run_id: UUID
    matched: int
    repeated: int
    differing: list[LineMatched]


class SettlementView(msgspec.Struct, frozen=True, kw_only=True):
    """What was paid out for an operation, in the currency of the bank account, and what the provider kept of it."""

    transaction_id: UUID | None
    category: str
    gross: int
    fee: int
    net: int
    currency: str
    payout: str
    settled_at: datetime | None


MESSAGES: tuple[type[Message], ...] = (TakeSettlements, ImportSettlements, ListUnsettled)
