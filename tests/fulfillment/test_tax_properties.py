"""Whatever is sold under whatever rules: it adds up, and no refund gives back more than was taken."""

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fulfillment.domain.tax.amounts import RoundingMode, apportioned, prorated, rounded
from services.fulfillment.domain.tax.engine import Kind, Line, Row, compute
from services.fulfillment.domain.tax.reversal import reversed_rows
from services.fulfillment.domain.tax.rules import InclusiveRounding, Level, Reason, RoundingScope, Rule, ShippingMode
from tests.fulfillment.rates import rule

CODES = ("", "food", "books", "exempt")
AMOUNTS = st.integers(0, 2_000_000)

lines = st.lists(
    st.builds(
        Line,
        amount=AMOUNTS,
        quantity=st.integers(1, 7),
        tax_code=st.sampled_from(CODES),
        included=st.booleans(),
        kind=st.sampled_from([Kind.GOODS, Kind.GOODS, Kind.GOODS, Kind.SHIPPING]),
    ),
    min_size=1,
    max_size=8,
)
percents = st.decimals(Decimal(0), Decimal(30), places=4).map(str)


@st.composite
def rule_sets(draw: st.DrawFn) -> list[Rule]:
    """One to three taxes on everything, some of them otherwise on some goods, rounded alike."""
    shared = {
        "scope": draw(st.sampled_from(RoundingScope)),
        "rounding": draw(st.sampled_from(RoundingMode)),
        "inclusive": draw(st.sampled_from(InclusiveRounding)),
        "shipping": draw(st.sampled_from(ShippingMode)),
    }
    found = []
    for priority, level in enumerate(
        draw(st.lists(st.sampled_from([Level.STATE, Level.COUNTY, Level.CITY]), min_size=1, max_size=3, unique=True))
    ):
        bounds = draw(
            st.sampled_from([{}, {}, {"taxed_above": 5_000}, {"taxed_up_to": 9_000}, {"taxed_above": 5_000, "taxed_up_to": 90_000}])
        )
        common = {**shared, "level": level, "priority": priority, "compound": draw(st.booleans()), **bounds}
        found.append(rule(draw(percents), level.value, **common))
        if draw(st.booleans()):
            found.append(rule(draw(percents), level.value, tax_code="food", **common))
        if draw(st.booleans()):
            found.append(rule("0", level.value, tax_code="exempt", reason=Reason.PRODUCT_EXEMPT, **common))
    return found


def by(rules: list[Rule], line: Line) -> list[Rule]:
    levels = {each.level for each in rules}
    best = [max((r for r in rules if r.level is level and r.tax_code in ("", line.tax_code)), key=lambda r: r.tax_code) for level in levels]
    return sorted(best, key=lambda each: each.priority)


@given(basket=lines, rules=rule_sets())
def test_everything_adds_up_and_says_why(basket: list[Line], rules: list[Rule]) -> None:
    rows = compute(basket, lambda line: by(rules, line))

    assert {row.line for row in rows} == set(range(len(basket)))
    assert len({(row.line, row.rule_version, row.level) for row in rows}) == len(rows)
    scope, mode = rules[0].scope, rules[0].rounding
    for n, line in enumerate(basket):
        mine = [row for row in rows if row.line == n]
        taxes = sum(row.amount for row in mine)
        net = line.amount - taxes if line.included else line.amount
        assert all(row.taxable_amount + row.untaxed_amount == net for row in mine)
        assert all(row.amount == 0 for row in mine if row.reason not in (Reason.STANDARD_RATED, Reason.REDUCED_RATED))
        assert taxes >= 0
        if line.included:
            assert taxes <= line.amount
    exact = _exact(basket, rules)
    for included in (False, True):
        ours = sum(row.amount for row in rows if row.included is included)
        # Shares of a shipping charge are whole units, and taxed as such.
        shared_out = rules[0].shipping is ShippingMode.PROPORTIONAL
        by_net = included and rules[0].inclusive is InclusiveRounding.NET
        if scope is RoundingScope.DOCUMENT and not by_net and not shared_out:
            assert ours == rounded(exact[included], mode)
        # However it is rounded, no row is a whole unit off.
        assert abs(ours - exact[included]) <= len(rows)


