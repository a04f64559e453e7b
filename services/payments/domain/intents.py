"""Payment intents: the ledger's rows, the fold that turns them into amounts, and the one reducer of what providers say."""

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts.payments import NextAction
from shared.provider_values import (
    ID_MAX_CHARACTERS,
    TEXT_MAX_CHARACTERS,
    URL_MAX_CHARACTERS,
    check_amount,
    check_currency,
    check_json,
    check_moment,
    check_text,
)
from shared.refund_shares import RefundLine, Returned


class Operation(StrEnum):
    """What a ledger row is about; a chargeback, and its reversal when the dispute is won, are only ever observed."""

    AUTHORIZE = "authorize"
    CAPTURE = "capture"
    VOID = "void"
    REFUND = "refund"
    CHARGEBACK = "chargeback"
    CHARGEBACK_REVERSAL = "chargeback_reversal"


class TransactionStatus(StrEnum):
    """Where one operation stands; it only moves on, in this order. A refund alone may fail after it succeeded."""

    PENDING = "pending"
    UNKNOWN = "unknown"
    FAILED = "failed"
    DECLINED = "declined"
    SUCCEEDED = "succeeded"


RANK = {status: rank for rank, status in enumerate(TransactionStatus)}
OPEN = frozenset({TransactionStatus.PENDING, TransactionStatus.UNKNOWN})
NO_MONEY = frozenset({TransactionStatus.DECLINED, TransactionStatus.FAILED})


class IntentStatus(StrEnum):
    """Where a payment stands; derived from its ledger."""

    PROCESSING = "processing"
    REQUIRES_ACTION = "requires_action"
    AUTHORIZED = "authorized"
    PARTIALLY_CAPTURED = "partially_captured"
    CAPTURED = "captured"
    PARTIALLY_REFUNDED = "partially_refunded"
    REFUNDED = "refunded"
    VOIDED = "voided"
    DECLINED = "declined"
    EXPIRED = "expired"
    ABANDONED = "abandoned"
    CONFLICTED = "conflicted"


# What lets its order go. A payment that took money never does, also when all of it went back: the order is what was paid for.
INACTIVE = frozenset({IntentStatus.VOIDED, IntentStatus.DECLINED, IntentStatus.EXPIRED, IntentStatus.ABANDONED})


class Source(StrEnum):
    """Who brought a fact into the ledger."""

    API = "api"
    WEBHOOK = "webhook"
    JOB = "job"
    RECONCILIATION = "reconciliation"


class Reason(StrEnum):
    """Why a void happened, where it was not simply asked for."""

    EXPIRED = "expired"
    ABANDONED = "abandoned"
    # The customer took another payment method.
    REPLACED = "replaced"


