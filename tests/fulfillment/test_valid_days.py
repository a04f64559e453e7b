"""First and last days: each is a day of its time, the day before and the day after are not; and borders of thresholds."""

from collections.abc import Callable
from datetime import date, timedelta
from typing import Any

import pytest

from services.fulfillment.domain.shipping.customs import registered_in
from services.fulfillment.domain.tax.importing import changes
from services.fulfillment.domain.tax.sale import Exemption, Registration
from services.fulfillment.domain.tax.thresholds import Period, State, Threshold, percent, spans, state
from shared.contracts.fulfillment.tax import NexusBody
from tests.fulfillment.rates import rule

FIRST, LAST, A_DAY = date(2026, 6, 1), date(2026, 6, 30), timedelta(days=1)


def _registered(day: date, **days: Any) -> bool:
    nexus = NexusBody(country="GB", registration_number="GB123456789", **days)
    return bool(registered_in([nexus], day=day).numbers)


VALID: dict[str, Callable[..., bool]] = {
    "registration": lambda day, **days: Registration(country="US", **days).valid_on(day),
    "exemption": lambda day, **days: Exemption(certificate="C", country="US", **days).covers("US", "US-WA", "", day),
    "rule": lambda day, **days: rule("9", **days).valid_on(day),
    "number on labels": _registered,
}


@pytest.mark.parametrize("what", VALID)
@pytest.mark.parametrize(
    ("days", "valid"),
    [
        ({"valid_from": FIRST, "valid_to": LAST}, [False, True, True, False]),
        ({"valid_from": FIRST}, [False, True, True, True]),
        ({"valid_from": FIRST, "valid_to": FIRST}, [False, True, False, False]),
    ],
    ids=["a month", "for ever", "one day"],
)
def test_first_and_last_days_are_in_and_no_others(what: str, days: dict[str, date], valid: list[bool]) -> None:
    """A registration that is left out on its last day collects no tax then."""
    assert [VALID[what](day, **days) for day in (FIRST - A_DAY, FIRST, LAST, LAST + A_DAY)] == valid


@pytest.mark.parametrize(
    ("today", "period", "found"),
    [
        (date(2026, 1, 1), Period.CALENDAR_YEAR, [("2026-01-01", "2026-01-01")]),
        (date(2026, 12, 31), Period.CALENDAR_YEAR, [("2026-01-01", "2026-12-31")]),
        (date(2026, 1, 1), Period.CURRENT_OR_PREVIOUS_YEAR, [("2026-01-01", "2026-01-01"), ("2025-01-01", "2025-12-31")]),
        (date(2026, 3, 10), Period.ROLLING_YEAR, [("2025-03-11", "2026-03-10")]),
    ],
)
def test_thresholds_count_whole_spans_of_days(today: date, period: Period, found: list[tuple[str, str]]) -> None:
    assert spans(today, period) == [(date.fromisoformat(first), date.fromisoformat(last)) for first, last in found]


@pytest.mark.parametrize(("amount", "near"), [(7_999, State.BELOW), (8_000, State.NEAR), (9_999, State.NEAR), (10_000, State.REACHED)])
def test_a_threshold_is_near_at_80_and_reached_at_100(amount: int, near: State) -> None:
    assert state(percent(Threshold(amount=10_000, count=None), amount=amount, count=0)) is near


@pytest.mark.parametrize(
    ("begins", "ends"),
    [(FIRST - A_DAY, None), (FIRST, None), (FIRST + A_DAY, FIRST), (LAST, LAST - A_DAY), (LAST + A_DAY, None)],
    ids=["before its first day", "on its first day", "after its first day", "on its last day", "after its last day"],
)
def test_an_import_ends_what_a_new_rule_follows(begins: date, ends: date | None) -> None:
    """A rule ends on the day before the next one's first day, if that day is within its time."""
    old = rule("9", version="old", valid_from=FIRST, valid_to=LAST)

    found = changes([old], [rule("10", version="new", valid_from=begins)])

    assert [after.valid_to for _, after in found.ended] == ([] if ends is None else [ends])
    assert found.missing == ((old,) if ends is None else ())
