"""What a rule asks of a sale besides place, goods and day: the kind of supply, the currency, and what others take."""

from collections.abc import Sequence
from decimal import Decimal

import msgspec

from services.fulfillment.domain.tax.engine import UNTAXED
from services.fulfillment.domain.tax.rules import Movement, Place, Reason, Rule
from shared.errors import Refusal


class TaxRuleCurrency(Refusal):
    """A rule would be decided by amounts in another currency than the sale's; none is converted."""

    code = "tax-rule-currency"
    title = "A tax rule is in another currency"
    status = 422


def applies_to(rule: Rule, ship_from: Place, ship_to: Place, delivered: bool) -> bool:
    """Tell whether a rule is about supplies between two places; within one country, both regions must be known to say."""
    if rule.flat_amount is not None and not delivered:
        return False
    if rule.movement is Movement.ANY:
        return True
    if ship_from.country != ship_to.country:
        return rule.movement is Movement.BETWEEN_REGIONS
    known = bool(ship_from.region and ship_to.region)
    return known and (ship_from.region == ship_to.region) is (rule.movement is Movement.WITHIN_REGION)


def of_currency(rules: Sequence[Rule], currency: str) -> list[Rule]:
    """Leave out rules in other currencies; raises TaxRuleCurrency where their jurisdiction has none in this one."""
    others = [rule for rule in rules if currency and rule.currency not in ("", currency)]
    if not others:
        return list(rules)
    known = {rule.jurisdiction for rule in rules if rule.currency == currency}
    for rule in others:
        if rule.jurisdiction not in known:
            raise TaxRuleCurrency(
                f"The rule {rule.name} of {rule.country} {rule.region} is in {rule.currency}; add one in {currency}.",
                {"rule_version": rule.version, "currency": rule.currency},
            )
    return [rule for rule in rules if rule.currency in ("", currency)]


def within_combined_rate(rules: list[Rule]) -> list[Rule]:
    """Leave out, in their order, what would bring a region's rates over what its rules may take together."""
    if all(rule.combined_max_percent is None for rule in rules):
        return rules
    taken: dict[tuple[str, str], Decimal] = {}
    kept = []
    for rule in rules:
        most, region = rule.combined_max_percent, (rule.country, rule.region)
        if most is not None and rule.reason not in UNTAXED:
            together = taken.get(region, Decimal(0)) + rule.rate_percent
            if together > most:
                kept.append(msgspec.structs.replace(rule, reason=Reason.NOT_SUBJECT_TO_TAX))
                continue
            taken[region] = together
        kept.append(rule)
    return kept
