"""What payments can be told and asked, and what it answers."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts.calls import TriedCall
from shared.contracts.fulfillment.pricing import Notice, PackageBody, ProviderMetadata, ShippingRate
from shared.contracts.orders import Address, OrderContent, TaxLine
from shared.contracts.settlements import SettlementView
from shared.messages import Event, Message, Query
from shared.refund_shares import RefundLine, Returned

PAGE_ROWS_MAX = 200


# Commands


class PutOrder(Message, frozen=True, kw_only=True, tag="payments.put_order.v1"):
    """Create an order or replace what it says."""

    order_id: UUID
    content: OrderContent
    # What of it is about the buyer, wrapped for payments; the content then holds nothing of it.
    personal: str | None = None
    expected_version: int | None = None


class Quote(Message, frozen=True, kw_only=True, tag="payments.quote.v1"):
    """Freeze an order's prices into a snapshot."""

    order_id: UUID
    payment_provider: str | None = None
    # A way to ship: a rate that was shown before, or a service by its name; else the cheapest.
    shipping_rate_id: UUID | None = None
    shipping_service: str | None = None


class ShopRates(Message, frozen=True, kw_only=True, tag="payments.shop_rates.v1"):
    """Ask the carriers what it costs to ship an order."""

    order_id: UUID
    packages: tuple[PackageBody, ...] = ()


class Authorize(Message, frozen=True, kw_only=True, tag="payments.authorize.v1"):
    """Hold the customer's money for a snapshot."""

    order_id: UUID
    snapshot_id: UUID
    idempotency_key: str
    # Wrapped for payments, which alone can open it; empty where the caller takes the order to be free.
    payment_method: str
    amount: int | None = None
    currency: str | None = None
    return_url: str | None = None
    # Whether it was submitted: if its customer must act first, it is captured once they have.
    capture: bool = False


class Confirm(Message, frozen=True, kw_only=True, tag="payments.confirm.v1"):
    """Go on after the customer has done what the provider asked (3DS)."""

    order_id: UUID
    intent_id: UUID
    idempotency_key: str


class Capture(Message, frozen=True, kw_only=True, tag="payments.capture.v1"):
    """Take held money, all or part of it; `final` releases the rest."""

    order_id: UUID
    intent_id: UUID
    idempotency_key: str
    amount: int | None = None
    currency: str | None = None
    final: bool = False


class Void(Message, frozen=True, kw_only=True, tag="payments.void.v1"):
    """Release what is held and not captured."""

    order_id: UUID
    intent_id: UUID
    idempotency_key: str


class Refund(Message, frozen=True, kw_only=True, tag="payments.refund.v1"):
    """Give captured money back, all or part of it."""

    order_id: UUID
    intent_id: UUID
    idempotency_key: str
    amount: int | None = None
    currency: str | None = None
    reason: str = ""
    # No more than what was taken and the order does not owe.
    overpaid: bool = False
    # What the amount is for, where the shop says it: together they are the amount.
    lines: tuple[RefundLine, ...] = ()


class AcceptFacts(Message, frozen=True, kw_only=True, tag="payments.accept_facts.v1"):
    """Take what a provider says of a payment as it is, in spite of what does not fit, and why; answered with the payment."""

    order_id: UUID
    intent_id: UUID
    # The payment as it was looked at.
    version: int
    reason: str


class Observe(Message, frozen=True, kw_only=True, tag="background.payments.observe.v1"):
    """Take in what a provider says of a payment: one of its operations, and how it stands."""

    provider: str
    provider_account: str
    provider_payment_id: str
    operation: str
    status: str
    amount: int
    currency: str
    provider_txn_id: str
    origin: str
    reference: UUID | None = None
    reason: str = ""


class TakeEvent(Message, frozen=True, kw_only=True, tag="background.payments.take_event.v1"):
    """Take in a provider's event, exactly as it was sent; answered with EventTaken."""

    provider: str
    provider_account: str
    event_id: str
    event_type: str
    payload: str
    received_at: datetime


class DecideOutcome(Message, frozen=True, kw_only=True, tag="payments.decide_outcome.v1"):
    """Settle an operation whose outcome nobody learnt, by an operator's word and evidence."""

    transaction_id: UUID
    outcome: str
    evidence: str
    # What the provider calls the payment, where it was never heard and the operator has found it.
    provider_payment_id: str | None = None


# Queries


