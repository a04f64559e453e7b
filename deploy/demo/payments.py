"""The demonstration: one order from the quote to the refund, every request shown, and what happens when things race."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import UUID

import httpx
import msgspec
from rich.table import Table

from deploy.demo import parcels
from deploy.demo.shop import DemoFailed, Shop, console, insist, money, status, until
from deploy.state import ROOT, StackState
from shared.contracts.orders import OrderContent
from shared.contracts.payments import Ledger, PaymentView, SnapshotView
from shared.contracts.webhooks import EventPage, EventView
from shared.ids import new_id
from shared.money import Money, decimal_text

ORDERS = ROOT / "deploy" / "orders"
RACERS = 2


def read_order(file: Path | None) -> OrderContent:
    """Read an order from a JSON file; the plain one by default."""
    path = file or ORDERS / "plain.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=OrderContent)
    except OSError as missing:
        raise DemoFailed(f"{path} cannot be read: {missing.strerror}.") from missing
    except msgspec.ValidationError as unfit:
        raise DemoFailed(f"{path} is not an order: {unfit}.") from unfit
    except msgspec.DecodeError as broken:
        raise DemoFailed(f"{path} is not JSON: {broken}.") from broken


class Payer(msgspec.Struct, frozen=True):
    """How an order is paid with a provider: what the customer's browser sends besides the snapshot."""

    payment_method: str
    return_url: str | None = None


PAYERS = {"sandbox": Payer("tok_success"), "stripe": Payer("pm_card_visa", "https://shop.example/back")}


