"""Payout reports: read as their mapping says, matched with the ledger fees and all, and what does not fit is found."""

import csv
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from deploy import settlements
from shared.ids import new_id
from tests.reconciler.books import a_run, drift
from tests.world import MUG, Answer, Payment, Place, World, a_world

# The columns of Stripe's itemized payout reconciliation report that its mapping reads, and some that it does not
# (docs.stripe.com/reports/report-types/payout-reconciliation).
COLUMNS = (
    *("automatic_payout_id", "automatic_payout_effective_at_utc", "balance_transaction_id", "created_utc", "available_on_utc"),
    *("reporting_category", "currency", "gross", "fee", "net", "customer_facing_amount", "customer_facing_currency", "description"),
    *("charge_id", "payment_intent_id"),
)


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, reconciler={}, provider="stripe") as made:
        yield made


def a_line(payment: Payment | str, category: str, gross: str, fee: str = "0.00", **more: str) -> dict[str, str]:
    """A line of the report; amounts in the main unit."""
    payment_id = payment if isinstance(payment, str) else payment.at_the_provider().id
    net = f"{float(gross) - float(fee):.2f}"
    said = {"reporting_category": category, "currency": "eur", "gross": gross, "fee": fee, "net": net, "payment_intent_id": payment_id}
    usual = {"balance_transaction_id": f"txn_{new_id().hex}", "automatic_payout_id": "po_1", "available_on_utc": "2026-11-20 00:00:00"}
    return {**usual, **said, **more}