class ListUnknown(Query, frozen=True, kw_only=True, tag="payments.list_unknown.v1"):
    """Read a page of operations whose outcome is not known, the oldest first, with what was tried."""

    provider: str | None = None
    after: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class GetOrder(Query, frozen=True, kw_only=True, tag="payments.get_order.v1"):
    """Read an order, as staff or as the customer it belongs to."""

    order_id: UUID
    customer_id: UUID | None = None


class ListOrders(Query, frozen=True, kw_only=True, tag="payments.list_orders.v1"):
    """Read a page of a customer's orders, the newest first."""

    customer_id: UUID
    before: UUID | None = None
    limit: int = 50


class FindOrders(Query, frozen=True, kw_only=True, tag="payments.find_orders.v1"):
    """Read a page of a store's orders, the newest first; an empty page with a `next` says that the search goes on there."""

    status: str | None = None
    # An id of the order, its customer, a payment or a transaction, or what a provider calls one.
    text: str | None = None
    before: UUID | None = None
    limit: int = 50


class ListAttention(Query, frozen=True, kw_only=True, tag="payments.list_attention.v1"):
    """Read the payments that need somebody: those in conflict, money that no order owes, and holds that end soon."""

    provider: str | None = None
    expiring_within_hours: float = 48.0
    limit: int = PAGE_ROWS_MAX


class GetPayments(Query, frozen=True, kw_only=True, tag="payments.get_payments.v1"):
    """Read an order's full ledger."""

    order_id: UUID


# Views