class Transaction(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger, as the rules see it."""

    id: UUID
    operation: Operation
    amount: int
    status: TransactionStatus
    processed_amount: int | None = None
    final: bool = False
    contradicted: bool = False
    awaiting_customer: bool = False
    # Its customer has acted and the provider is being asked: what it told before of waiting is of yesterday.
    confirming: bool = False
    provider_txn_id: str | None = None
    reason: str = ""
    decline_code: str | None = None
    source: Source = Source.API
    command_id: UUID | None = None
    idempotency_key: str = ""
    # Of a refund: what it is for, where that was said.
    lines: tuple[RefundLine, ...] = ()
    raw: dict[str, Any] = {}

    @property
    def open(self) -> bool:
        """Whether its outcome is still to be learnt."""
        return self.status in OPEN

    @property
    def accepted(self) -> bool:
        """Whether it is a refund that its provider has and has not carried out yet, which may take days: nothing waits for it."""
        return self.operation is Operation.REFUND and self.open and self.provider_txn_id is not None

    @property
    def came_back(self) -> bool:
        """Whether it is a refund that its provider's books show as failed or cancelled, which is final: it moved nothing in the end."""
        return self.operation is Operation.REFUND and self.status in NO_MONEY and self.processed_amount == 0

    @property
    def moved(self) -> int:
        """What it moved, as the provider reports it."""
        if self.status is not TransactionStatus.SUCCEEDED:
            return 0
        return self.amount if self.processed_amount is None else self.processed_amount


class Intent(msgspec.Struct, frozen=True, kw_only=True):
    """A payment intent; amounts and status equal the fold over its transactions."""

    id: UUID
    order_id: UUID
    snapshot_id: UUID
    provider: str
    provider_account: str
    currency: str
    requested_amount: int
    created_at: datetime
    updated_at: datetime
    provider_payment_id: str | None = None
    status: IntentStatus = IntentStatus.PROCESSING
    authorized_amount: int = 0
    captured_amount: int = 0
    refunded_amount: int = 0
    voided_amount: int = 0
    charged_back_amount: int = 0
    capture_reserved: int = 0
    refund_reserved: int = 0
    # What was taken and is still here although the order does not owe it.
    overpaid_amount: int = 0
    attention: str | None = None
    # The facts that an operator accepted: what each row had moved, and how far the sums were off.
    accepted: dict[str, int] = {}
    next_action: NextAction | None = None
    authorization_expires_at: datetime | None = None
    abandoned: bool = False
    # The order went on without it: another payment began, or it was cancelled or priced anew.
    superseded: bool = False
    holds_order: bool = True
    # It was submitted, and whoever did so was told that its customer must act: nobody else goes on to its capture.
    capture_wanted: bool = False
    version: int = 1

    @property
    def capturable(self) -> int:
        """What may still be captured."""
        return max(0, self.authorized_amount - self.captured_amount - self.capture_reserved - self.voided_amount)

    @property
    def returned(self) -> int:
        """What went back, by refunds and by disputes."""
        return self.refunded_amount + self.charged_back_amount

    @property
    def refundable(self) -> int:
        """What may still be refunded."""
        return max(0, self.captured_amount - self.returned - self.refund_reserved)

    @property
    def held(self) -> int:
        """What the customer's bank still holds for us."""
        return max(0, self.authorized_amount - self.captured_amount - self.voided_amount)

    @property
    def free(self) -> bool:
        """Whether there is nothing to pay, so that no provider knows of it."""
        return self.requested_amount == 0

    @property
    def to_be_captured(self) -> bool:
        """Whether it was submitted, waited for its customer, and is held by now for an order that still wants it."""
        return self.capture_wanted and self.status is IntentStatus.AUTHORIZED and not self.superseded


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider says of one operation, wherever we heard it: answer, webhook, poll or reconciliation."""

    operation: Operation
    status: TransactionStatus
    amount: int
    currency: str
    provider_payment_id: str
    provider_txn_id: str | None
    reference: UUID | None = None
    reason: str = ""
    decline_code: str | None = None
    next_action: NextAction | None = None
    authorization_expires_at: datetime | None = None
    # Concluded from what a provider does not show, so that whatever it has shown goes before.
    inferred: bool = False
    raw: dict[str, Any] = {}

    def __post_init__(self) -> None:
        """Refuse what the ledger could not keep, whoever brings it: an answer, an event, a page of a provider's books."""
        named = self.provider_txn_id is not None
        # What no provider names is our own conclusion that nothing was done, and a void releases what is left, also if that is nothing.
        check_amount("amount", self.amount, least=1 if named and self.operation is not Operation.VOID else 0)
        if named or self.currency:
            check_currency(self.currency)
        check_text("provider_payment_id", self.provider_payment_id, characters_max=ID_MAX_CHARACTERS)
        check_text("provider_txn_id", self.provider_txn_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_text("reason", self.reason, characters_max=TEXT_MAX_CHARACTERS)
        check_text("decline_code", self.decline_code, characters_max=ID_MAX_CHARACTERS)
        if self.next_action is not None:
            check_text("next_action.type", self.next_action.type, characters_max=ID_MAX_CHARACTERS)
            check_text("next_action.url", self.next_action.url, characters_max=URL_MAX_CHARACTERS)
        check_moment("authorization_expires_at", self.authorization_expires_at)
        check_json("raw", self.raw)


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What an observation changed: the intent after it, all rows, and the ones to write."""

    intent: Intent
    transactions: tuple[Transaction, ...]
    changed: tuple[Transaction, ...]
    added: tuple[Transaction, ...]


# The fold


def fold(intent: Intent, transactions: Sequence[Transaction]) -> Intent:
    """Work an intent's amounts and status out from its ledger; the order of the rows does not matter."""
    moved = {operation: sum(t.moved for t in transactions if t.operation is operation) for operation in Operation}
    reserved = {operation: sum(t.amount for t in transactions if t.operation is operation and t.open) for operation in Operation}
    authorized, captured = moved[Operation.AUTHORIZE], moved[Operation.CAPTURE]
    charged_back = max(0, moved[Operation.CHARGEBACK] - moved[Operation.CHARGEBACK_REVERSAL])
    returned = moved[Operation.REFUND] + charged_back
    released = _released(transactions)
    voided = max(0, authorized - captured) if released else 0
    after = msgspec.structs.replace(
        intent,
        authorized_amount=authorized,
        captured_amount=captured,
        refunded_amount=moved[Operation.REFUND],
        charged_back_amount=charged_back,
        voided_amount=voided,
        capture_reserved=reserved[Operation.CAPTURE],
        refund_reserved=reserved[Operation.REFUND],
        next_action=intent.next_action if any(t.awaiting_customer and t.open for t in transactions) else None,
    )
    # A release ends a conflict when no money went either way.
    settled = released and captured == returned == 0
    contradictions = [] if settled else [c.text for c in _contradictions(after, transactions) if not c.accepted]
    conflict = [*contradictions, *(c.text for c in _crowded(after, transactions) if not c.accepted)]
    status = _status(after, transactions, released=released, conflict=bool(conflict) and not settled)
    overpaid = _overpayment(after, transactions)
    attention = [*conflict, *([] if overpaid.accepted else [overpaid.text])]
    taken = captured > 0 and not (intent.superseded or intent.abandoned)
    return msgspec.structs.replace(
        after,
        status=status,
        attention="; ".join(attention) or None,
        overpaid_amount=0 if overpaid.accepted else overpaid.size,
        holds_order=taken or (intent.holds_order and status not in INACTIVE),
    )


def money_returned(transactions: Sequence[Transaction]) -> tuple[Returned, ...]:
    """List what went back to the customer, in the order of the ledger; a dispute that was won takes back what disputes took last."""
    won = sum(t.moved for t in transactions if t.operation is Operation.CHARGEBACK_REVERSAL)
    found = []
    for row in sorted(transactions, key=lambda t: t.id, reverse=True):
        amount = row.moved if row.operation in (Operation.REFUND, Operation.CHARGEBACK) else 0
        if row.operation is Operation.CHARGEBACK:
            regained = min(won, amount)
            won, amount = won - regained, amount - regained
        if amount:
            found.append(Returned(transaction_id=row.id, amount=amount, lines=row.lines if amount == row.amount else ()))
    return tuple(reversed(found))


def _released(transactions: Sequence[Transaction]) -> bool:
    succeeded = [t for t in transactions if t.status is TransactionStatus.SUCCEEDED]
    return any(t.operation is Operation.VOID or (t.operation is Operation.CAPTURE and t.final) for t in succeeded)


def accept(intent: Intent, transactions: Sequence[Transaction]) -> Intent:
    """Take the facts of a ledger as they are: none of them needs attention any more, until there are others."""
    rows = {str(t.id): t.moved for t in transactions if t.moved or t.came_back}
    under_way = {_while_open(t): t.amount for t in transactions if t.open}
    facts = (*_contradictions(intent, transactions), *_crowded(intent, transactions), _overpayment(intent, transactions))
    return fold(msgspec.structs.replace(intent, accepted={**rows, **under_way, **{c.key: c.size for c in facts}}), transactions)


class _Contradiction(msgspec.Struct, frozen=True):
    """A fact that does not fit, how far it is off, and whether an operator has accepted just that."""

    key: str
    size: int
    text: str
    accepted: bool


def _contradictions(intent: Intent, transactions: Sequence[Transaction]) -> Iterator[_Contradiction]:
    for row in sorted(transactions, key=lambda t: t.id):
        if row.contradicted:
            key, text = f"contradicted {row.id}", f"the provider said two different things about {row.operation.value} {row.id}"
            yield _Contradiction(key, row.moved, text, intent.accepted.get(key) == row.moved)
        asked = row.source is Source.API and row.operation is not Operation.VOID
        if asked and row.status is TransactionStatus.SUCCEEDED and row.moved != row.amount:
            key, text = str(row.id), f"{row.operation.value} of {row.amount} was asked, {row.moved} was done"
            yield _Contradiction(key, row.moved, text, intent.accepted.get(key) == row.moved)
    authorized, captured, returned = intent.authorized_amount, intent.captured_amount, intent.returned
    if captured > authorized:
        text = f"{captured} captured of {authorized} authorized"
        yield _excess(intent, transactions, "captured", captured - authorized, text, by={Operation.CAPTURE})
    if returned > captured:
        text = f"{returned} given back of {captured} captured"
        yield _excess(intent, transactions, "returned", returned - captured, text, by={Operation.REFUND, Operation.CHARGEBACK})


def _overpayment(intent: Intent, transactions: Sequence[Transaction]) -> _Contradiction:
    owed = 0 if intent.superseded or intent.abandoned else intent.requested_amount
    size = max(0, intent.captured_amount - intent.returned - owed)
    text = f"{size} was taken that the order does not owe"
    excess = _excess(intent, transactions, "overpaid", size, text, by={Operation.CAPTURE})
    # Whoever had it given back did not mean to keep it.
    given_back_in_vain = size > 0 and any(t.came_back and str(t.id) not in intent.accepted for t in transactions)
    return msgspec.structs.replace(excess, accepted=excess.accepted and not given_back_in_vain)


def _excess(
    intent: Intent, transactions: Sequence[Transaction], key: str, size: int, text: str, *, by: Collection[Operation]
) -> _Contradiction:
    # What brings it about may be other than what was accepted, and come to the same sum.
    known = all(t.moved <= intent.accepted.get(str(t.id), 0) for t in transactions if t.operation in by)
    return _Contradiction(key, size, text, size == 0 or (known and size <= intent.accepted.get(key, 0)))


def _crowded(intent: Intent, transactions: Sequence[Transaction]) -> Iterator[_Contradiction]:
    """What happened without us can leave too little for what we asked for, until the provider has answered or an operator accepts it."""
    to_capture = intent.authorized_amount - intent.captured_amount - intent.voided_amount
    for operation, left in ((Operation.CAPTURE, to_capture), (Operation.REFUND, intent.captured_amount - intent.returned)):
        under_way = [t for t in transactions if t.operation is operation and t.open]
        wanted = sum(t.amount for t in under_way)
        if wanted > max(0, left):
            key, size = f"{operation.value} under way", wanted - left
            text = f"a {operation.value} of {wanted} is under way and {max(0, left)} is left"
            known = all(_while_open(t) in intent.accepted for t in under_way)
            yield _Contradiction(key, size, text, known and size <= intent.accepted.get(key, 0))


def _while_open(row: Transaction) -> str:
    return f"under way {row.id}"


def _status(intent: Intent, transactions: Sequence[Transaction], *, released: bool, conflict: bool) -> IntentStatus:
    if intent.abandoned:
        return IntentStatus.ABANDONED
    if conflict:
        return IntentStatus.CONFLICTED
    if intent.captured_amount > 0:
        return _status_of_captured(intent, released=released)
    if intent.free:
        return IntentStatus.CAPTURED
    if released:
        expired = any(t.reason == Reason.EXPIRED and t.status is TransactionStatus.SUCCEEDED for t in transactions)
        return IntentStatus.EXPIRED if expired else IntentStatus.VOIDED
    if intent.authorized_amount > 0:
        return IntentStatus.AUTHORIZED
    authorizations = [t for t in transactions if t.operation is Operation.AUTHORIZE]
    if authorizations and not any(t.open for t in authorizations):
        return IntentStatus.DECLINED
    if any(t.awaiting_customer for t in authorizations):
        return IntentStatus.REQUIRES_ACTION
    return IntentStatus.PROCESSING


def _status_of_captured(intent: Intent, *, released: bool) -> IntentStatus:
    complete = released or intent.captured_amount >= intent.authorized_amount
    if intent.returned >= intent.captured_amount and complete:
        return IntentStatus.REFUNDED
    if intent.returned > 0:
        return IntentStatus.PARTIALLY_REFUNDED
    return IntentStatus.CAPTURED if complete else IntentStatus.PARTIALLY_CAPTURED


# The reducer


def observe(
    intent: Intent, transactions: Sequence[Transaction], observations: Sequence[Observation], *, source: Source, ids: Sequence[UUID]
) -> Applied:
    """Take in what a provider says; any order and any number of repeats end in the same state. Needs an id per observation."""
    rows = {t.id: t for t in transactions}
    before, added = dict(rows), []
    for observation, fresh in zip(observations, ids, strict=True):
        known = _match(rows, observation)
        if known is None:
            known = _first_sight(observation, fresh, source, intent)
            added.append(known.id)
        rows[known.id] = _advance(known, observation, intent, source)
    rows = _closed_by_release(rows)
    facts = _with_provider_facts(intent, observations)
    if any(_answers_its_submitter(before[row.id], row) for row in rows.values() if row.id in before):
        facts = msgspec.structs.replace(facts, capture_wanted=False)
    after = fold(facts, list(rows.values()))
    changed = tuple(t for t in rows.values() if t.id in before and t != before[t.id])
    return Applied(intent=after, transactions=tuple(rows.values()), changed=changed, added=tuple(rows[i] for i in added))


def _answers_its_submitter(before: Transaction, after: Transaction) -> bool:
    """Tell whether a hold came about without its customer: whoever submitted it still waits, and goes on to the capture."""
    held = after.operation is Operation.AUTHORIZE and before.open and after.status is TransactionStatus.SUCCEEDED
    return held and not (before.awaiting_customer or before.confirming)


def _match(rows: dict[UUID, Transaction], observation: Observation) -> Transaction | None:
    if observation.reference is not None and observation.reference in rows:
        return rows[observation.reference]
    if observation.provider_txn_id is None:
        return None
    named = (t for t in rows.values() if t.operation is observation.operation and t.provider_txn_id == observation.provider_txn_id)
    return next(named, None) or _void_under_way(rows, observation)


def _void_under_way(rows: dict[UUID, Transaction], observation: Observation) -> Transaction | None:
    # Where a void is but the end of the payment and bears its id, ours has come about whoever brought it there.
    if observation.operation is not Operation.VOID or observation.provider_txn_id != observation.provider_payment_id:
        return None
    return next((t for t in rows.values() if t.operation is Operation.VOID and t.open and t.provider_txn_id is None), None)


def _first_sight(observation: Observation, fresh: UUID, source: Source, intent: Intent) -> Transaction:
    return Transaction(
        id=fresh,
        operation=observation.operation,
        amount=observation.amount,
        status=TransactionStatus.PENDING,
        provider_txn_id=observation.provider_txn_id,
        reason=observation.reason,
        source=source,
        contradicted=observation.currency != intent.currency,
    )


def _advance(row: Transaction, observation: Observation, intent: Intent, source: Source) -> Transaction:
    if row.operation is Operation.REFUND and observation.status in NO_MONEY and observation.provider_txn_id is not None:
        return _come_back(row, observation)
    if row.came_back or (observation.inferred and row.open and row.provider_txn_id is not None):
        return row
    money = TransactionStatus.SUCCEEDED
    contradicts = (row.status is money and observation.status in NO_MONEY) or (row.status in NO_MONEY and observation.status is money)
    accepted = row.operation is Operation.REFUND and row.open and observation.provider_txn_id is not None
    ahead = RANK[observation.status] > RANK[row.status] or (accepted and row.status is TransactionStatus.UNKNOWN)
    status = observation.status if ahead else row.status
    waits = observation.next_action is not None and not (row.confirming and source is Source.WEBHOOK)
    processed = row.processed_amount
    if observation.status is money:
        processed = observation.amount if processed is None else max(processed, observation.amount)
    return msgspec.structs.replace(
        row,
        status=status,
        processed_amount=processed,
        provider_txn_id=row.provider_txn_id or observation.provider_txn_id,
        contradicted=row.contradicted or contradicts or (observation.status is money and observation.currency != intent.currency),
        # It waits until its customer comes back (confirm) or it ends; a late "still processing" changes nothing.
        awaiting_customer=status in OPEN and (row.awaiting_customer or waits),
        decline_code=row.decline_code or observation.decline_code,
        reason=row.reason or observation.reason,
        raw=observation.raw if ahead or not row.raw else row.raw,
    )


def _come_back(row: Transaction, observation: Observation) -> Transaction:
    """A refund failed or was cancelled, before or after it succeeded: the money is here again, and whatever was told before is older.

    Neither status is ever left again (docs.stripe.com/refunds#failed-refunds, docs.stripe.com/api/refunds/cancel).
    """
    news = not row.came_back or RANK[observation.status] > RANK[row.status]
    return msgspec.structs.replace(
        row,
        status=observation.status if news else row.status,
        processed_amount=0,
        provider_txn_id=row.provider_txn_id or observation.provider_txn_id,
        contradicted=False,
        decline_code=(observation.decline_code if news else None) or row.decline_code,
        reason=row.reason or observation.reason,
        raw=observation.raw if news or not row.raw else row.raw,
    )


def _closed_by_release(rows: dict[UUID, Transaction]) -> dict[UUID, Transaction]:
    # A payment released while the customer still had to act was never executed.
    if not _released(list(rows.values())):
        return rows
    return {
        key: msgspec.structs.replace(
            row, status=TransactionStatus.FAILED, awaiting_customer=False, decline_code=row.decline_code or "released"
        )
        if row.operation is Operation.AUTHORIZE and row.awaiting_customer and row.open
        else row
        for key, row in rows.items()
    }


def _with_provider_facts(intent: Intent, observations: Sequence[Observation]) -> Intent:
    payment_ids = [o.provider_payment_id for o in observations if o.provider_payment_id]
    actions = [o.next_action for o in observations if o.next_action is not None]
    expiries = [o.authorization_expires_at for o in observations if o.authorization_expires_at is not None]
    return msgspec.structs.replace(
        intent,
        provider_payment_id=intent.provider_payment_id or next(iter(payment_ids), None),
        next_action=actions[-1] if actions else intent.next_action,
        authorization_expires_at=expiries[-1] if expiries else intent.authorization_expires_at,
    )
