"""What a payment provider must do, and how it may answer."""

from datetime import datetime
from typing import Protocol
from uuid import UUID

import msgspec

from services.payments.domain.intents import Observation, Operation
from shared.contracts.fulfillment.pricing import Figures, Price, QuoteRates, RatesView
from shared.messages import Envelope
from shared.provider_answers import IndeterminateResponse
from shared.provider_values import ID_MAX_CHARACTERS, check_moment, check_text


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do; what it cannot is refused before anything is written."""

    partial_capture: bool
    multiple_captures: bool
    final_capture: bool
    partial_refund: bool
    multiple_refunds: bool
    void_after_capture: bool
    currencies: tuple[str, ...] | None
    # How long the provider remembers an idempotency key; a repeat after that could execute twice.
    replay_window_seconds: int
    # From when on "not found" proves that nothing happened; None where it never does.
    absence_is_proof_after_seconds: int | None


class AuthorizeRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Hold an amount on a payment method."""

    reference: UUID
    order_id: UUID
    amount: int
    currency: str
    payment_method: str
    return_url: str | None


class ConfirmRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Go on after the customer acted."""

    provider_payment_id: str


class Captured(msgspec.Struct, frozen=True, kw_only=True):
    """A capture of ours that has succeeded."""

    reference: UUID
    amount: int


class CaptureRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Take an amount that is held; `earlier` is what we have captured of it before, the oldest first, and `undone` what took nothing."""

    reference: UUID
    provider_payment_id: str
    amount: int
    currency: str
    final: bool
    earlier: tuple[Captured, ...] = ()
    undone: tuple[UUID, ...] = ()


class VoidRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Release what is held."""

    reference: UUID
    provider_payment_id: str


class RefundRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Give an amount back."""

    reference: UUID
    provider_payment_id: str
    amount: int
    currency: str
    reason: str


Request = AuthorizeRequest | ConfirmRequest | CaptureRequest | VoidRequest | RefundRequest


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """The exact call, pinned in the ledger before it is made, so that a repeat sends the same bytes."""

    operation: str
    method: str
    path: str
    body: bytes


class ProviderTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A provider's payment as its books show it: everything observed about it."""

    provider_payment_id: str
    reference: UUID | None
    observations: tuple[Observation, ...]
    created_at: datetime

    def __post_init__(self) -> None:
        """Refuse a name or a time that cannot be."""
        check_text("provider_payment_id", self.provider_payment_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_moment("created_at", self.created_at)

    def shows(self, operation: Operation, reference: UUID, provider_txn_id: str | None) -> bool:
        """Tell whether it shows an operation, by our reference or by what the provider calls it."""
        of_its_kind = [o for o in self.observations if o.operation is operation]
        return any(o.reference == reference or (provider_txn_id is not None and o.provider_txn_id == provider_txn_id) for o in of_its_kind)


class UnreadableTransaction(msgspec.Struct, frozen=True, kw_only=True):
    """A payment of ours in a provider's books that is not written as its adapter reads it, and why."""

    provider_payment_id: str
    reason: str

    def __post_init__(self) -> None:
        """Refuse a name that cannot be."""
        check_text("provider_payment_id", self.provider_payment_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)


class TransactionPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a provider's books; `next` is the cursor of the following one."""

    transactions: tuple[ProviderTransaction, ...]
    next: str | None
    unreadable: tuple[UnreadableTransaction, ...] = ()


class Observed(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's event says: which payment it is about, and how its operations stand.

    None instead of observations: the event says too little, so the payment must be read from the provider's books.
    """

    provider_payment_id: str
    reference: UUID | None
    observations: tuple[Observation, ...] | None
    # Its object would bear a reference of ours and does not: somebody else's, unless we know the payment by its id.
    strangers: bool = False
    # Why the observations of a payment cannot be read; a stranger's need not be.
    unreadable: str = ""

    def __post_init__(self) -> None:
        """Refuse a name that cannot be."""
        check_text("provider_payment_id", self.provider_payment_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)


class Unreadable(Exception):
    """An event of a provider is not written as this adapter reads it, so that not even whose it is can be told."""


class TransactionUnreadable(IndeterminateResponse):
    """The provider's books show the payment, but not written as its adapter reads it: asking again does not help."""


class PaymentProvider(Protocol):
    """One provider account; `NotSent`, `NoAnswer` and `IndeterminateResponse` are the only ways a call may fail."""

    name: str
    account: str
    capabilities: Capabilities

    def browser(self) -> dict[str, str]:
        """Say what the shopper's browser needs for it; never a secret."""
        ...

    def prepare(self, request: Request) -> Prepared:
        """Write the exact call for a request; pure."""
        ...

    async def send(self, prepared: Prepared, *, idempotency_key: str, reference: UUID) -> tuple[Observation, ...]:
        """Make a call and say what it shows of the payment."""
        ...

    async def get_transaction(self, provider_payment_id: str) -> ProviderTransaction | None:
        """Read a payment from the provider's books."""
        ...

    async def find_by_reference(
        self, reference: UUID, *, operation: Operation, provider_payment_id: str | None, provider_txn_id: str | None = None
    ) -> ProviderTransaction | None:
        """Find the payment that one of our transactions made or changed; nothing when its books do not show that it did.

        `provider_payment_id` is the payment it was to change, `provider_txn_id` what the provider calls the operation itself, where
        that is known: what was done without us bears no reference of ours.
        """
        ...

    async def list_transactions(self, *, since: datetime, until: datetime, cursor: str | None) -> TransactionPage:
        """Page through a provider's books by time of creation; strangers' payments may be left out."""
        ...

    async def is_strangers(self, provider_payment_id: str) -> bool:
        """Tell whether a payment is in the provider's books and bears no reference of ours."""
        ...

    def observe(self, event_type: str, payload: bytes) -> Observed | None:
        """Read an event; nothing when it says nothing of a payment. Raises Unreadable; pure."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class Pricing(Protocol):
    """Says what an order leaves open of shipping and tax."""

    async def figures(self, envelope: Envelope, asked: Price) -> Figures:
        """Say what shipping and tax come to; raises a refusal, or Unavailable when nobody answers."""
        ...

    async def rates(self, envelope: Envelope, asked: QuoteRates) -> RatesView:
        """Say what it costs to ship an order; raises as above."""
        ...