def a_report(tmp_path: Path, *lines: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> settlements.Report:
    file = tmp_path / f"{new_id().hex}.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(lines)
    return settlements.Report(file, settlements.mapping_of("stripe-payouts"))


async def brought_in(world: World, report: settlements.Report) -> list[Any]:
    answers: list[Answer] = [
        await world.send("POST", "/api/v1/admin/reconciliation/settlements", settlements.body_of(report, piece))
        for piece in report.pieces()
    ]
    assert {answer.status for answer in answers} == {200}, answers
    return [answer.json for answer in answers]


async def settled(world: World, payment: Payment) -> list[Any]:
    ledger = await world.ledger(payment.order_id)
    return [(s["category"], s["gross"], s["fee"], s["net"], s["currency"]) for p in ledger["payments"] for s in p["settlements"]]


async def test_matched_with_the_ledger_fees_and_all_and_once(world: World, tmp_path: Path) -> None:
    payment = await world.a_captured_payment()
    await payment.refund(2_000)
    report = a_report(
        tmp_path,
        a_line(payment, "charge", "100.00", "1.75"),
        a_line(payment, "refund", "-20.00"),
        a_line("", "payout", "-78.25"),
        a_line("", "fee", "-2.00"),
    )

    [first] = await brought_in(world, report)
    [second] = await brought_in(world, report)

    assert (first["matched"], first["repeated"], first["differing"]) == (2, 0, [])
    assert (second["matched"], second["repeated"], second["differing"]) == (0, 2, [])
    assert await settled(world, payment) == [("charge", 10_000, 175, 9_825, "EUR"), ("refund", -2_000, 0, -2_000, "EUR")]
    assert report.left_out == {"payout": 2, "fee": 2}
    run = (await world.send("GET", f"/api/v1/admin/reconciliation/runs/{first['run_id']}")).json
    assert (run["source"], run["status"], run["compared"]) == ("settlement", "completed", 4)
    assert await drift(world, status="open") == []


async def test_a_refund_that_failed_is_settled_by_both_its_lines(world: World, tmp_path: Path) -> None:
    """C05: what a refund took and what its failure gave back (docs.stripe.com/reports/reporting-categories, "refund_failure")."""
    payment = await world.a_captured_payment()
    await payment.refund(2_000)
    failed = f"{world.sandbox.base_url}/control/payments/{payment.at_the_provider().id}/refund_fail"
    assert (await world.http.post(failed)).status_code == 200
    await a_run(world)
    lines = [a_line(payment, "refund_failure", "20.00"), a_line(payment, "refund", "-20.00"), a_line(payment, "refund", "-20.00")]

    [answer] = await brought_in(world, a_report(tmp_path, *lines))

    assert (answer["matched"], len(answer["differing"])) == (2, 1)
    shown = await settled(world, payment)
    assert [each[:2] for each in shown][:2] == [("refund_failure", 2_000), ("refund", -2_000)]


async def test_settled_in_another_currency_by_what_the_customer_saw(world: World, tmp_path: Path) -> None:
    payment = await world.a_payment(currency="USD")
    assert (await payment.capture()).status == 201
    line = a_line(payment, "charge", "91.37", "2.05", customer_facing_amount="100.00", customer_facing_currency="usd")

    [answer] = await brought_in(world, a_report(tmp_path, line))

    assert (answer["matched"], answer["differing"]) == (1, [])
    assert await settled(world, payment) == [("charge", 9_137, 205, 8_932, "EUR")]


async def test_what_does_not_fit_is_a_difference(world: World, tmp_path: Path) -> None:
    less, stranger = await world.a_captured_payment(), f"pi_{new_id().hex}"
    never_refunded = await world.a_captured_payment()
    lines = (a_line(less, "charge", "99.00", "1.00"), a_line(stranger, "charge", "5.00"), a_line(never_refunded, "refund", "-1.00"))

    [answer] = await brought_in(world, a_report(tmp_path, *lines))

    assert sorted(each["result"] for each in answer["differing"]) == ["amount", "missing", "missing"]
    found = {item["key"]: item for item in await drift(world, status="open") if item["last_run_id"] == answer["run_id"]}
    keys = [less.at_the_provider().id, stranger, never_refunded.at_the_provider().id]
    assert [found[key]["type"] for key in keys] == ["amount", "missing_locally", "missing_locally"]
    assert (found[keys[0]]["ours"]["amount"], found[keys[0]]["theirs"]["amount"]) == (10_000, 9_900)


async def test_two_captures_of_one_payment_are_two_lines(world: World, tmp_path: Path) -> None:
    payment = await world.a_payment()
    assert (await payment.capture(4_000)).status == 201
    assert (await payment.capture(6_000)).status == 201
    lines = (a_line(payment, "charge", "60.00"), a_line(payment, "charge", "40.00"), a_line(payment, "charge", "40.00"))

    [answer] = await brought_in(world, a_report(tmp_path, *lines))

    assert (answer["matched"], [each["result"] for each in answer["differing"]]) == (2, ["missing"])


@pytest.mark.parametrize(
    "unfit",
    [
        {"gross": 10**19, "net": 10**19},
        {"gross": 2**63, "net": 2**63},
        {"net": 1},
        {"customer_amount": -1},
        {"settled_at": "0001-01-01T00:00:00+23:59"},
        {"settled_at": "9999-12-31T23:59:59-23:59"},
        {"settled_at": "2026-11-20T00:00:00"},
        {"key": "k" * 10_000},
        {"key": "a\0b"},
    ],
    ids=lambda unfit: "-".join(unfit),
)
async def test_a_line_that_no_table_can_hold_is_refused(world: World, tmp_path: Path, unfit: dict[str, Any]) -> None:
    """F6: it was accepted, and its command died in payments."""
    report = a_report(tmp_path, a_line("pi_1", "charge", "1.00"))
    [piece] = report.pieces()
    body = settlements.body_of(report, piece)
    body["lines"] = [{**line, **unfit} for line in body["lines"]]

    answer = await world.send("POST", "/api/v1/admin/reconciliation/settlements", body)

    assert (answer.status, answer.code) == (422, "invalid-request")


async def test_the_largest_payout_is_taken(world: World, tmp_path: Path) -> None:
    """F1: a payment of 10^15 paid out in a currency of which a thousand times as many minor units are the same."""
    line = a_line("pi_1", "charge", "1.00")
    report = a_report(tmp_path, line)
    [piece] = report.pieces()
    body = settlements.body_of(report, piece)
    payment = await world.a_payment(items=[{**MUG, "quantity": 1, "unit_price": 99_999_999}])
    assert (await payment.capture()).status == 201
    settled_line = {"payment": payment.at_the_provider().id, "gross": 10**18, "fee": 10**17, "net": 9 * 10**17}
    body["lines"] = [{**body["lines"][0], **settled_line, "customer_amount": 99_999_999, "customer_currency": "EUR"}]

    answer = await world.send("POST", "/api/v1/admin/reconciliation/settlements", body)

    assert (answer.status, answer.json["matched"]) == (200, 1), answer
    assert (await settled(world, payment))[0][1:4] == (10**18, 10**17, 9 * 10**17)


async def test_what_no_report_has_mentioned_is_listed(world: World, tmp_path: Path) -> None:
    settled_payment, forgotten = await world.a_captured_payment(), await world.a_captured_payment()
    await settled_payment.refund(500)
    await brought_in(world, a_report(tmp_path, a_line(settled_payment, "charge", "100.00")))
    times = "since=2020-01-01T00:00:00Z&until=2100-01-01T00:00:00Z"

    answer = await world.send("GET", f"/api/v1/admin/reconciliation/unsettled?provider=stripe&{times}")
    earlier = await world.send(
        "GET", "/api/v1/admin/reconciliation/unsettled?provider=stripe&since=2020-01-01T00:00:00Z&until=2020-02-01T00:00:00Z"
    )

    orders = {str(settled_payment.order_id), str(forgotten.order_id)}
    found = [(t["operation"], t["order_id"], t["amount"]) for t in answer.json["transactions"] if t["order_id"] in orders]
    assert sorted(found) == sorted([("refund", str(settled_payment.order_id), 500), ("capture", str(forgotten.order_id), 10_000)])
    assert earlier.json["transactions"] == []


class TestTheFile:
    def test_a_column_that_is_missing_is_named(self, tmp_path: Path) -> None:
        report = a_report(tmp_path, columns=tuple(column for column in COLUMNS if column != "fee"))

        with pytest.raises(settlements.ReportRefused, match="no column 'fee'"):
            list(report.lines())

    @pytest.mark.parametrize(("field", "value"), [("gross", "1.005"), ("gross", "much"), ("currency", "xx"), ("available_on_utc", "soon")])
    def test_a_line_that_cannot_be_read_is_named(self, tmp_path: Path, field: str, value: str) -> None:
        report = a_report(tmp_path, a_line("pi_1", "charge", "1.00"), {**a_line("pi_1", "charge", "1.00"), field: value})

        with pytest.raises(settlements.ReportRefused, match="line 3"):
            list(report.lines())

    def test_mappings_that_do_not_exist_are_refused_with_those_that_do(self) -> None:
        with pytest.raises(settlements.ReportRefused, match="stripe-payouts"):
            settlements.mapping_of("nobody")

    def test_is_read_in_pieces(self, tmp_path: Path) -> None:
        report = a_report(tmp_path, *(a_line("pi_1", "charge", "1.00") for _ in range(401)))

        assert [len(piece) for piece in report.pieces()] == [200, 200, 1]
