"""What an order comes to, where it stands by its ledger, and when it cannot be paid as asked: the rules alone, case by case."""

from typing import Any

import msgspec
import pytest

from services.payments.domain import declines, guards, orders
from services.payments.domain.intents import Observation, Operation, Source, Transaction, TransactionStatus, fold, observe
from services.payments.domain.orders import OrderStatus, OrderSums, order_status
from shared.contracts.orders import Address, OrderContent
from shared.contracts.payments import NextAction
from shared.errors import Invalid, Outcome, Refusal, Retry
from shared.ids import new_id
from shared.money import AMOUNT_MAX_MINOR_UNITS, Money
from tests.payments.test_reducer import AMOUNT, an_authorization, an_intent

VARIANT = "0192f0c1-7e00-7000-8000-000000000001"


def an_item(quantity: int = 3, unit_price: int = 500, *discounts: int) -> dict[str, Any]:
    adjustments = [{"label": f"D{n}", "amount": amount} for n, amount in enumerate(discounts)]
    return {"product_variant_id": VARIANT, "name": "Mug", "quantity": quantity, "unit_price": unit_price, "adjustments": adjustments}


def a_tax(amount: int, behavior: str = "exclusive", line: int | None = None) -> dict[str, Any]:
    return {"jurisdiction": "DE", "rate_percent": "19", "amount": amount, "behavior": behavior, **({} if line is None else {"line": line})}


def content(**facts: Any) -> OrderContent:
    return msgspec.convert({"currency": "EUR", "items": [an_item()], **facts}, OrderContent)


class TestPrice:
    def test_adds_up(self) -> None:
        priced = orders.price(
            content(
                items=[an_item(3, 500, 100, 50), an_item(1, 7)],
                shipping_amount=40,
                tax_lines=[a_tax(30), a_tax(11, line=1), a_tax(5, "inclusive", 0)],
            )
        )

        assert msgspec.to_builtins(priced.totals) == {
            "items": 1_507,
            "discounts": 150,
            "shipping": 40,
            "tax_exclusive": 41,
            "tax_inclusive": 5,
            "total": 1_357 + 40 + 41,
        }
        assert [(line.line, line.quantity, line.unit_price, line.discount, line.amount) for line in priced.lines] == [
            (0, 3, 500, 150, 1_350),
            (1, 1, 7, 0, 7),
        ]

    def test_goes_down_to_nothing_and_no_further(self) -> None:
        assert orders.price(content(items=[an_item(1, 100, 100)])).totals.total == 0
        with pytest.raises(Invalid, match="line 1"):
            orders.price(content(items=[an_item(), an_item(1, 100, 101)]))

    def test_goes_up_to_the_limit_and_no_further(self) -> None:
        assert orders.price(content(items=[an_item(1, AMOUNT_MAX_MINOR_UNITS - 1)], shipping_amount=1)).totals.total == 10**15
        with pytest.raises(Invalid, match="over"):
            orders.price(content(items=[an_item(1, AMOUNT_MAX_MINOR_UNITS)], shipping_amount=1))

    @pytest.mark.parametrize(("line", "fits"), [(0, True), (1, False), (2, False)])
    def test_a_tax_line_is_about_a_line_that_is_there(self, line: int, fits: bool) -> None:
        if fits:
            orders.price(content(tax_lines=[a_tax(1, line=line)]))
        else:
            with pytest.raises(Invalid, match="Tax line 0"):
                orders.price(content(tax_lines=[a_tax(1, line=line)]))


class TestWhatDiffers:
    def test_is_named_and_changes_the_hash(self) -> None:
        before = content()
        changes = {
            "currency": "USD",
            "items": [an_item(4)],
            "shipping_amount": 1,
            "tax_lines": [a_tax(1)],
            "shipping_address": {"name": "A", "street_address": "B", "city": "C", "country_code": "DE"},
            "cancelled": True,
        }

        assert orders.differing_fields(before, content()) == []
        assert orders.priced_hash(before) == orders.priced_hash(content())
        for field, value in changes.items():
            after = content(**{field: value})
            assert orders.differing_fields(before, after) == [field]
            assert orders.differing_fields(after, before) == [field]
            assert orders.priced_hash(before) != orders.priced_hash(after)

    def test_leaves_out_who_the_customer_is(self) -> None:
        assert orders.differing_fields(content(), content(customer_id=str(new_id()))) == []