class Totals(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an order comes to, in minor units: items - discounts - tax_removed + shipping + tax_exclusive + rounding."""

    items: int
    discounts: int
    shipping: int
    tax_exclusive: int
    tax_inclusive: int
    total: int
    # Home's tax that prices and shipping held and the buyer does not pay, where the store fixes its net prices.
    tax_removed: int = 0
    # To the store's step of a total, either way.
    rounding: int = 0


class OrderView(msgspec.Struct, frozen=True, kw_only=True):
    """An order and where it stands."""

    id: UUID
    version: int
    status: str
    content: OrderContent
    totals: Totals
    created_at: datetime
    updated_at: datetime
    # What its payments took and it does not owe; staff alone are told.
    overpaid_amount: int = 0


class OrderPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of orders; `next` is the cursor of the following one."""

    orders: list[OrderView]
    next: UUID | None = None


class OrderSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An order as a list for staff shows it, with its latest payment."""

    id: UUID
    status: str
    currency: str
    total: int
    customer_id: UUID | None
    payments: int
    provider: str | None
    payment_status: str | None
    # Of any of its payments.
    attention: str | None
    overpaid_amount: int
    created_at: datetime
    updated_at: datetime


class FoundOrders(msgspec.Struct, frozen=True, kw_only=True):
    """A page of orders for staff; `next` is the cursor of the following one."""

    orders: list[OrderSummary]
    next: UUID | None = None


class SnapshotLine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One priced line of a snapshot: quantity x unit_price - discount - tax_removed."""

    line: int
    product_variant_id: UUID
    name: str
    quantity: int
    unit_price: int
    discount: int
    amount: int
    tax_removed: int = 0


class NormalizedAddress(msgspec.Struct, frozen=True, kw_only=True):
    """An address as typed, as normalised, and what is doubtful about it."""

    typed: Address
    normalized: dict[str, str]
    doubts: dict[str, str] = {}


class ReportedAmount(msgspec.Struct, frozen=True, kw_only=True):
    """What a total is reported as, in minor units; never what is charged."""

    amount: int
    currency: str


class SnapshotView(msgspec.Struct, frozen=True, kw_only=True):
    """A frozen price: what it consists of and until when it holds."""

    snapshot_id: UUID
    order_id: UUID
    order_version: int
    currency: str
    lines: list[SnapshotLine]
    tax_lines: list[TaxLine]
    totals: Totals
    shipping_rates: list[ShippingRate]
    selected_shipping_rate: ShippingRate | None
    shipping_address: NormalizedAddress | None
    billing_address: NormalizedAddress | None
    providers: dict[str, ProviderMetadata]
    fx_reference: dict[str, str] | None
    created_at: datetime
    expires_at: datetime
    # What did not answer or is not as it should be, and what was done instead.
    notices: list[Notice] = []
    # In the currency that the store reports in, at `fx_reference`; none where no rate is known.
    reported: ReportedAmount | None = None
    # Binds the tax to what was priced; finalizing the tax asks for it. Empty where the shop stated the tax itself.
    tax_hash: str = ""


class NextAction(msgspec.Struct, frozen=True, kw_only=True):
    """What the customer must do before the payment can go on."""

    type: str
    url: str


class TransactionView(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger."""

    id: UUID
    operation: str
    status: str
    amount: int
    processed_amount: int | None
    currency: str
    final: bool
    source: str
    reason: str
    provider_txn_id: str | None
    decline_code: str | None
    raw_response_redacted: dict[str, Any]
    correlation_id: str
    created_at: datetime
    concluded_at: datetime | None
    # Of a refund: what it is for, where that was said.
    lines: list[RefundLine] = []


class IntentView(msgspec.Struct, frozen=True, kw_only=True):
    """A payment intent: its amounts and where it stands."""

    id: UUID
    order_id: UUID
    snapshot_id: UUID
    provider: str
    status: str
    currency: str
    authorized_amount: int
    captured_amount: int
    refunded_amount: int
    voided_amount: int
    charged_back_amount: int
    capture_reserved: int
    refund_reserved: int
    attention: str | None
    next_action: NextAction | None
    authorization_expires_at: datetime | None
    version: int
    created_at: datetime
    updated_at: datetime
    # What the provider calls the payment, once it has said so.
    provider_payment_id: str | None = None
    # What the order was quoted at, of which more may have been taken than that.
    requested_amount: int = 0
    # What was taken and is still here although the order does not owe it.
    overpaid_amount: int = 0
    # The order went on without it: another payment began, or it was cancelled or priced anew.
    superseded: bool = False


class PaymentView(msgspec.Struct, frozen=True, kw_only=True):
    """The result of an operation: the intent after it, and the operation's own row."""

    intent: IntentView
    transaction: TransactionView


class IntentLedger(msgspec.Struct, frozen=True, kw_only=True):
    """An intent with every row of its ledger."""

    intent: IntentView
    transactions: list[TransactionView]
    # What was paid out for it, as far as reports were brought in.
    settlements: list[SettlementView] = []


class AttentionView(msgspec.Struct, frozen=True, kw_only=True):
    """Payments that need somebody: in conflict, the oldest first; with money to give back; holds that end soon, the soonest first."""

    conflicted: list[IntentView]
    expiring: list[IntentView]
    # They took what their order does not owe (`overpaid_amount`), and it is not on its way back yet.
    overpaid: list[IntentView]


class StatusChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an order's status."""

    from_status: str | None
    to_status: str
    reason: str
    source: str
    actor: str
    correlation_id: str
    changed_at: datetime


class Ledger(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about an order's money."""

    order_id: UUID
    order_status: str
    currency: str
    payments: list[IntentLedger]
    # What these took and the order does not owe.
    overpaid_amount: int
    history: list[StatusChange]


class UnknownView(msgspec.Struct, frozen=True, kw_only=True):
    """An operation whose outcome is not known: since when, what was tried, and when it is looked for again."""

    transaction_id: UUID
    intent_id: UUID
    order_id: UUID
    provider: str
    provider_payment_id: str | None
    operation: str
    amount: int
    currency: str
    age_seconds: float
    looks: int
    next_look_at: datetime
    tried: list[TriedCall]
    created_at: datetime


class UnknownPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of operations whose outcome is not known; `next` is the cursor of the following one."""

    operations: list[UnknownView]
    next: UUID | None = None


# Events


class FailedRefund(msgspec.Struct, frozen=True, kw_only=True):
    """A refund that gave nothing back: it was not carried out, or it failed or was cancelled, perhaps after it had succeeded."""

    transaction_id: UUID
    amount: int
    decline_code: str | None


class IntentChanged(Event, frozen=True, kw_only=True, tag="payments.intent_changed.v1"):
    """An intent has other amounts or another status; older versions than known are to be ignored."""

    intent: IntentView
    order_status: str
    failed_refunds: tuple[FailedRefund, ...] = ()
    # In the order of the ledger.
    returned: tuple[Returned, ...] = ()


MESSAGES: tuple[type[Message], ...] = (
    PutOrder,
    Quote,
    ShopRates,
    Authorize,
    Confirm,
    Capture,
    Void,
    Refund,
    AcceptFacts,
    Observe,
    TakeEvent,
    DecideOutcome,
    ListUnknown,
    GetOrder,
    ListOrders,
    FindOrders,
    ListAttention,
    GetPayments,
    IntentChanged,
)
