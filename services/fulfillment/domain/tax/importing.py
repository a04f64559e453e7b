"""Rules from a file: read, checked row by row, and compared with those that are there before anything is changed."""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from services.fulfillment.domain.postal import pattern_fault, patterns_of
from services.fulfillment.domain.tax.rules import InclusiveRounding, Reason, Rule, TaxedPer
from shared.errors import Refusal
from shared.money import AMOUNT_MAX_MINOR_UNITS
from shared.regions import current, exists, regions_of

ROWS_MAX = 100_000
RATE_MAX_PERCENT = 100
RATE_MAX_DECIMALS = 6
PROBLEMS_SHOWN_MAX = 100
# Given by us, from what a rule says: the same rule is the same version however often it is imported.
DERIVED = frozenset({"version"})
# To compare a rule with its source again does not change it.
UNVERSIONED = DERIVED | {"checked_on"}
LISTS = frozenset({"postal_codes", "postal_codes_excluded"})
SAID_BY_THE_SALE = frozenset(
    {Reason.REVERSE_CHARGE, Reason.INTRA_COMMUNITY_SUPPLY, Reason.EXPORT, Reason.CUSTOMER_EXEMPT, Reason.NOT_COLLECTING}
)
COUNTRY = re.compile(r"[A-Z]{2}")
REGION = re.compile(r"[A-Z]{2}-[A-Z0-9]{1,3}")
# A rate is what it is written as, never a float.
_json = msgspec.json.Decoder(list[dict[str, Any]], float_hook=Decimal)
# What rules came to say later: a rule that does not say it keeps its version.
LATER = frozenset(
    {
        *("taxed_per", "applies_from", "applies_above", "applies_up_to", "applies_below", "currency", "movement"),
        *("combined_max_percent", "flat_amount", "rounding_unit"),
    }
)
ROUNDING_UNIT_MAX = 10_000
# Rules for the same at the same time, by the bounds of their prices.
PRICE_BANDS_MAX = 100
CURRENCY = re.compile(r"([A-Z]{3})?")
COLUMNS = tuple(name for name in Rule.__struct_fields__ if name not in DERIVED)
DEFAULTS = {field.name: msgspec.to_builtins(field.default) for field in msgspec.structs.fields(Rule) if field.name in LATER}


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a row; rows are counted from 1, without the heading."""

    row: int
    text: str


class RulesRefused(Refusal):
    """A file of rules has rows that cannot be taken; none of it was."""

    code = "tax-rules-invalid"
    title = "These tax rules cannot be taken"
    status = 422


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What an import would change: rules that come, that stay, that end because another follows, and that are not in the file."""

    added: tuple[Rule, ...]
    same: tuple[Rule, ...]
    # As each was, and as it will be.
    ended: tuple[tuple[Rule, Rule], ...]
    missing: tuple[Rule, ...]


def from_csv(text: str) -> list[Rule]:
    """Read rules from CSV with a heading; lists are separated by spaces, what is left empty has its default. Raises RulesRefused."""
    reader = csv.DictReader(io.StringIO(text.removeprefix("\ufeff")), strict=True)
    try:
        unknown = sorted(set(reader.fieldnames or ()) - set(COLUMNS))
        if unknown or not reader.fieldnames:
            raise RulesRefused(f"Unknown columns: {', '.join(unknown) or 'there is no heading'}; there are {', '.join(COLUMNS)}.", {})
        rows = [{name: value for name, value in row.items() if value not in ("", None)} for row in reader]
    except csv.Error as broken:
        raise RulesRefused(f"This is not CSV: {broken}.", {}) from broken
    return _checked({name: value.split() if name in LISTS else value for name, value in row.items()} for row in rows)


def from_json(raw: bytes) -> list[Rule]:
    """Read rules from a JSON list of objects; raises RulesRefused."""
    try:
        rows = _json.decode(raw)
    except msgspec.DecodeError as broken:
        raise RulesRefused(f"This is not a JSON list of rules: {broken}.", {}) from broken
    return _checked(rows)


def changes(there: Sequence[Rule], wanted: Sequence[Rule]) -> Changes:
    """Compare rules with those that are there, by what they say."""
    known, new = {rule.version for rule in there}, {rule.version for rule in wanted}
    added = tuple(rule for rule in wanted if rule.version not in known)
    others = [rule for rule in there if rule.version not in new]
    ended = {rule.version: (rule, end) for rule in others if (end := _followed(rule, added)) is not None}
    return Changes(
        added=added,
        same=tuple(rule for rule in wanted if rule.version in known),
        ended=tuple(ended.values()),
        missing=tuple(rule for rule in others if rule.version not in ended),
    )


def _followed(rule: Rule, added: Sequence[Rule]) -> Rule | None:
    """End a rule on the day before the first that follows it; what began no earlier than the new one is not followed."""
    following = [
        each.valid_from
        for each in added
        if _alike(each) == _alike(rule) and bands_meet(each, rule) and rule.valid_from < each.valid_from <= (rule.valid_to or date.max)
    ]
    if not following:
        return None
    ends = msgspec.structs.replace(rule, valid_to=min(following) - timedelta(days=1))
    return msgspec.structs.replace(ends, version=version_of(ends))