class TestAddress:
    def test_is_normalised_and_keeps_what_was_typed(self) -> None:
        typed = msgspec.convert(
            {
                "name": " Ann ",
                "street_address": "Hauptstr. 1",
                "city": "berlin",
                "postal_code": "10115",
                "country_code": "DE",
                "phone": "1",
            },
            Address,
            strict=False,
        )

        found = orders.normalized(typed)

        assert found is not None
        assert (found.typed, found.doubts) == (typed, {})
        assert found.normalized["name"] == "Ann"
        assert "phone" not in found.normalized

    @pytest.mark.parametrize(("code", "doubtful"), [("DE", "postal_code"), ("XX", "country_code")])
    def test_says_what_is_doubtful(self, code: str, doubtful: str) -> None:
        typed = msgspec.convert({"name": "A", "street_address": "B", "city": "C", "postal_code": "?", "country_code": code}, Address)

        found = orders.normalized(typed)

        assert found is not None
        assert doubtful in found.doubts

    def test_may_be_missing(self) -> None:
        assert orders.normalized(None) is None


@pytest.mark.parametrize(
    ("total", "held", "captured", "returned", "pending", "cancelled", "status"),
    [
        (10, 0, 0, 0, False, False, "open"),
        (10, 0, 0, 0, False, True, "cancelled"),
        (10, 0, 0, 0, True, False, "payment_pending"),
        (10, 0, 0, 0, True, True, "payment_pending"),
        (10, 1, 0, 0, False, False, "authorized"),
        (10, 10, 0, 0, True, True, "authorized"),
        (10, 9, 1, 0, False, False, "partially_paid"),
        (10, 0, 9, 0, True, False, "partially_paid"),
        (10, 0, 10, 0, False, False, "paid"),
        (10, 0, 11, 0, False, False, "paid"),
        (10, 0, 10, 1, False, False, "partially_refunded"),
        (10, 5, 5, 4, False, False, "partially_refunded"),
        (10, 0, 0, 1, False, False, "partially_refunded"),
        (10, 0, 10, 10, False, False, "refunded"),
        (10, 0, 10, 11, False, False, "refunded"),
        (10, 0, 1, 1, False, False, "refunded"),
    ],
)
def test_an_order_stands_as_its_ledger_says(
    total: int, held: int, captured: int, returned: int, pending: bool, cancelled: bool, status: str
) -> None:
    sums = OrderSums(total=total, cancelled=cancelled, pending=pending, held=held, captured=captured, returned=returned)

    assert order_status(sums) is OrderStatus(status)


class TestSnapshot:
    def check(self, **changes: Any) -> str | None:
        facts: dict[str, Any] = {"expired": False, "snapshot_hash": b"m", "order_hash": b"m", "differing": ["items"], "cancelled": False}
        try:
            orders.check_snapshot(**{**facts, **changes})
        except Refusal as refusal:
            return refusal.code
        return None

    def test_stands_for_the_order_or_is_refused(self) -> None:
        assert self.check() is None
        assert self.check(cancelled=True, expired=True) == "order-cancelled"
        assert self.check(expired=True, order_hash=b"n") == "snapshot-expired"
        assert [self.check(order_hash=other) for other in (b"a", b"z")] == ["order-changed", "order-changed"]


class TestAmount:
    @pytest.mark.parametrize(("amount", "currency"), [(None, None), (100, None), (None, "EUR"), (100, "EUR")])
    def test_that_was_quoted_is_fine(self, amount: int | None, currency: str | None) -> None:
        orders.check_amount(amount=amount, currency=currency, expected_amount=100, expected_currency="EUR")

    @pytest.mark.parametrize(("amount", "currency"), [(99, None), (101, None), (None, "AUD"), (None, "USD"), (100, "USD"), (99, "EUR")])
    def test_that_was_not_is_refused(self, amount: int | None, currency: str | None) -> None:
        with pytest.raises(orders.AmountMismatch):
            orders.check_amount(amount=amount, currency=currency, expected_amount=100, expected_currency="EUR")


class TestCurrency:
    @pytest.mark.parametrize("currency", ["AUD", "USD"])
    def test_of_a_capture_is_the_payments(self, currency: str) -> None:
        intent = an_intent(status="authorized", authorized_amount=AMOUNT)

        with pytest.raises(Invalid, match=currency):
            guards.amount_to_capture(intent, 1, currency)

        assert guards.amount_to_capture(intent, 1, "EUR") == 1


