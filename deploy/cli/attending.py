"""Attending to a running system: reconciliation, unknown outcomes, payments that need attention, webhook events."""

import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from functools import wraps
from pathlib import Path
from typing import Any
from uuid import UUID

import click
import msgspec

from deploy import settlements
from deploy.cli.terminal import main_instance, say
from deploy.operator import Api, Refused, table
from deploy.processes import Failed
from shared.contracts.books import Domain

WAIT_TIMEOUT_SECONDS = 24 * 3600.0
POLL_SECONDS = 0.5
PAYOUT_DAYS = 14
UNSETTLED_LOOK_BACK_DAYS = 60
PAYMENT_COLUMNS = ("id", "order_id", "status", "authorized_amount", "captured_amount", "refunded_amount", "attention")

_moment = click.DateTime(formats=["%Y-%m-%dT%H:%M:%S%z", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d"])


def attends(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the system it attends to: the one that is up, or the one that --url and --key name."""

    @click.option("--url", envvar="TENDER_URL", help="The gateway; the running stack's by default.")
    @click.option("--key", envvar="TENDER_KEY", help="A staff key; the running stack's by default.")
    @click.option("--in-store", envvar="TENDER_STORE", help="The id of another store, with an operator's key; the key's own by default.")
    @wraps(command)
    def with_api(*args: Any, url: str | None, key: str | None, in_store: str | None, **how: Any) -> None:
        with closing(_api(url, key, in_store)) as api:
            command(api, *args, **how)

    return with_api


def _api(url: str | None, key: str | None, store: str | None) -> Api:
    if url and key:
        return Api(url, key, store=store)
    state = main_instance().stack()
    if state is None:
        raise Failed("Nothing is up; start it with ./tender up, or give --url and --key.")
    # The operator's key alone works in other stores.
    return Api(state.gateway_url, state.operator_key if store else state.api_key, store=store)


def _utc(moment: datetime | None) -> datetime | None:
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)


@click.group()
def reconcile() -> None:
    """Compare our books with the providers', and settle what differs."""


@reconcile.command(name="run")
@click.argument("domain", type=click.Choice([each.value for each in Domain]))
@click.option("--provider", required=True, help="Whose books: sandbox, stripe, easypost, taxjar, ...")
@click.option("--since", type=_moment, help="From this moment on; 48 hours ago by default.")
@click.option("--until", type=_moment, help="Before this moment; now by default.")
@click.option("--wait", is_flag=True, help="Wait until it is complete.")
@attends
def start_run(api: Api, domain: str, provider: str, since: datetime | None, until: datetime | None, wait: bool) -> None:
    """Compare the books of a time."""
    last = _utc(until) or datetime.now(UTC)
    first = _utc(since) or last - timedelta(hours=48)
    body = {"domain": domain, "provider": provider, "since": first.isoformat(), "until": last.isoformat()}
    run = api.send("POST", "reconciliation/runs", body)
    if wait:
        run = _completed(api, run)
    _show_runs([run])


def _completed(api: Api, run: Any) -> Any:
    ends, told = time.monotonic() + WAIT_TIMEOUT_SECONDS, None
    while run["status"] != "completed":
        if time.monotonic() > ends:
            raise Failed(f"Run {run['id']} is not complete after {WAIT_TIMEOUT_SECONDS:.0f} s; it goes on.")
        if run["last_error"] and run["last_error"] != told:
            told = run["last_error"]
            say(f"it waits: {told}")
        time.sleep(POLL_SECONDS)
        run = api.get(f"reconciliation/runs/{run['id']}")
    return run


def _show_runs(runs: list[Any]) -> None:
    columns = ("id", "domain", "provider", "status", "position", "compared", "drift_found", "drift_healed", "last_error")
    click.echo(table(runs, *columns))


@reconcile.command(name="runs")
@attends
def list_runs(api: Api) -> None:
    """List runs, the newest first."""
    _show_runs(api.get("reconciliation/runs", limit=50)["runs"])


@reconcile.command(name="drift")
@click.option("--status", type=click.Choice(["open", "healed", "resolved"]), default="open", show_default=True)
@click.option("--domain", type=click.Choice([each.value for each in Domain]))
@click.option("--evidence", is_flag=True, help="Also show what each side says.")
@attends
def list_drift(api: Api, status: str, domain: str | None, evidence: bool) -> None:
    """List what differs."""
    items = api.get("reconciliation/drift", status=status, domain=domain)["items"]
    sides = ("ours", "theirs") if evidence else ()
    click.echo(table(items, "id", "domain", "provider", "type", "key", "entry", "order_id", "first_seen_at", *sides))


@reconcile.command(name="resolve")
@click.argument("drift_id", type=click.UUID)
@click.option("--accept", "action", flag_value="accepted", help="It stays as it is.")
@click.option("--provider-is-right", "action", flag_value="provider_is_right", help="Our books learn what the provider says.")
@click.option("--reason", required=True, help="Why; it is kept.")
@attends
def resolve_drift(api: Api, drift_id: UUID, action: str | None, reason: str) -> None:
    """Settle a difference."""
    if action is None:
        raise click.UsageError("Say --accept or --provider-is-right.")
    item = api.send("POST", f"reconciliation/drift/{drift_id}/resolve", {"action": action, "reason": reason})
    click.echo(table([item], "id", "type", "key", "status", "resolution", "reason", "actor"))


@reconcile.command(name="import")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--mapping", default="stripe-payouts", show_default=True, help="How it is read: a name that ships, or a TOML file.")
@click.option("--provider", help="Whose report it is, where the mapping's is another name here.")
@attends
def import_settlements(api: Api, file: Path, mapping: str, provider: str | None) -> None:
    """Match a provider's payout report (CSV) with the ledger, fees and all.

    The same file again changes nothing; what does not fit is listed here and as drift.
    """
    how = settlements.mapping_of(mapping)
    report = settlements.Report(file, how if provider is None else msgspec.structs.replace(how, provider=provider))
    matched, repeated, differing = 0, 0, list[Any]()
    for piece in report.pieces():
        answer = api.send("POST", "reconciliation/settlements", settlements.body_of(report, piece))
        matched, repeated = matched + answer["matched"], repeated + answer["repeated"]
        differing += answer["differing"]
    if differing:
        click.echo(table(differing, "key", "result", "order_id", "transaction_id", "amount", "currency"))
    left_out = ", ".join(f"{count} {category or 'without a payment'}" for category, count in sorted(report.left_out.items())) or "none"
    click.echo(f"{matched} matched, {repeated} known already, {len(differing)} differing; about no payment: {left_out}.")


@reconcile.command(name="unsettled")
@click.option("--provider", required=True, help="Whose payouts: stripe, ...")
@click.option("--since", type=_moment, help="Taken from this moment on; 60 days ago by default.")
@click.option("--until", type=_moment, help="Taken before this moment; 14 days ago by default, since payouts take their time.")
@attends
def list_unsettled(api: Api, provider: str, since: datetime | None, until: datetime | None) -> None:
    """List captures and refunds that no payout report has mentioned."""
    last = _utc(until) or datetime.now(UTC) - timedelta(days=PAYOUT_DAYS)
    first = _utc(since) or last - timedelta(days=UNSETTLED_LOOK_BACK_DAYS)
    asked = {"provider": provider, "since": first.isoformat(), "until": last.isoformat()}
    page = api.get("reconciliation/unsettled", **asked)
    found = page["transactions"]
    while page["next"]:
        page = api.get("reconciliation/unsettled", **asked, after=page["next"])
        found += page["transactions"]
    click.echo(table(found, "transaction_id", "operation", "amount", "currency", "provider_payment_id", "order_id", "created_at"))


@click.group()
def outcomes() -> None:
    """Payment operations and labels whose outcome nobody learnt."""


@outcomes.command(name="list")
@attends
def list_outcomes(api: Api) -> None:
    """List them, the oldest first, with what was tried."""
    payments = api.get("unknown-outcomes")["operations"]
    labels = api.get("unknown-outcomes/labels")["labels"]
    found = [
        *({**each, "id": each["transaction_id"]} for each in payments),
        *({**each, "id": each["label_id"], "operation": "label", "provider": each["carrier"]} for each in labels),
    ]
    found.sort(key=lambda each: float(each["age_seconds"]), reverse=True)
    rows = [{**each, "age_seconds": round(each["age_seconds"]), "tried": _tried(each["tried"])} for each in found]
    click.echo(table(rows, "id", "operation", "amount", "currency", "provider", "age_seconds", "looks", "next_look_at", "tried"))


def _tried(calls: list[Any]) -> str:
    return ", ".join(f"{call['operation']} {call['status'] or call['classification']}" for call in calls[-3:])


@outcomes.command(name="decide")
@click.argument("transaction_id", type=click.UUID)
@click.option("--succeeded", "outcome", flag_value="succeeded", help="It was executed.")
@click.option("--failed", "outcome", flag_value="failed", help="It was not executed.")
@click.option("--evidence", required=True, help="How that is known; it is kept.")
@click.option("--provider-payment-id", help="What the provider calls the payment, where it was never heard.")
@attends
def decide_outcome(api: Api, transaction_id: UUID, outcome: str | None, evidence: str, provider_payment_id: str | None) -> None:
    """Settle one by what was found out elsewhere."""
    if outcome is None:
        raise click.UsageError("Say --succeeded or --failed.")
    body = {"outcome": outcome, "evidence": evidence, "provider_payment_id": provider_payment_id}
    intent = api.send("POST", f"unknown-outcomes/{transaction_id}/decide", {k: v for k, v in body.items() if v is not None})
    click.echo(table([intent], "id", "order_id", "status", "authorized_amount", "captured_amount", "refunded_amount"))


@outcomes.command(name="decide-label")
@click.argument("label_id", type=click.UUID)
@click.option("--evidence", required=True, help="How it is known that it was not bought; it is kept.")
@attends
def decide_label(api: Api, label_id: UUID, evidence: str) -> None:
    """Say of a label that it was not bought; one that was is found by its carrier."""
    label = api.send("POST", f"unknown-outcomes/labels/{label_id}/decide", {"outcome": "failed", "evidence": evidence})
    click.echo(table([label], "id", "status", "service", "reason"))


@click.group()
def payments() -> None:
    """Payments that need attention (./tender attention lists them)."""


@payments.command(name="accept")
@click.argument("order_id", type=click.UUID)
@click.argument("payment_id", type=click.UUID)
@click.option("--version", required=True, type=click.IntRange(min=1), help="The payment as you looked at it; refused when it has changed.")
@click.option("--reason", required=True, help="Why what does not fit is right; it is kept.")
@attends
def accept_facts(api: Api, order_id: UUID, payment_id: UUID, version: int, reason: str) -> None:
    """Accept the facts of one; its status and what may be done follow from them again."""
    intent = api.send("POST", f"orders/{order_id}/payments/{payment_id}/accept", {"version": version, "reason": reason})
    click.echo(table([intent], *PAYMENT_COLUMNS))


@payments.command(name="give-back")
@click.argument("order_id", type=click.UUID)
@click.argument("payment_id", type=click.UUID)
@click.option("--reason", default="", help="As the customer may be told.")
@attends
def give_back(api: Api, order_id: UUID, payment_id: UUID, reason: str) -> None:
    """Refund what one took and its order does not owe, and no more."""
    answer = api.send("POST", f"orders/{order_id}/payments/{payment_id}/refund", {"overpaid": True, "reason": reason})
    # What took too long is under way, and the payment says how it ends.
    click.echo(table([answer.get("intent", {"id": payment_id, "order_id": order_id, "status": "under way"})], *PAYMENT_COLUMNS))


@click.group(name="webhooks")
def webhook_events() -> None:
    """Webhook events that came in."""


@webhook_events.command(name="list")
@click.option("--status", help="received, failing, waiting, processed, ignored, dead, unmatched.")
@click.option("--provider")
@attends
def list_events(api: Api, status: str | None, provider: str | None) -> None:
    """List them, the newest first."""
    events = api.get("webhooks/events", status=status, provider=provider)["events"]
    click.echo(table(events, "id", "provider", "event_type", "status", "received_at", "attempt_count", "last_error"))


@webhook_events.command(name="replay")
@click.option("--since", type=_moment, required=True, help="Received from this moment on.")
@click.option("--until", type=_moment, help="Received before this moment; now by default.")
@click.option("--status", help="Only those that stand like this.")
@click.option("--provider")
@attends
def replay_events(api: Api, since: datetime, until: datetime | None, status: str | None, provider: str | None) -> None:
    """Process them again, the oldest first; what was applied before changes nothing."""
    first, last = _utc(since), _utc(until) or datetime.now(UTC)
    assert first is not None, "it is required"
    body = {"since": first.isoformat(), "until": last.isoformat(), "status": status, "provider": provider}
    answer = api.send("POST", "webhooks/events/replay", {name: value for name, value in body.items() if value is not None})
    click.echo(str(answer))


@webhook_events.command(name="endpoints")
@attends
def list_endpoints(api: Api) -> None:
    """List the addresses that your events are delivered to."""
    click.echo(table(api.get("webhook-endpoints")["endpoints"], "id", "url", "event_types", "enabled", "disabled_why", "failing_since"))


@webhook_events.command(name="recover")
@click.argument("endpoint_id", type=click.UUID)
@click.option("--since", type=_moment, required=True, help="Every event from this moment on that was not delivered.")
@attends
def recover_deliveries(api: Api, endpoint_id: UUID, since: datetime) -> None:
    """Deliver to an endpoint what it has missed, the oldest first."""
    first = _utc(since)
    assert first is not None, "it is required"
    click.echo(str(api.send("POST", f"webhook-endpoints/{endpoint_id}/recover", {"since": first.isoformat()})))


@click.command()
@click.argument("method", type=click.Choice(["GET", "POST", "PUT", "DELETE"]))
@click.argument("path")
@click.argument("body", required=False)
@click.option("--wait", "wait_seconds", type=click.FloatRange(0, 3600), default=0.0, help="Ask again for so many seconds until it is well.")
@attends
def api(client: Api, method: str, path: str, body: str | None, wait_seconds: float) -> None:
    """Make a request of the API, as it stands in its documentation.

    A mutation gets an idempotency key of its own. Whatever is no success makes this fail, and is shown all the same.
    """
    ends = time.monotonic() + wait_seconds
    while True:
        try:
            status, text = client.any(method, path, None if body is None else body.encode())
        except Refused as silent:
            status, text = 0, str(silent)
        if status in range(200, 300) or time.monotonic() > ends:
            break
        time.sleep(POLL_SECONDS)
    click.echo(text)
    if status not in range(200, 300):
        raise Failed(f"{method} {path}: {status or 'no answer'}")