def run(state: StackState, order: OrderContent, provider: str, folder: Path) -> None:
    """Take an order through its whole life and show the ledger; the label is printed into the folder."""
    shop, order_id, run_id = Shop(state), new_id(), new_id().hex[-8:]
    console.rule(f"[bold]An order paid with {provider}, from the rates to the export")
    if provider == "stripe":
        console.print(f"Stripe is {state.stripe_url}\n")
    admin = f"/api/v1/admin/orders/{order_id}"
    shop.send("The shop pushes the order", "PUT", admin, order, key=f"order-{run_id}", expect=200)
    priced_here = order.shipping_amount is None and order.shipping_address is not None
    rate_id = parcels.choose(shop, order_id, run_id) if priced_here else None
    wanted = {"order_id": order_id, "payment_provider": provider, "shipping_rate_id": rate_id}
    quoted = shop.send("The checkout asks for a price", "POST", "/api/v1/checkout/quote", wanted, key=f"quote-{run_id}", expect=201)
    snapshot = msgspec.json.decode(quoted.content, type=SnapshotView)
    parcels.show_tax(snapshot)

    authorize = {"snapshot_id": snapshot.snapshot_id, **msgspec.to_builtins(PAYERS[provider])}
    path = f"/api/v1/checkout/orders/{order_id}/payments/authorize"
    first = shop.send("The customer pays: the money is held", "POST", path, authorize, key=f"pay-{run_id}", expect=201)
    again = shop.send("The same request again, as after a lost answer", "POST", path, authorize, key=f"pay-{run_id}", expect=201)
    insist(again.content == first.content, "the repeated request was answered differently")
    insist(again.headers.get("Idempotent-Replayed") == "true", "the repeated request was not a replay")
    console.print("  [green]the same bytes, and nothing was charged again[/green]\n")
    intent = msgspec.json.decode(first.content, type=PaymentView).intent

    payments = f"{admin}/payments/{intent.id}"
    part = 0
    if snapshot.providers["payment"].capabilities["multiple_captures"]:
        part = intent.authorized_amount * 2 // 3
        title = "The first parcel goes out: a part is captured"
        shop.send(title, "POST", f"{payments}/capture", {"amount": part}, key=f"part-{run_id}", expect=201)
    _race(shop, f"{payments}/capture", intent.authorized_amount - part, run_id)
    back = max(1, intent.authorized_amount // 3)
    refund = {"amount": back, "reason": "returned"}
    shop.send("One item comes back: a part is refunded", "POST", f"{payments}/refund", refund, key=f"back-{run_id}", expect=201)
    back += _refund_at_the_provider(shop, state, order_id, back)
    _show_ledger(shop, order_id, intent.authorized_amount, back)
    if priced_here:
        parcels.ship(shop, state, order_id, run_id, folder)
    if snapshot.tax_hash:
        parcels.close_tax(shop, order_id, snapshot, run_id)
    _show_events(shop, order_id)


def _refund_at_the_provider(shop: Shop, state: StackState, order_id: UUID, refunded: int) -> int:
    """Have the smallest amount refunded in the provider's dashboard, and wait until its webhook has told us; give the amount."""
    intent = _ledger(shop, order_id).payments[0].intent
    simulated = intent.provider != "stripe" or state.stripe_url == state.sandbox_url
    if not simulated and not state.stripe_tells:
        console.print("Stripe's webhooks do not reach this machine; with STRIPE_WEBHOOK_SECRET from `stripe listen` they do.\n")
        return 0
    console.print("[bold]Somebody refunds a little more in the provider's dashboard; only its webhook tells us[/bold]")
    started = time.monotonic()
    if simulated:
        httpx.post(f"{state.sandbox_url}/control/payments/{intent.provider_payment_id}/refund", json={"amount": 1}).raise_for_status()
    else:
        asked = {"payment_intent": intent.provider_payment_id, "amount": 1}
        httpx.post(f"{state.stripe_url}/v1/refunds", data=asked, auth=(os.environ["STRIPE_API_KEY"], "")).raise_for_status()
    until(lambda: _ledger(shop, order_id).payments[0].intent.refunded_amount == refunded + 1, "the refund did not arrive")
    console.print(f"  [green]in the ledger {(time.monotonic() - started) * 1000:.0f} ms later[/green]\n")
    return 1


def _ledger(shop: Shop, order_id: UUID) -> Ledger:
    answer, _ = shop.timed("GET", f"/api/v1/admin/orders/{order_id}/payments")
    return msgspec.json.decode(answer.content, type=Ledger)


def _events(shop: Shop, order_id: UUID) -> list[EventView]:
    answer, _ = shop.timed("GET", f"/api/v1/admin/webhooks/events?order_id={order_id}")
    return msgspec.json.decode(answer.content, type=EventPage).events


def _show_events(shop: Shop, order_id: UUID) -> None:
    told = _events(shop, order_id)
    if not told:
        return
    table = Table(title="What the provider told us by webhook", title_style="bold")
    for column in ("event", "status", "attempts", "received"):
        table.add_column(column, justify="right" if column == "attempts" else "left")
    for event in reversed(told):
        table.add_row(event.event_type, event.status, str(event.attempt_count), f"{event.received_at:%H:%M:%S.%f}"[:-3])
    console.print(table)


def _race(shop: Shop, path: str, rest: int, run_id: str) -> None:
    console.print(f"[bold]Two clerks capture the rest at the same moment[/bold]  POST {path}")
    with ThreadPoolExecutor(RACERS) as clerks:
        racing = [clerks.submit(shop.timed, "POST", path, {"amount": rest}, key=f"rest-{n}-{run_id}") for n in range(RACERS)]
    answers = [each.result() for each in racing]
    for answer, elapsed in answers:
        said = "captured" if answer.status_code == 201 else f"{answer.json()['code']}: {answer.json()['detail']}"
        console.print(f"  {status(answer)} in {elapsed * 1000:.0f} ms  {said}")
    insist(sorted(a.status_code for a, _ in answers) == [201, 409], "a racing double capture was not refused")
    console.print("  [green]one of them took the money, the other was refused[/green]\n")


def _show_ledger(shop: Shop, order_id: UUID, captured: int, refunded: int) -> None:
    ledger = _ledger(shop, order_id)
    table = Table(title=f"The ledger (order is {ledger.order_status})", title_style="bold")
    for column in ("operation", "status", "amount", "source", "provider's id", "at"):
        table.add_column(column, justify="right" if column == "amount" else "left")
    for payment in ledger.payments:
        for row in payment.transactions:
            amount = f"{decimal_text(Money(row.amount, row.currency))} {row.currency}"
            table.add_row(
                row.operation, row.status, amount, row.source, (row.provider_txn_id or "")[:16] + "…", f"{row.created_at:%H:%M:%S.%f}"[:-3]
            )
    console.print(table)
    intent = ledger.payments[0].intent
    insist((intent.captured_amount, intent.refunded_amount) == (captured, refunded), "the ledger does not add up")
    kept = money(intent.captured_amount - intent.refunded_amount, intent.currency)
    taken, returned = money(intent.captured_amount, intent.currency), money(intent.refunded_amount, intent.currency)
    console.print(f"Captured {taken}, refunded {returned}: {kept} kept. [green]The books agree.[/green]")
