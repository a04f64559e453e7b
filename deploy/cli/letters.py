"""Dead letters on the command line: found, understood, retried, changed, put away."""

import json
import time
from pathlib import Path
from typing import Any
from uuid import UUID

import click

from deploy.cli.attending import POLL_SECONDS, attends
from deploy.operator import Api, table
from deploy.processes import Failed

REASON_SHOWN_CHARACTERS = 100
RETRY_WAIT_MAX_SECONDS = 24 * 3600.0


@click.group(name="dlq")
def dead_letters() -> None:
    """Dead letters: messages that could not be handled."""


@dead_letters.command(name="ls")
@click.option("--groups", "grouped", is_flag=True, help="Count them by what went wrong instead.")
@click.option("--status", type=click.Choice(["waiting", "retried", "replaced", "discarded", "any"]), default="waiting", show_default=True)
@click.option("--service", help="payments, webhooks, fulfillment, reconciler.")
@click.option("--type", "message_type", help="Of this message type.")
@click.option("--group", "fingerprint", help="Of this group, as --groups names it.")
@click.option("--order", "order_id", type=click.UUID)
@click.option("--text", help="With these words in the reason.")
@click.option("--unreadable", is_flag=True, help="Those that do not say whose they are; needs an operator's key.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True)
@attends
def list_letters(api: Api, grouped: bool, status: str, unreadable: bool, **chosen: Any) -> None:
    """List them, the newest first."""
    common = {"status": None if status == "any" else status, "unreadable": "true" if unreadable else None}
    if grouped:
        groups = api.get("dead-letters/groups", **common)["groups"]
        rows = [{**each, "reason": _short(each["reason"])} for each in groups]
        click.echo(table(rows, "fingerprint", "letters", "service", "message_type", "oldest_at", "newest_at", "reason"))
        return
    chosen["type"] = chosen.pop("message_type")
    letters = api.get("dead-letters", **common, **chosen)["letters"]
    rows = [{**each, "reason": _short(each["reason"])} for each in letters]
    click.echo(table(rows, "id", "status", "message_type", "attempts", "died_at", "order_id", "fingerprint", "reason"))


def _short(reason: str) -> str:
    return reason if len(reason) <= REASON_SHOWN_CHARACTERS else f"{reason[:REASON_SHOWN_CHARACTERS]}…"


@dead_letters.command(name="show")
@click.argument("letter_id", type=click.UUID)
@attends
def show_letter(api: Api, letter_id: UUID) -> None:
    """Show one with its body, its history and what its service says of it."""
    found = api.get(f"dead-letters/{letter_id}")
    letter, fate = found["letter"], found["fate"]
    for name in ("status", "service", "message_type", "message_id", "order_id", "correlation_id", "actor", "reason", "attempts", "died_at"):
        click.echo(f"{name + ':':16}{letter[name]}")
    if letter["settled_at"]:
        click.echo(f"{'settled:':16}{letter['settled_at']} by {letter['settled_by']} {letter['settled_reason']}")
    said = "cannot be asked just now" if fate is None else fate["state"]
    click.echo(f"{'its service:':16}{said}{', a provider may have been called' if fate and fate['may_have_left'] else ''}")
    click.echo(f"\n{json.dumps(found['body'], indent=2) if found['body_text'] is None else found['body_text']}")
    for change in found["difference"]:
        click.echo(f"\nchanged {change['path']}: {json.dumps(change.get('before'))} → {json.dumps(change.get('after'))}")
    for death in found["history"]:
        click.echo(f"\n{death['died_at']} after {death['attempts']} tries: {death['reason']}\n{death['traceback']}".rstrip())


@dead_letters.command(name="retry")
@click.argument("letter_ids", type=click.UUID, nargs=-1)
@click.option("--group", "fingerprint", help="All of this group.")
@click.option("--service", help="All of this service.")
@click.option("--type", "message_type", help="All of this message type.")
@click.option("--rate", "rate_per_second", type=click.FloatRange(0.01, 1000), default=10.0, show_default=True, help="How many a second.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--reason", default="", help="Why it should go well this time.")
@attends
def retry_letters(api: Api, letter_ids: tuple[UUID, ...], **how: Any) -> None:
    """Send some once more, each with its own id: nothing happens twice."""
    if len(letter_ids) == 1 and not how["dry_run"]:
        letter = api.send("POST", f"dead-letters/{letter_ids[0]}/retry", {"reason": how["reason"]})
        click.echo(table([letter], "id", "status", "message_type", "retries"))
        return
    _redrive(api, "retry", letter_ids, **how)


@dead_letters.command(name="discard")
@click.argument("letter_ids", type=click.UUID, nargs=-1)
@click.option("--group", "fingerprint", help="All of this group.")
@click.option("--service", help="All of this service.")
@click.option("--type", "message_type", help="All of this message type.")
@click.option("--rate", "rate_per_second", type=click.FloatRange(0.01, 1000), default=10.0, show_default=True, help="How many a second.")
@click.option("--dry-run", is_flag=True, help="Only count them.")
@click.option("--reason", required=True, help="Why; it is kept.")
@attends
def discard_letters(api: Api, letter_ids: tuple[UUID, ...], **how: Any) -> None:
    """Put some away for ever; whoever waits for them is told."""
    if len(letter_ids) == 1 and not how["dry_run"]:
        letter = api.send("POST", f"dead-letters/{letter_ids[0]}/discard", {"reason": how["reason"]})
        click.echo(table([letter], "id", "status", "message_type", "settled_by"))
        return
    _redrive(api, "discard", letter_ids, **how)


def _redrive(
    api: Api, action: str, letter_ids: tuple[UUID, ...], *, rate_per_second: float, dry_run: bool, reason: str, **chosen: Any
) -> None:
    meant = {name: value for name, value in chosen.items() if value is not None}
    if bool(letter_ids) == bool(meant):
        raise click.UsageError("Name some by their ids, or all of a --group, a --service or a --type.")
    which = {"ids": [str(each) for each in letter_ids]} if letter_ids else {"filter": meant}
    body = {"action": action, "rate_per_second": rate_per_second, "dry_run": dry_run, "reason": reason, **which}
    redrive = api.send("POST", "dead-letters/redrives", body)
    if dry_run:
        click.echo(f"{redrive['letters']} letters are meant; nothing was done.")
        return
    click.echo(f"Redrive {redrive['id']} of {redrive['letters']} letters; ./tender dlq stop {redrive['id']} stops it.")
    _followed(api, redrive)


def _followed(api: Api, redrive: Any) -> None:
    ends = time.monotonic() + RETRY_WAIT_MAX_SECONDS
    with click.progressbar(length=redrive["letters"], show_pos=True) as bar:
        while redrive["status"] == "running" and time.monotonic() < ends:
            time.sleep(POLL_SECONDS)
            redrive = api.get(f"dead-letters/redrives/{redrive['id']}")
            bar.update(redrive["done"] + redrive["skipped"] - bar.pos)
    click.echo(table([redrive], "id", "status", "letters", "done", "skipped", "last_error"))


@dead_letters.command(name="stop")
@click.argument("redrive_id", type=click.UUID)
@attends
def stop_redrive(api: Api, redrive_id: UUID) -> None:
    """Stop a redrive where it is."""
    redrive = api.send("POST", f"dead-letters/redrives/{redrive_id}/stop", {})
    click.echo(table([redrive], "id", "status", "letters", "done", "skipped"))


@dead_letters.command(name="edit")
@click.argument("letter_id", type=click.UUID)
@click.option(
    "--set", "changes", multiple=True, metavar="PATH=JSON", help="A place in the body and what it should say, such as amount=500."
)
@click.option("--file", type=click.Path(dir_okay=False, exists=True, path_type=Path), help="The whole body as it should be.")
@click.option("--reason", required=True, help="Why; it is kept with the difference.")
@attends
def edit_letter(api: Api, letter_id: UUID, changes: tuple[str, ...], file: Path | None, reason: str) -> None:
    """Send a changed message in the place of one that cannot be handled as it is."""
    if (file is None) == (not changes):
        raise click.UsageError("Say what should change: some --set, or the whole as a --file.")
    body = json.loads(file.read_text()) if file else api.get(f"dead-letters/{letter_id}")["body"]
    for change in changes:
        body = _changed(body, change)
    letter = api.send("POST", f"dead-letters/{letter_id}/edit", {"body": body, "reason": reason})
    click.echo(table([letter], "id", "status", "message_type", "replaced_by"))


def _changed(body: Any, change: str) -> Any:
    path, found, text = change.partition("=")
    if not found:
        raise click.UsageError(f"{change!r} is not PATH=JSON.")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = text
    place, *names = body, *path.strip("/").replace(".", "/").split("/")
    for name in names[:-1]:
        place = _within(place, name, path)
    if isinstance(place, list):
        _within(place, names[-1], path)
        place[int(names[-1])] = value
    else:
        place[names[-1]] = value
    return body


def _within(place: Any, name: str, path: str) -> Any:
    try:
        return place[int(name)] if isinstance(place, list) else place[name]
    except (KeyError, IndexError, ValueError, TypeError) as absent:
        raise Failed(f"The body has no {path}.") from absent
