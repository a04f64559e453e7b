"""Looking around on the command line: how everything is, orders and what happened to them, what needs somebody, calls, traces."""

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import click

from deploy.cli.attending import attends
from deploy.operator import Api, table

BAR_CHARACTERS = 40


@click.command(name="overview")
@attends
def overview(api: Api) -> None:
    """How every service is, and what waits for somebody."""
    told = api.get("overview")
    rows = [{**each, **(each["vitals"] or {}), "up": "up" if each["up"] else "DOWN"} for each in told["services"]]
    replicas = [{**replica, "service": row["service"]} for row in rows for replica in row.get("replicas", ())]
    for row in [*rows, *replicas]:
        # An operator's key alone is shown how fast the installation works.
        row["per_second"] = f"{row['handled_per_second']:.1f}" if "handled_per_second" in row else ""
        row["p95_ms"] = f"{row['p95_seconds'] * 1000:.1f}" if "p95_seconds" in row else ""
    click.echo(table(rows, "service", "up", "depth", "in_flight", "dead_letters", "per_second", "p95_ms"))
    click.echo("\nReplicas, whose sum is above (of p95, the largest):")
    click.echo(table(replicas, "name", "service", "started_at", "in_flight", "per_second", "p95_ms") + "\n")
    counts = {"unknown outcomes": told["unknown_outcomes"], "open differences": told["drift_open"]}
    for what, count in counts.items():
        click.echo(f"{what}: {'not known, its service is down' if count is None else count}")


@click.group(name="orders")
def orders() -> None:
    """Orders, and everything that happened to one."""


@orders.command(name="ls")
@click.option("--status", help="open, paid, partially_refunded …")
@click.option("--text", help="An id of the order, its customer, a payment, or what the provider calls it.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@attends
def list_orders(api: Api, **chosen: Any) -> None:
    """List them, the newest first."""
    found = api.get("orders", **chosen)["orders"]
    click.echo(table(found, "id", "status", "total", "currency", "provider", "payment_status", "attention", "created_at"))


@orders.command(name="timeline")
@click.argument("order_id", type=click.UUID)
@click.option("--facts", is_flag=True, help="With what is known of each.")
@attends
def show_timeline(api: Api, order_id: UUID, facts: bool) -> None:
    """Show what happened to one, as every service tells it."""
    told = api.get(f"orders/{order_id}/timeline")
    for each in told["entries"]:
        declined = each["facts"].get("decline_code")
        click.echo(f"{each['at']}  {each['service']:12}{each['title']}{f' ({declined})' if declined else ''}  {each['actor']}".rstrip())
        if facts and each["facts"]:
            click.echo(f"    {json.dumps(each['facts'])}")
    for service in told["missing"]:
        click.echo(f"{service} does not answer; what it knows is missing here.", err=True)


@click.command(name="attention")
@click.option("--hours", "expiring_within_hours", type=click.FloatRange(0, 720), default=48.0, show_default=True)
@attends
def attention(api: Api, expiring_within_hours: float) -> None:
    """Payments in conflict, money that no order owes, and holds that end soon; for unknown outcomes see ./tender outcomes.

    ./tender payments accept and give-back settle the first two.
    """
    told = api.get("payments/attention", expiring_within_hours=expiring_within_hours)
    click.echo("In conflict:")
    click.echo(table(told["conflicted"], "id", "order_id", "version", "provider", "status", "attention"))
    click.echo("\nMoney that no order owes:")
    click.echo(table(told["overpaid"], "id", "order_id", "version", "provider", "status", "overpaid_amount", "currency"))
    click.echo(f"\nHolds that end within {expiring_within_hours:g} hours:")
    amounts = ("authorized_amount", "captured_amount", "currency")
    click.echo(table(told["expiring"], "id", "order_id", "provider", *amounts, "authorization_expires_at"))


@click.command(name="calls")
@click.option("--provider")
@click.option("--operation")
@click.option("--classification", type=click.Choice(["answered", "sent_no_answer", "not_sent"]))
@click.option("--refused", is_flag=True, help="Only those that were answered with 400 or more.")
@click.option("--request", "correlation_id", help="Of one request, by its correlation id.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@click.option("--bodies", is_flag=True, help="With what was sent and answered, as far as it is kept.")
@attends
def calls(api: Api, refused: bool, bodies: bool, **chosen: Any) -> None:
    """Calls to providers, the newest first."""
    found = api.get("provider-calls", status_from=400 if refused else None, **chosen)["calls"]
    click.echo(table(found, "called_at", "provider", "operation", "classification", "status", "latency_ms", "path", "correlation_id"))
    for each in found if bodies else ():
        click.echo(f"\n{each['called_at']} {each['operation']}\n  → {json.dumps(each['request'])}\n  ← {json.dumps(each['response'])}")


@click.command(name="audit")
@click.option("--text", help="A part of who did it, what was done, or what it was about.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@attends
def audit(api: Api, text: str | None, limit: int) -> None:
    """What staff did, the newest first."""
    told = api.get("audit", text=text, limit=limit)
    click.echo(table(told["actions"], "happened_at", "actor", "action", "subject", "reason"))
    for service in told["missing"]:
        click.echo(f"{service} does not answer; what it knows is missing here.", err=True)


@click.group(name="traces")
def traces() -> None:
    """Where a request's time went, of those that were traced in the last day."""


@traces.command(name="ls")
@click.option("--at-least-ms", type=click.IntRange(0, 3_600_000), default=0)
@click.option("--failed", is_flag=True)
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@attends
def list_traces(api: Api, at_least_ms: int, failed: bool, limit: int) -> None:
    """List them, the newest first."""
    found = api.get("traces", at_least_ms=at_least_ms, failed="true" if failed else None, limit=limit)["traces"]
    rows = [{**each, "ms": f"{each['duration_us'] / 1000:.1f}", "request": each["attributes"].get("correlation_id")} for each in found]
    click.echo(table(rows, "trace_id", "started_at", "ms", "name", "request"))


@traces.command(name="show")
@click.argument("trace_or_request")
@attends
def show_trace(api: Api, trace_or_request: str) -> None:
    """Show one, by its own id or by its request's correlation id."""
    found = api.get(f"traces/for/{trace_or_request}")["traces"] or [api.get(f"traces/{trace_or_request}")]
    for trace in found:
        whole = max(1, trace["duration_us"])
        click.echo(f"{trace['trace_id']}  {trace['started_at']}  {whole / 1000:.1f} ms")
        begun = _seconds(trace["started_at"])
        for span in trace["spans"]:
            before = round((_seconds(span["started_at"]) - begun) * 1e6 / whole * BAR_CHARACTERS)
            length = max(1, round(span["duration_us"] / whole * BAR_CHARACTERS))
            bar = (" " * min(before, BAR_CHARACTERS - 1) + "█" * length)[:BAR_CHARACTERS]
            click.echo(
                f"{bar:{BAR_CHARACTERS}} {span['duration_us'] / 1000:9.1f} ms  {'  ' * span['depth']}{span['service']} {span['name']}"
            )


def _seconds(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