def _alike(rule: Rule) -> tuple[object, ...]:
    codes, excluded = (
        frozenset(each for text in texts for each in patterns_of(rule.country, text))
        for texts in (rule.postal_codes, rule.postal_codes_excluded)
    )
    return (rule.jurisdiction, rule.tax_code, codes, excluded, rule.movement, rule.currency, rule.has_price_bounds)


def bands_meet(one: Rule, other: Rule) -> bool:
    """Tell whether there is a price at which two rules apply."""
    lower = max(_lower(one), _lower(other))
    upper, included = min(_upper(one), _upper(other))
    return lower[0] < upper or (lower == (upper, 0) and included == 1)


def _lower(rule: Rule) -> tuple[int, int]:
    """Give the lower bound, and whether it is left out itself."""
    return (rule.applies_above, 1) if rule.applies_above is not None else (rule.applies_from or 0, 0)


def _upper(rule: Rule) -> tuple[int, int]:
    """Give the upper bound, and whether it is in itself."""
    if rule.applies_below is not None:
        return rule.applies_below, 0
    return (AMOUNT_MAX_MINOR_UNITS, 1) if rule.applies_up_to is None else (rule.applies_up_to, 1)


def _checked(rows: Iterable[dict[str, Any]]) -> list[Rule]:
    rules: list[Rule] = []
    problems: list[Problem] = []
    for number, row in enumerate(rows, start=1):
        if number > ROWS_MAX:
            raise RulesRefused(f"There are more than {ROWS_MAX} rows.", {"rows_max": ROWS_MAX})
        try:
            rule = _rule(row)
        except (msgspec.ValidationError, ValueError) as unfit:
            problems.append(Problem(number, str(unfit)))
            continue
        problems += [Problem(number, text) for text in _faults(rule)]
        rules.append(rule)
    problems += _overlaps(rules) if not problems else []
    if problems:
        shown = [{"row": problem.row, "problem": problem.text} for problem in problems[:PROBLEMS_SHOWN_MAX]]
        first = problems[0]
        raise RulesRefused(f"{len(problems)} problems; the first in row {first.row}: {first.text}", {"count": len(problems), "rows": shown})
    return rules


def _rule(row: dict[str, Any]) -> Rule:
    if unknown := sorted(row.keys() - set(COLUMNS)):
        raise ValueError(f"unknown fields: {', '.join(unknown)}")
    rule = msgspec.convert({**row, "version": "-"}, Rule, strict=False)
    if not rule.rate_percent.is_finite():
        raise ValueError(f"rate_percent {rule.rate_percent} is no number")
    rule = msgspec.structs.replace(rule, region=current(rule.region))
    return msgspec.structs.replace(rule, version=version_of(rule))


def one(row: dict[str, Any]) -> Rule:
    """Read one rule; raises RulesRefused."""
    return _checked([row])[0]


def refuse_overlap(rule: Rule, others: Sequence[Rule]) -> None:
    """Refuse a rule that holds at the same time as another for the same."""
    refuse_overlaps([*others, rule])


def refuse_overlaps(rules: Sequence[Rule]) -> None:
    """Refuse rules of which two hold at the same time for the same."""
    for problem in _overlaps(rules):
        rule = rules[problem.row - 1]
        where, goods = f"{rule.country} {rule.region}".strip(), rule.tax_code or "of no other rule"
        detail = f"Two rules hold at the same time for the same ({where}, {rule.name}, goods {goods}); end one first."
        raise RulesRefused(detail, {"version": rule.version})


def version_of(rule: Rule) -> str:
    """Name a rule after what it says."""
    said = {name: value for name, value in msgspec.to_builtins(rule).items() if name not in UNVERSIONED}
    said["rate_percent"] = str(rule.rate_percent.normalize())
    if rule.combined_max_percent is not None:
        said["combined_max_percent"] = str(rule.combined_max_percent.normalize())
    said = {name: value for name, value in said.items() if name not in LATER or value != DEFAULTS[name]}
    return hashlib.sha256(msgspec.json.encode(said, order="deterministic")).hexdigest()[:32]


def _faults(rule: Rule) -> Iterable[str]:
    yield from _place_and_rate_faults(rule)
    yield from _price_faults(rule)
    if rule.flat_amount is not None:
        yield from _fee_faults(rule)
    if rule.valid_to is not None and rule.valid_to < rule.valid_from:
        yield f"valid_to {rule.valid_to} is before valid_from {rule.valid_from}"
    if rule.rate_percent and rule.reason in (Reason.ZERO_RATED, Reason.PRODUCT_EXEMPT, Reason.NOT_SUBJECT_TO_TAX):
        yield f"{rule.reason.value} and a rate of {rule.rate_percent} contradict each other"
    if rule.reason in SAID_BY_THE_SALE:
        yield f"{rule.reason.value} depends on who buys, and is no rule's to say"
    if not rule.source.strip():
        yield "source is empty: say where the rate is from"