def _exact(basket: list[Line], rules: list[Rule]) -> dict[bool, Fraction]:
    """The taxes before any rounding, read off rows in units so small that rounding does not matter."""
    fine = 10**9
    scaled = [
        Line(amount=line.amount * fine, quantity=line.quantity, tax_code=line.tax_code, included=line.included, kind=line.kind)
        for line in basket
    ]
    finer = [_scaled(each, fine) for each in rules]
    rows = compute(scaled, lambda line: by(finer, line))
    sums = {included: sum(row.amount for row in rows if row.included is included) for included in (False, True)}
    return {included: Fraction(round(Fraction(amount, fine) * 1000), 1000) if amount else Fraction(0) for included, amount in sums.items()}


def _scaled(each: Rule, fine: int) -> Rule:
    upper = None if each.taxed_up_to is None else each.taxed_up_to * fine
    return msgspec.structs.replace(each, taxed_above=each.taxed_above * fine, taxed_up_to=upper, scope=RoundingScope.LINE)


@given(amount=AMOUNTS, percent=percents)
def test_what_is_taken_out_of_a_price_is_in_it(amount: int, percent: str) -> None:
    [held] = compute([Line(amount=amount, included=True)], lambda _: [rule(percent)])

    assert held.taxable_amount + held.amount == amount
    exact = Fraction(amount) * Fraction(percent) / (100 + Fraction(percent))
    assert held.amount == rounded(exact, RoundingMode.HALF_UP)


@given(weights=st.lists(st.integers(0, 10_000), min_size=1, max_size=12), total=st.integers(-1_000_000, 1_000_000))
def test_shares_are_the_whole_and_none_is_a_unit_off(weights: list[int], total: int) -> None:
    shares = prorated(weights, total)

    assert sum(shares) == total
    if sum(weights):
        assert all(abs(share - Fraction(total * weight, sum(weights))) < 1 for share, weight in zip(shares, weights, strict=True))


@given(exact=st.lists(st.fractions(-1000, 1000, max_denominator=1000), min_size=1, max_size=10))
def test_apportioning_keeps_the_total(exact: list[Fraction]) -> None:
    total = rounded(sum(exact, Fraction(0)), RoundingMode.HALF_UP)

    assert sum(apportioned(exact, total)) == total


@given(amount=st.fractions(-1000, 1000, max_denominator=1000), mode=st.sampled_from(RoundingMode))
def test_rounding_mirrors_at_zero(amount: Fraction, mode: RoundingMode) -> None:
    assert rounded(-amount, mode) == -rounded(amount, mode)
    assert abs(rounded(amount, mode) - amount) < 1


@given(basket=lines, rules=rule_sets(), data=st.data())
def test_refunds_never_give_back_more_than_was_taken_and_the_last_leaves_nothing(
    basket: list[Line], rules: list[Rule], data: st.DataObject
) -> None:
    rows = compute(basket, lambda line: by(rules, line))
    sold = {n: line.amount for n, line in enumerate(basket)}
    before = dict.fromkeys(sold, 0)
    back: list[Row] = []
    for _ in range(data.draw(st.integers(0, 4))):
        now = {n: data.draw(st.integers(0, sold[n] - before[n])) for n in sold}
        back += reversed_rows(rows, sold=sold, before=before, now=now)
        before = {n: before[n] + now[n] for n in sold}
        for row in rows:
            returned = -sum(each.amount for each in back if _same(each, row))
            assert 0 <= returned <= row.amount
    back += reversed_rows(rows, sold=sold, before=before, now={n: sold[n] - before[n] for n in sold})

    for row in rows:
        if sold[row.line]:
            assert sum(each.amount for each in back if _same(each, row)) == -row.amount
            assert sum(each.taxable_amount for each in back if _same(each, row)) == -row.taxable_amount


def _same(one: Row, other: Row) -> bool:
    return (one.line, one.rule_version, one.level, one.reason) == (other.line, other.rule_version, other.level, other.reason)


@pytest.mark.parametrize("scope", list(RoundingScope))
def test_no_price_holds_more_tax_than_itself(scope: RoundingScope) -> None:
    """Two taxes that are rounded up are two cents apart, and one cent together, in a price of one."""
    rules = [rule("0.0001", level.value, level=level, rounding=RoundingMode.UP, scope=scope) for level in (Level.STATE, Level.COUNTY)]

    rows = compute([Line(amount=1, included=True)], lambda _: rules)

    assert sorted(row.amount for row in rows) == [0, 1]
