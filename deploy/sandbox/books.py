"""The sandbox's own books: payments and their operations, kept in a file of its own, and its rules about amounts."""

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
        return self.moved("capture") - self.moved("refund") - lost

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
        # Told of every change of a payment: the change's name, the payment, and the operation that changed.
        self.tell: Callable[[str, Payment, Operation], None] = lambda *_: None
        for _, body in self._db.execute("SELECT id, body FROM payments ORDER BY id"):
            self._index(msgspec.json.decode(body, type=Payment))

    def close(self) -> None:
        """Close the file."""
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
        payment.operations.append(operation)
        self.keep(payment)
        self.tell(f"payment.{kind}.{status}", payment, operation)
        return operation

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
        self.add(payment, "refund", amount, **facts)
        return payment


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