def _place_and_rate_faults(rule: Rule) -> Iterable[str]:
    if not COUNTRY.fullmatch(rule.country):
        yield f"country {rule.country!r} is not two capital letters"
    if rule.region and (not REGION.fullmatch(rule.region) or not rule.region.startswith(f"{rule.country}-")):
        yield f"region {rule.region!r} is not like {rule.country}-XX (ISO 3166-2)"
    elif regions_of(rule.country) and rule.region and not exists(rule.region):
        yield f"region {rule.region!r} is none of {rule.country} (ISO 3166-2)"
    if not rule.name.strip():
        yield "name is empty"
    if not 0 <= rule.rate_percent <= RATE_MAX_PERCENT:
        yield f"rate_percent {rule.rate_percent} is under 0 or over {RATE_MAX_PERCENT}"
    exponent = rule.rate_percent.as_tuple().exponent
    if not isinstance(exponent, int) or -exponent > RATE_MAX_DECIMALS:
        yield f"rate_percent {rule.rate_percent} has more than {RATE_MAX_DECIMALS} decimals"
    for pattern in (*rule.postal_codes, *rule.postal_codes_excluded):
        if fault := pattern_fault(rule.country, pattern):
            yield f"postal code {pattern!r} {fault}"
    most = rule.combined_max_percent
    if most is not None and not (most.is_finite() and 0 < most <= RATE_MAX_PERCENT):
        yield f"combined_max_percent {most} is not over 0 and at most {RATE_MAX_PERCENT}"
    if not 1 <= rule.rounding_unit <= ROUNDING_UNIT_MAX:
        yield f"rounding_unit {rule.rounding_unit} is under 1 or over {ROUNDING_UNIT_MAX}"
    if rule.rounding_unit != 1 and rule.inclusive is InclusiveRounding.NET:
        yield "a rounding_unit is the tax's, and inclusive net rounds the other part"


def _price_faults(rule: Rule) -> Iterable[str]:
    bounds = (rule.applies_from, rule.applies_above, rule.applies_up_to, rule.applies_below, rule.taxed_up_to)
    if any(bound is not None and not 0 <= bound <= AMOUNT_MAX_MINOR_UNITS for bound in bounds):
        yield f"a bound of a price is under 0 or over {AMOUNT_MAX_MINOR_UNITS}"
    if rule.taxed_above < 0 or (rule.taxed_up_to is not None and rule.taxed_up_to <= rule.taxed_above):
        yield "taxed_up_to must be over taxed_above, and neither under zero"
    if rule.taxed_per is TaxedPer.SALE and not rule.taxed_above and rule.taxed_up_to is None:
        yield "taxed_per sale needs taxed_above or taxed_up_to"
    if None not in (rule.applies_from, rule.applies_above) or None not in (rule.applies_up_to, rule.applies_below):
        yield "applies_from and applies_above exclude each other, and so do applies_up_to and applies_below"
    elif not bands_meet(rule, rule):
        yield "there is no price at which it applies"
    if not CURRENCY.fullmatch(rule.currency):
        yield f"currency {rule.currency!r} is not three capital letters"


def _fee_faults(rule: Rule) -> Iterable[str]:
    if not 0 < (rule.flat_amount or 0) <= AMOUNT_MAX_MINOR_UNITS:
        yield f"flat_amount {rule.flat_amount} is under 1 or over {AMOUNT_MAX_MINOR_UNITS}"
    if rule.rate_percent or rule.compound or rule.taxed_above or rule.taxed_up_to is not None or rule.combined_max_percent is not None:
        yield "a flat_amount has no rate, compounds on nothing, and is taken whole"
    if rule.reason is not Reason.STANDARD_RATED:
        yield f"a flat_amount and {rule.reason.value} contradict each other"


def _overlaps(rules: Sequence[Rule]) -> list[Problem]:
    """Two rules of one jurisdiction for the same goods at the same place, price and time: it could not be said which holds."""
    alike: dict[object, list[tuple[date, date, int]]] = {}
    for number, rule in enumerate(rules, start=1):
        alike.setdefault(_alike(rule), []).append((rule.valid_from, rule.valid_to or date.max, number))
    problems = []
    for spans in alike.values():
        spans.sort()
        at_once: list[tuple[date, date, int]] = []
        for span in spans:
            start, _, number = span
            at_once = [each for each in at_once if start <= each[1]]
            if len(at_once) >= PRICE_BANDS_MAX:
                problems.append(Problem(number, f"more than {PRICE_BANDS_MAX} rules hold at the same time for the same, by price"))
                break
            if (other := next((each[2] for each in at_once if bands_meet(rules[each[2] - 1], rules[number - 1])), None)) is not None:
                problems.append(Problem(number, f"it holds at the same time as row {other}, for the same"))
            else:
                at_once.append(span)
    return problems
