"""The sandbox's own books: payments and their operations, kept in a file of its own, and its rules about amounts."""

import asyncio
import bisect
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from deploy.sandbox.tokens import METHODS, TOKENS, Act, Behaviour
from shared.ids import new_id


class Refused(Exception):
    """The sandbox says no to a request, with its reason."""

    def __init__(self, status: int, code: str, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.status, self.code, self.facts = status, code, facts


class Later(msgspec.Struct, frozen=True):
    """What time will do to an operation."""

    status: str
    at: str
    decline_code: str | None = None


class Operation(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One thing that happened to a payment."""

    id: str
    kind: str
    amount: int
    status: str
    created_at: str
    reference: str | None = None
    decline_code: str | None = None
    reason: str = ""
    final: bool = False
    next_action: dict[str, str] | None = None
    metadata: dict[str, str] = {}
    # The dispute that took or gave back its money.
    dispute: str | None = None
    later: Later | None = None
    # When it ended, where that was later than it began.
    ended_at: str | None = None


class Dispute(msgspec.Struct, kw_only=True):
    """A cardholder's objection, in Stripe's words; its money is moved by chargebacks and their reversals."""

    id: str
    amount: int
    status: str
    created_at: str


class Payment(msgspec.Struct, kw_only=True):
    """A payment as the sandbox sees it."""

    id: str
    reference: str | None = None
    order_id: str | None = None
    amount: int
    currency: str
    payment_method: str
    created_at: str
    authorization_expires_at: str | None
    operations: list[Operation]
    disputes: list[Dispute] = []
    # What only some faces know.
    metadata: dict[str, str] = {}
    capture_method: str = "manual"
    multicapture: bool = True
    return_url: str | None = None

    @property
    def made_at(self) -> datetime:
        """When it was made."""
        return datetime.fromisoformat(self.created_at)

    def moved(self, kind: str) -> int:
        """Add up what succeeded of one kind."""
        return sum(o.amount for o in self.operations if o.kind == kind and o.status == "succeeded")

    @property
    def released(self) -> bool:
        """Whether the rest of the hold was let go."""
        return any((o.kind == "void" or (o.kind == "capture" and o.final)) and o.status == "succeeded" for o in self.operations)

    @property
    def held(self) -> int:
        """What is still held."""
        return 0 if self.released else self.moved("authorize") - self.moved("capture")

    @property
    def refundable(self) -> int:
        """What can still be given back."""
        lost = self.moved("chargeback") - self.moved("chargeback_reversal")
        on_its_way = sum(o.amount for o in self.operations if o.kind == "refund" and o.status == "pending")
        return self.moved("capture") - self.moved("refund") - on_its_way - lost

    def of(self, dispute: Dispute) -> list[Operation]:
        """List what a dispute moved."""
        return [o for o in self.operations if o.dispute == dispute.id and o.status == "succeeded"]

    def lost_by(self, dispute: Dispute) -> int:
        """Tell how much a dispute has taken and not given back."""
        return sum(o.amount if o.kind == "chargeback" else -o.amount for o in self.of(dispute))

    @property
    def behaviour(self) -> Behaviour:
        """What this payment method does."""
        return METHODS[self.payment_method]


def now() -> datetime:
    """The sandbox's clock."""
    return datetime.now(UTC)


class Books:
    """Every payment the sandbox knows, also after a restart."""

    def __init__(self, file: Path | None) -> None:
        # Autocommit and no fsync: a simulator may forget its last milliseconds when the machine dies, not when it does.
        self._db = sqlite3.connect(str(file) if file else ":memory:", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE IF NOT EXISTS payments (id TEXT PRIMARY KEY, body BLOB NOT NULL)")
        self._db.execute("CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, digest TEXT NOT NULL, status INT, body BLOB)")
        self.payments: dict[str, Payment] = {}
        self._by_reference: dict[str, str] = {}
        # In order, so that a page of many is found without looking at all.
        self._ids: list[str] = []
        self.check_amounts = True
        self.check_keys = True
        # Told of every change of a payment: the change's name, the payment, and the operation or dispute that changed.
        self.tell: Callable[[str, Payment, Operation | Dispute], None] = lambda *_: None
        # Has something done in so many seconds; where nobody does, time is noticed when a payment is looked at.
        self.wake: Callable[[float, Callable[[], object]], asyncio.TimerHandle | None] = lambda *_: None
        self._alarms: list[asyncio.TimerHandle] = []
        for _, body in self._db.execute("SELECT id, body FROM payments ORDER BY id"):
            self._index(msgspec.json.decode(body, type=Payment))

    def close(self) -> None:
        """Close the file."""
        for alarm in self._alarms:
            alarm.cancel()
        self._db.close()

    def _index(self, payment: Payment) -> None:
        if payment.id not in self.payments:
            bisect.insort(self._ids, payment.id)
        self.payments[payment.id] = payment
        for reference in [payment.reference, *(o.reference for o in payment.operations)]:
            if reference is not None:
                self._by_reference[reference] = payment.id

    def keep(self, payment: Payment) -> Payment:
        """Write a payment down."""
        self._index(payment)
        self._db.execute(
            "INSERT INTO payments VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body",
            (payment.id, msgspec.json.encode(payment)),
        )
        return payment

    def forget(self, payment: Payment) -> None:
        """Strike a payment out, as if it had never been."""
        del self.payments[payment.id]
        self._ids.remove(payment.id)
        self._by_reference = {reference: known for reference, known in self._by_reference.items() if known != payment.id}
        self._db.execute("DELETE FROM payments WHERE id = ?", (payment.id,))

    def get(self, payment_id: str) -> Payment:
        """Find a payment, with what time has done to it."""
        payment = self.payments.get(payment_id)
        if payment is None:
            raise Refused(404, "resource_missing", f"No such payment: {payment_id}")
        return self._lapsed(payment)

    def find(self, reference: str) -> Payment | None:
        """Find a payment by a reference of it or of one of its operations."""
        payment_id = self._by_reference.get(reference)
        return None if payment_id is None else self._lapsed(self.payments[payment_id])

    def _lapsed(self, payment: Payment) -> Payment:
        expires = payment.authorization_expires_at
        if expires is not None and payment.held > 0 and datetime.fromisoformat(expires) <= now():
            self.add(payment, "void", payment.held, reason="expired")
        for operation in payment.operations:
            due = operation.later
            if due is not None and datetime.fromisoformat(due.at) <= now():
                self.settle(payment, operation, due.status, decline_code=due.decline_code)
        return payment

    def page(self, *, after: str, since: datetime | None, until: datetime | None, limit: int) -> tuple[list[Payment], str | None]:
        """List the payments of a time behind one of them, in the order of their ids; gives the page and the next page's cursor."""
        found: list[Payment] = []
        for payment_id in self._ids[bisect.bisect_right(self._ids, after) :]:
            payment = self.payments[payment_id]
            if (since is None or payment.made_at >= since) and (until is None or payment.made_at < until):
                found.append(payment)
            if len(found) > limit:
                break
        return [self._lapsed(payment) for payment in found[:limit]], found[limit - 1].id if len(found) > limit else None

    # Keys

    def answer_to(self, key: str) -> tuple[str, int, bytes] | None:
        """Look up what was answered to an idempotency key: the request's digest, status and body."""
        row = self._db.execute("SELECT digest, status, body FROM answers WHERE key = ?", (key,)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def keep_answer(self, key: str, digest: str, status: int, body: bytes) -> None:
        """Remember what was answered to an idempotency key."""
        self._db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?)", (key, digest, status, body))

    # What can be done

    def add(self, payment: Payment, kind: str, amount: int, *, status: str = "succeeded", **facts: Any) -> Operation:
        """Write an operation into a payment."""
        operation = Operation(
            id=f"{kind[:3]}_{new_id().hex}", kind=kind, amount=amount, status=status, created_at=now().isoformat(), **facts
        )
        dispute = _disputed(payment, operation) if kind in DISPUTED_MONEY and operation.dispute is None else None
        operation.dispute = operation.dispute if dispute is None else dispute.id
        payment.operations.append(operation)
        self.keep(payment)
        if dispute is not None:
            self.tell(f"payment.dispute.{_stage(dispute.status, opened=kind == 'chargeback')}", payment, dispute)
        self.tell(f"payment.{kind}.{status}", payment, operation)
        return operation

    def settle(self, payment: Payment, operation: Operation, status: str, *, decline_code: str | None = None) -> Payment:
        """Have a refund end, or fail after it had succeeded."""
        operation.status, operation.decline_code, operation.later, operation.ended_at = status, decline_code, None, now().isoformat()
        self.keep(payment)
        self.tell(f"payment.{operation.kind}.{status}", payment, operation)
        return payment

    def authorize(self, body: dict[str, Any], base_url: str) -> Payment:
        """Hold an amount as the payment method has it."""
        token = _text(body, "payment_method")
        if token not in TOKENS:
            raise Refused(400, "payment_method_unknown", f"No such payment method: {token}")
        payment = self.open(
            "pay",
            amount=_positive(body),
            currency=_text(body, "currency"),
            payment_method=token,
            reference=body.get("reference"),
            order_id=body.get("order_id"),
        )
        self.attempt(payment, base_url)
        return payment

    def open(self, prefix: str, *, amount: int, currency: str, payment_method: str, **facts: Any) -> Payment:
        """Begin a payment; nothing is written down before something happens to it."""
        return Payment(
            id=f"{prefix}_{new_id().hex}",
            amount=amount,
            currency=currency,
            payment_method=payment_method,
            created_at=now().isoformat(),
            authorization_expires_at=None,
            operations=[],
            **facts,
        )

    def attempt(self, payment: Payment, base_url: str, *, may_act: bool = True) -> None:
        """Try to hold a payment's amount; where its customer must act and may not, that is a decline."""
        behaviour, reference = payment.behaviour, payment.reference
        match behaviour.authorize:
            case Act.REQUIRE_ACTION if not may_act:
                self.add(
                    payment, "authorize", payment.amount, status="declined", decline_code="authentication_required", reference=reference
                )
            case Act.DECLINE:
                self.add(payment, "authorize", payment.amount, status="declined", decline_code=behaviour.decline_code, reference=reference)
            case Act.REQUIRE_ACTION:
                action = {"type": "redirect", "url": f"{base_url}/3ds/{payment.id}"}
                self.add(payment, "authorize", payment.amount, status="pending", next_action=action, reference=reference)
            case Act.PENDING:
                self.add(payment, "authorize", payment.amount, status="pending", reference=reference)
            case _:
                self._start_hold(payment)
                amount = max(1, payment.amount // 2) if behaviour.authorize is Act.PARTIAL else payment.amount
                self.add(payment, "authorize", amount, reference=reference)
                self._capture_at_once(payment)

    def _capture_at_once(self, payment: Payment) -> None:
        if payment.capture_method == "automatic":
            self.capture(payment, {"amount": payment.held, "final": True})

    def _start_hold(self, payment: Payment) -> None:
        lifetime = timedelta(seconds=payment.behaviour.authorization_lifetime_seconds)
        payment.authorization_expires_at = (now() + lifetime).isoformat()

    def decide(self, payment: Payment, *, passed: bool) -> Payment:
        """Settle an authorization that was pending: the customer or the bank has decided."""
        for operation in payment.operations:
            if operation.kind == "authorize" and operation.status == "pending":
                operation.next_action = None
                operation.status = "succeeded" if passed else "declined"
                operation.decline_code = None if passed else "authentication_failed"
                if passed:
                    self._start_hold(payment)
                self.keep(payment)
                self.tell(f"payment.authorize.{operation.status}", payment, operation)
                if passed:
                    self._capture_at_once(payment)
        return payment

    def confirm(self, payment: Payment) -> Payment:
        """Go on after the customer acted; the page's word counts, else the token's."""
        if payment.behaviour.confirm is not None:
            self.decide(payment, passed=payment.behaviour.confirm is not Act.DECLINE)
        return payment

    def capture(self, payment: Payment, body: dict[str, Any]) -> Payment:
        """Take an amount that is held."""
        amount, final, reference = _positive(body), bool(body.get("final")), body.get("reference")
        if payment.behaviour.capture is Act.DECLINE:
            self.add(payment, "capture", amount, status="declined", decline_code=payment.behaviour.decline_code, reference=reference)
            return payment
        if self.check_amounts and amount > payment.held:
            raise Refused(400, "amount_too_large", f"{amount} is more than the {payment.held} held")
        payment.metadata = {**payment.metadata, **body.get("metadata", {})}
        self.add(payment, "capture", amount, final=final, reference=reference)
        if payment.behaviour.disputed and payment.moved("chargeback") == 0:
            self.add(payment, "chargeback", amount, reason="fraudulent")
        return payment

    def void(self, payment: Payment, body: dict[str, Any]) -> Payment:
        """Let go of what is held, or of an authorization that waits for its customer."""
        pending = any(o.kind == "authorize" and o.status == "pending" for o in payment.operations)
        if self.check_amounts and payment.held <= 0 and not pending:
            raise Refused(400, "nothing_to_void", "Nothing is held")
        for operation in payment.operations:
            if operation.kind == "authorize" and operation.status == "pending":
                operation.status, operation.decline_code, operation.next_action = "failed", "released", None
                self.tell("payment.authorize.failed", payment, operation)
        self.add(payment, "void", payment.held, reference=body.get("reference"), reason=str(body.get("reason") or ""))
        return payment

    def refund(self, payment: Payment, body: dict[str, Any]) -> Payment:
        """Give an amount back."""
        amount = _positive(body)
        facts = {"reference": body.get("reference"), "metadata": body.get("metadata", {}), "reason": str(body.get("reason") or "")}
        if payment.behaviour.refund is Act.DECLINE:
            self.add(payment, "refund", amount, status="declined", decline_code=payment.behaviour.decline_code, **facts)
            return payment
        if self.check_amounts and amount > payment.refundable:
            raise Refused(400, "amount_too_large", f"{amount} is more than the {payment.refundable} that can be refunded")
        act, later = payment.behaviour.refund, None
        if act in (Act.SUCCEED_LATER, Act.FAIL_LATER):
            at = (now() + timedelta(seconds=payment.behaviour.later_seconds)).isoformat()
            fails = act is Act.FAIL_LATER
            later = Later("failed", at, payment.behaviour.decline_code) if fails else Later("succeeded", at)
            alarm = self.wake(payment.behaviour.later_seconds, lambda: self._lapsed(payment))
            self._alarms += [] if alarm is None else [alarm]
        status = "pending" if act in (Act.PENDING, Act.SUCCEED_LATER) else "succeeded"
        self.add(payment, "refund", amount, status=status, later=later, **facts)
        return payment

    def settle_refund(self, payment: Payment, status: str, body: dict[str, Any]) -> Payment:
        """Have a refund succeed, fail or be cancelled: the one that is named, else the latest that still can."""
        ends = {"refund_succeed": "succeeded", "refund_fail": "failed", "refund_cancel": "failed"}
        code = None if status == "refund_succeed" else body.get("reason") or REFUND_FAILURES[status]
        movable = ("pending", "succeeded") if ends[status] == "failed" else ("pending",)
        refunds = [o for o in payment.operations if o.kind == "refund" and o.status in movable and body.get("id") in (None, o.id)]
        if not refunds:
            raise Refused(400, "no_such_refund", "There is no refund of which that could become")
        return self.settle(payment, refunds[-1], ends[status], decline_code=code)

    def dispute(self, payment: Payment, body: dict[str, Any]) -> Payment:
        """Open a dispute, or have the latest (or the one that is named) turn, and move its money as Stripe does.

        `returned` is what a lost one gives back all the same (support.stripe.com: "partially won"), and so never the whole: one that
        gave back all of it is won. `withdrawn` has one that was prevented take its money, as Visa's Rapid Dispute Resolution does.
        """
        status, amount = _text(body, "status"), body.get("amount", payment.amount)
        found = [d for d in payment.disputes if body.get("id") in (None, d.id)]
        known = None if body.get("new") or not found else found[-1]
        dispute = known or Dispute(id=f"dp_{new_id().hex}", amount=amount, status=status, created_at=now().isoformat())
        if known is None:
            payment.disputes.append(dispute)
        dispute.status = status
        self.keep(payment)
        self.tell(f"payment.dispute.{_stage(status, opened=known is None)}", payment, dispute)
        self._move_disputed(payment, dispute, body)
        return payment

    def _move_disputed(self, payment: Payment, dispute: Dispute, body: dict[str, Any]) -> None:
        out = payment.lost_by(dispute)
        taken = dispute.status == "lost" or (dispute.status == "prevented" and bool(body.get("withdrawn")))
        taken = taken or (dispute.status in DISPUTED and not payment.of(dispute))
        if taken and out == 0:
            self.add(payment, "chargeback", dispute.amount, reason="fraudulent", dispute=dispute.id)
        if dispute.status == "won" or (dispute.status == "prevented" and not taken):
            back = out
        else:
            back = min(body.get("returned", 0), payment.lost_by(dispute) - 1) if dispute.status == "lost" else 0
        if back > 0:
            self.add(payment, "chargeback_reversal", back, dispute=dispute.id)


# Why a refund failed where nobody says it (docs.stripe.com/api/refunds/object#refund_object-failure_reason).
REFUND_FAILURES = {"refund_fail": "expired_or_canceled_card", "refund_cancel": "merchant_request"}
# What has taken the money and is not decided.
DISPUTED = frozenset({"needs_response", "under_review", "appeal_needs_response", "appeal_under_review"})
CLOSED = frozenset({"won", "lost", "prevented", "warning_closed"})


DISPUTED_MONEY = ("chargeback", "chargeback_reversal")


def _disputed(payment: Payment, operation: Operation) -> Dispute | None:
    """Find the dispute of money that was just moved without one: a new one, or the latest that still holds any."""
    if operation.kind == "chargeback":
        made = Dispute(
            id=f"dp_{operation.id.split('_', 1)[1]}", amount=operation.amount, status="needs_response", created_at=operation.created_at
        )
        payment.disputes.append(made)
        return made
    holding = [d for d in payment.disputes if payment.lost_by(d) > 0]
    if not holding:
        return None
    holding[-1].status = "won" if operation.amount >= payment.lost_by(holding[-1]) else "lost"
    return holding[-1]


def _stage(status: str, *, opened: bool) -> str:
    if opened:
        return "created"
    return "closed" if status in CLOSED else "updated"


def _positive(body: dict[str, Any]) -> int:
    amount = body.get("amount")
    if not isinstance(amount, int) or isinstance(amount, bool) or amount <= 0:
        raise Refused(400, "amount_invalid", "amount must be a positive integer of minor units")
    return amount


def _text(body: dict[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise Refused(400, "parameter_missing", f"{name} is missing")
    return value
