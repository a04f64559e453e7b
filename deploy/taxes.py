"""Tax rules from a file into a store: all or none, every row's problem named, and a dry run that shows what would change."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

from services.fulfillment.domain.tax import importing, table_age
from services.fulfillment.domain.tax.importing import Changes
from services.fulfillment.domain.tax.rules import Rule
from services.fulfillment.store import rules as rows
from services.fulfillment.store import settings
from shared.errors import Clear, Refusal
from shared.ids import new_id
from shared.messages import Environment
from shared.owner import acting_as_owner

STARTER = Path(__file__).parent / "tax" / "starter.csv"
PROBLEMS_SHOWN_MAX = 20


class ImportRefused(Clear):
    """The file cannot be taken; the text says why, row by row. Nothing was changed."""


def read(file: Path) -> list[Rule]:
    """Read rules from a CSV or JSON file."""
    try:
        raw = file.read_bytes()
    except OSError as missing:
        raise ImportRefused(f"{file} cannot be read: {missing.strerror}.") from missing
    try:
        return importing.from_json(raw) if file.suffix.lower() == ".json" else importing.from_csv(raw.decode())
    except UnicodeDecodeError as broken:
        raise ImportRefused(f"{file} is not UTF-8: {broken.reason}.") from broken
    except Refusal as refused:
        raise ImportRefused(_told(file, refused)) from refused


def _told(file: Path, refused: Refusal) -> str:
    problems: list[Any] = refused.facts.get("rows", [])
    lines = [f"  row {each['row']}: {each['problem']}" for each in problems[:PROBLEMS_SHOWN_MAX]]
    more = refused.facts.get("count", len(problems)) - len(lines)
    return "\n".join([f"{file}: {refused.detail}", *lines, *([f"  and {more} more"] if more > 0 else []), "Nothing was changed."])


async def bring_in(
    database_url: str, wanted: list[Rule], *, store_id: UUID, environment: Environment, replace: bool, dry_run: bool
) -> Changes:
    """Bring rules in; one that follows another ends it, with `replace` all that the file does not hold go. Takes the owner's URL."""
    after: dict[str, int] = {}
    async with acting_as_owner(
        database_url, "fulfillment", "tax_rules.import", store_id=store_id, environment=environment, after=after
    ) as connection:
        # One import at a time, and no rule is put beside it.
        await connection.execute("LOCK TABLE tax_jurisdiction_rules IN SHARE ROW EXCLUSIVE MODE")
        known = await rows.in_use(connection, store_id, environment.value)
        changes = importing.changes([each.rule for each in known], wanted)
        ended = {before.version: after for before, after in changes.ended}
        staying = [] if replace else [*changes.missing, *ended.values()]
        try:
            importing.refuse_overlaps([*staying, *changes.same, *changes.added])
        except Refusal as refused:
            raise ImportRefused(f"{refused.detail} Nothing was changed.") from refused
        if not dry_run:
            gone = {rule.version for rule in changes.missing} | ended.keys() if replace else ended.keys()
            added = [(new_id(), rule) for rule in changes.added]
            if not replace:
                # A rule that ends stays the rule that it was.
                added += [(each.id, ended[each.rule.version]) for each in known if each.rule.version in ended]
            await rows.replace(
                connection,
                store_id,
                environment.value,
                added_rules=added,
                removed_ids=[each.id for each in known if each.rule.version in gone],
            )
            await rows.check(connection, store_id, environment.value, changes.same)
            moved_on = settings.changed(store_id, environment.value)
            await connection.execute(moved_on.sql, *moved_on.arguments)
        after |= {"added": len(changes.added), "ended": len(changes.ended), "missing": len(changes.missing)}
    return changes


def age_of(wanted: list[Rule]) -> str:
    """Say that a file's rates are old; nothing where they are not."""
    oldest = table_age.oldest_check((rule.checked_on for rule in wanted), datetime.now(UTC).date())
    return "" if oldest is None else table_age.said_of(oldest)


def line_of(rule: Rule) -> str:
    """Say a rule in one line."""
    where = " ".join(each for each in (rule.country, rule.region, " ".join(rule.postal_codes)) if each)
    what = f" on {rule.tax_code}" if rule.tax_code else ""
    until = f" to {rule.valid_to}" if rule.valid_to else ""
    return f"{where}: {rule.name} {rule.rate_percent:f} %{what}, from {rule.valid_from}{until} ({rule.reason.value})"