class TestKey:
    @pytest.mark.parametrize("amount", [399, 401])
    def test_that_did_something_is_refused_for_another_amount(self, amount: int) -> None:
        row = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=400, status=TransactionStatus.SUCCEEDED, idempotency_key="k")

        assert guards.done_with_key([row], Operation.CAPTURE, "k", 400) is row
        assert guards.done_with_key([row], Operation.CAPTURE, "z", 400) is None
        with pytest.raises(guards.KeyUsed):
            guards.done_with_key([row], Operation.CAPTURE, "k", amount)


class TestAnswers:
    def problem(self, status: str, operation: str = "capture", code: str = "do_not_honor") -> Any:
        row = Transaction(id=new_id(), operation=Operation(operation), amount=1, status=TransactionStatus(status), decline_code=code)
        return declines.declined(an_intent(), row)

    def test_to_a_decline_and_to_what_was_never_executed_differ(self) -> None:
        assert (self.problem("declined").code, self.problem("declined").status) == ("payment-declined", 402)
        assert (self.problem("failed").code, self.problem("failed").status) == ("payment-not-executed", 409)
        assert self.problem("failed").outcome is Outcome.DECLINED

    def test_name_the_providers_code_or_the_general_one(self) -> None:
        assert self.problem("declined").facts["decline_code"] == "do_not_honor"
        assert self.problem("declined", code="").facts["decline_code"] == "generic_decline"

    def test_advise_only_an_authorization_to_try_otherwise(self) -> None:
        assert self.problem("declined", "capture", "expired_card").retry is Retry.NEVER
        assert self.problem("declined", "authorize", "expired_card").retry is Retry.NEW_METHOD

    def test_to_a_mismatch_are_a_conflict(self) -> None:
        row = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=1, status=TransactionStatus.SUCCEEDED)
        problem = declines.conflicted(an_intent(attention="less was done"), row)

        assert (problem.status, problem.outcome, problem.retry) == (409, Outcome.CONFLICT, Retry.NEVER)


class TestStatuses:
    def test_of_refusals_are_what_clients_build_on(self) -> None:
        assert {kind.__name__: kind.status for kind in (guards.AmountExceeded, guards.UnsupportedByProvider)} == {
            "AmountExceeded": guards.AmountExceeded.status,
            "UnsupportedByProvider": 422,
        }
        assert AMOUNT_MAX_MINOR_UNITS == 1_000_000_000_000_000


class TestOneObservation:
    """What the reducer takes from each word of a provider."""

    def told(self, row: Transaction, **facts: Any) -> tuple[Transaction, Any]:
        said: dict[str, Any] = {
            "operation": row.operation,
            "status": TransactionStatus.SUCCEEDED,
            "amount": row.amount,
            "currency": "EUR",
            "provider_payment_id": "pay_1",
            "provider_txn_id": "txn_1",
            "reference": row.id,
        }
        applied = observe(an_intent(), [row], [Observation(**{**said, **facts})], source=Source.WEBHOOK, ids=[new_id()])
        return applied.transactions[0], applied

    def test_changes_only_what_is_different(self) -> None:
        row, first = self.told(an_authorization())
        _, again = self.told(row)

        assert ([t.id for t in first.changed], first.added) == ([row.id], ())
        assert again.changed == ()

    def test_without_a_reference_is_matched_by_the_providers_name(self) -> None:
        row, _ = self.told(an_authorization())
        same, applied = self.told(row, reference=None)
        _, other = self.told(row, reference=new_id(), provider_txn_id="txn_2")

        assert (same, applied.added) == (row, ())
        assert len(other.added) == 1

    @pytest.mark.parametrize("currency", ["AUD", "USD"])
    def test_of_another_currency_contradicts(self, currency: str) -> None:
        known, _ = self.told(an_authorization(), currency=currency)
        _, applied = self.told(an_authorization(), currency=currency, reference=None)

        assert known.contradicted
        assert applied.added[0].contradicted

    def test_of_a_decline_moves_nothing(self) -> None:
        row, _ = self.told(an_authorization(), status=TransactionStatus.DECLINED, amount=7, currency="USD", decline_code="lost_card")

        assert (row.processed_amount, row.contradicted, row.decline_code) == (None, False, "lost_card")

    def test_of_more_than_before_counts_as_the_most(self) -> None:
        row, _ = self.told(an_authorization(), amount=400)
        more, _ = self.told(row, amount=500)
        less, _ = self.told(more, amount=300)

        assert [t.processed_amount for t in (row, more, less)] == [400, 500, 500]

    def test_waits_for_the_customer_only_while_it_is_open(self) -> None:
        action = NextAction(type="redirect", url="https://bank.example/3ds")
        waiting, _ = self.told(an_authorization(), status=TransactionStatus.PENDING, next_action=action)
        still, _ = self.told(waiting, status=TransactionStatus.PENDING)
        ended, _ = self.told(still)

        assert [t.awaiting_customer for t in (waiting, still, ended)] == [True, True, False]
        assert not self.told(an_authorization(), status=TransactionStatus.PENDING)[0].awaiting_customer

    def test_keeps_the_first_reason_and_the_words_of_the_last_step(self) -> None:
        row, _ = self.told(an_authorization(), status=TransactionStatus.PENDING, reason="asked", raw={"n": 1})
        same, _ = self.told(row, status=TransactionStatus.PENDING, reason="other", raw={"n": 2})
        ended, _ = self.told(same, reason="other", raw={"n": 3})

        assert [(t.reason, t.raw["n"]) for t in (row, same, ended)] == [("asked", 1), ("asked", 1), ("asked", 3)]


