"""The other half of an order's life: ways to ship, the label, the parcel on its way, the tax for good and its export."""

from pathlib import Path
from uuid import UUID

import httpx
import msgspec
from rich.table import Table

from deploy.demo.shop import Shop, console, insist, money, until
from deploy.state import StackState
from shared.contracts.fulfillment.pricing import RatesView
from shared.contracts.fulfillment.shipping import LabelResult, OrderTracking
from shared.contracts.fulfillment.tax import TaxDocumentView, TaxView
from shared.contracts.payments import SnapshotView

STOPS = 5
CSV_LINES_SHOWN = 6
CHOSEN = "ground"


def choose(shop: Shop, order_id: UUID, run_id: str) -> UUID | None:
    """Show the ways to ship an order, and choose one as a customer does."""
    path = f"/api/v1/checkout/orders/{order_id}/shipping/rates"
    answer = shop.send("The customer sees the ways to ship", "POST", path, {}, key=f"rates-{run_id}", expect=200)
    found = msgspec.json.decode(answer.content, type=RatesView)
    chosen = next((rate for rate in found.rates if rate.service == CHOSEN), found.rates[0])
    table = Table()
    for column in ("carrier", "service", "price", "days", "holds until"):
        table.add_column(column, justify="right" if column in ("price", "days") else "left")
    for rate in found.rates:
        mark = "[bold]" if rate is chosen else ""
        until_when = "" if rate.expires_at is None else f"{rate.expires_at:%Y-%m-%d %H:%M}"
        days = "" if rate.transit_days is None else str(rate.transit_days)
        table.add_row(rate.carrier, f"{mark}{rate.service}", f"{mark}{money(rate.amount, rate.currency)}", days, until_when)
    console.print(table, "")
    return chosen.id


def show_tax(snapshot: SnapshotView) -> None:
    """Show what a quote says of tax, and why."""
    table = Table(title="The tax in it", title_style="bold")
    for column in ("line", "tax", "rate", "on", "amount", "why"):
        table.add_column(column, justify="right" if column in ("rate", "on", "amount") else "left")
    for tax in snapshot.tax_lines:
        line = "shipping" if tax.line is None else snapshot.lines[tax.line].name
        on = "" if tax.taxable_amount is None else money(tax.taxable_amount, snapshot.currency)
        amount = money(tax.amount, snapshot.currency)
        table.add_row(
            line, tax.jurisdiction, f"{tax.rate_percent} %", on, amount, f"{tax.reason or 'the shop says so'}, {tax.behavior.value}"
        )
    console.print(table, "")
    for notice in snapshot.notices:
        console.print(f"  [yellow]{notice.code}[/yellow] {notice.detail}\n")


def ship(shop: Shop, state: StackState, order_id: UUID, run_id: str, folder: Path) -> None:
    """Buy the label, open it, and follow the parcel to its door."""
    admin = f"/api/v1/admin/orders/{order_id}/shipping/labels"
    bought = shop.send("The warehouse buys the label", "POST", admin, {}, key=f"label-{run_id}", expect=201)
    again = shop.send("And again, by mistake", "POST", admin, {}, key=f"label-again-{run_id}", expect=409)
    insist(again.json()["code"] == "label-exists", "a second label was bought")
    label = msgspec.json.decode(bought.content, type=LabelResult).label
    printed, _ = shop.timed("GET", f"{admin}/{label.id}/document")
    file = folder / f"label-{run_id}.pdf"
    file.write_bytes(printed.content)
    insist(printed.content.startswith(b"%PDF"), "the label is no PDF")
    number = label.tracking_numbers[0]
    console.print(f"  {label.carrier} {label.service}, parcel {number}; printed to [bold]{file}[/bold]\n")

    console.print("[bold]The parcel goes its way; the carrier tells by webhook, each time twice[/bold]")
    httpx.post(f"{state.sandbox_url}/control", json={"webhooks": {"doubled": 1.0}}).raise_for_status()
    for _ in range(STOPS):
        httpx.post(f"{state.sandbox_url}/control/parcels/{number}/move", json={}).raise_for_status()
    seen = until(lambda: _delivered(shop, order_id), "the parcel did not arrive")
    httpx.post(f"{state.sandbox_url}/control", json={"webhooks": {}}).raise_for_status()
    for event in seen.parcels[0].events:
        console.print(f"  {event.occurred_at:%H:%M:%S.%f}  {event.status:17} {event.detail}")
    insist(len(seen.parcels[0].events) == STOPS, "a sight was counted twice")
    console.print("  [green]delivered, and each sight counted once[/green]\n")


def _delivered(shop: Shop, order_id: UUID) -> OrderTracking | None:
    answer, _ = shop.timed("GET", f"/api/v1/checkout/orders/{order_id}/shipping/tracking")
    found = msgspec.json.decode(answer.content, type=OrderTracking)
    # The last sight may be told of before the others.
    return found if found.status == "delivered" and len(found.parcels[0].events) >= STOPS else None


def close_tax(shop: Shop, order_id: UUID, snapshot: SnapshotView, run_id: str) -> None:
    """Record the tax for good, show what the refunds took back of it, and export the day."""
    path = f"/api/v1/checkout/orders/{order_id}/tax/finalize"
    body = {"snapshot_id": snapshot.snapshot_id, "tax_hash": snapshot.tax_hash}
    first = shop.send("The tax is recorded for good", "POST", path, body, key=f"tax-{run_id}", expect=200)
    again = shop.send("Once more, with another key", "POST", path, body, key=f"tax-again-{run_id}", expect=200)
    insist(first.content == again.content, "finalizing twice gave two results")
    sale = msgspec.json.decode(first.content, type=TaxDocumentView)
    answer, _ = shop.timed("GET", f"/api/v1/admin/orders/{order_id}/tax")
    documents = msgspec.json.decode(answer.content, type=TaxView).documents
    for document in documents:
        console.print(f"  {document.kind:9} {money(document.tax_amount, document.currency):>12}  {len(document.lines)} lines")
    insist(documents[0] == sale, "the recorded tax is not what was answered")
    console.print("  [green]the same document, and what was refunded is reversed of it[/green]\n")
    day = f"{sale.document_date}"
    export, elapsed = shop.timed("GET", f"/api/v1/admin/tax/reports/export?from={day}&to={day}&format=itemized")
    insist(export.status_code == httpx.codes.OK, f"the export failed: {export.text}")
    lines = export.text.splitlines()
    console.print(f"[bold]The day's export[/bold]  GET /api/v1/admin/tax/reports/export?from={day}&to={day}&format=itemized")
    for line in lines[:CSV_LINES_SHOWN]:
        console.print(f"  [dim]{line}[/dim]", no_wrap=True, overflow="ellipsis", crop=True, soft_wrap=False)
    console.print(f"  {len(lines) - 1} lines in {elapsed * 1000:.0f} ms, sha256 kept with the export\n")