class TestRelease:
    def test_ends_what_waited_for_its_customer_and_keeps_an_earlier_code(self) -> None:
        waiting = an_authorization(awaiting_customer=True)
        refused = an_authorization(awaiting_customer=True, decline_code="authentication_failed")
        void = Observation(
            operation=Operation.VOID,
            status=TransactionStatus.SUCCEEDED,
            amount=0,
            currency="EUR",
            provider_payment_id="pay_1",
            provider_txn_id="voi_1",
        )

        rows = observe(an_intent(), [waiting, refused], [void], source=Source.WEBHOOK, ids=[new_id()]).transactions

        assert [(t.status.value, t.awaiting_customer, t.decline_code) for t in rows[:2]] == [
            ("failed", False, "released"),
            ("failed", False, "authentication_failed"),
        ]

    @pytest.mark.parametrize(("name", "ours"), [("pay_1", True), ("a_1", False), ("z_1", False)])
    def test_told_by_the_payments_own_name_is_the_one_under_way(self, name: str, ours: bool) -> None:
        held = an_authorization(TransactionStatus.SUCCEEDED)
        asked = Transaction(id=new_id(), operation=Operation.VOID, amount=AMOUNT, status=TransactionStatus.PENDING)
        void = Observation(
            operation=Operation.VOID,
            status=TransactionStatus.SUCCEEDED,
            amount=AMOUNT,
            currency="EUR",
            provider_payment_id="pay_1",
            provider_txn_id=name,
        )

        applied = observe(an_intent(), [held, asked], [void], source=Source.WEBHOOK, ids=[new_id()])

        assert ([t.id for t in applied.changed], len(applied.added)) == (([asked.id], 0) if ours else ([], 1))

    def test_leaves_nothing_for_a_capture_under_way(self) -> None:
        held = an_authorization(TransactionStatus.SUCCEEDED)
        capture = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=1, status=TransactionStatus.PENDING)
        void = Transaction(id=new_id(), operation=Operation.VOID, amount=AMOUNT, status=TransactionStatus.SUCCEEDED)

        assert fold(an_intent(), [held, capture]).attention is None
        assert fold(an_intent(), [held, capture, void]).attention == "a capture of 1 is under way and 0 is left"

    def test_leaves_nothing_for_a_refund_under_way_of_what_was_given_back(self) -> None:
        held = an_authorization(TransactionStatus.SUCCEEDED)
        taken = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=5, status=TransactionStatus.SUCCEEDED)
        back = Transaction(id=new_id(), operation=Operation.REFUND, amount=5, status=TransactionStatus.SUCCEEDED)
        more = Transaction(id=new_id(), operation=Operation.REFUND, amount=1, status=TransactionStatus.PENDING)

        assert fold(an_intent(), [held, taken, back]).attention is None
        assert fold(an_intent(), [held, taken, back, more]).attention == "a refund of 1 is under way and 0 is left"


class TestMoney:
    @pytest.mark.parametrize("other", ["AUD", "USD"])
    def test_of_two_currencies_is_never_added(self, other: str) -> None:
        with pytest.raises(Refusal):
            Money(1, "EUR") + Money(1, other)

    def test_is_ordered_and_never_changed(self) -> None:
        assert Money(1, "EUR") < Money(2, "EUR")
        with pytest.raises(AttributeError):
            Money(1, "EUR").amount = 2  # type: ignore[misc]
