"""Where a parcel is: the same from any order and any number of tellings of what was seen."""

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.fulfillment.domain.shipping.tracking import Alert, TrackingEvent, TrackingStatus, history, project

START = datetime(2026, 6, 1, 8, tzinfo=UTC)
S = TrackingStatus


def seen(status: str, hour: int, **facts: Any) -> TrackingEvent:
    return TrackingEvent(
        carrier="sandbox", tracking_number="T1", occurred_at=START + timedelta(hours=hour), status=TrackingStatus(status), **facts
    )


STORIES: list[tuple[str, list[TrackingEvent], str]] = [
    ("nothing yet", [], "unknown"),
    ("a usual one", [seen("pre_transit", 0), seen("picked_up", 1), seen("in_transit", 2), seen("delivered", 30)], "delivered"),
    ("a scan after the delivery", [seen("delivered", 30), seen("in_transit", 31)], "delivered"),
    ("an exception that passes", [seen("in_transit", 2), seen("exception", 3), seen("out_for_delivery", 20)], "out_for_delivery"),
    ("delivered and sent back", [seen("delivered", 30), seen("return_to_sender", 50)], "return_to_sender"),
    ("sent back, then delivered to the sender", [seen("return_to_sender", 30), seen("delivered", 50)], "return_to_sender"),
    ("at one moment", [seen("delivered", 30), seen("out_for_delivery", 30)], "delivered"),
    ("cancelled", [seen("pre_transit", 0), seen("cancelled", 5)], "cancelled"),
    ("cancelled and moving", [seen("cancelled", 5), seen("in_transit", 9), seen("delivered", 30)], "cancelled"),
    ("a delivery that was none", [seen("delivered", 30), seen("in_transit", 31, correction=True)], "in_transit"),
    ("a correction of what came later", [seen("in_transit", 29, correction=True), seen("delivered", 30)], "delivered"),
    ("the carrier does not know any more", [seen("in_transit", 2), seen("unknown", 9)], "in_transit"),
]


@pytest.mark.parametrize(("events", "status"), [pytest.param(events, status, id=name) for name, events, status in STORIES])
def test_each_story_ends_so(events: list[TrackingEvent], status: str) -> None:
    assert project(events).status == status


EVENTS = st.lists(
    st.builds(
        lambda status, hour, code, sequence, detail, correction: seen(
            status,
            hour,
            code=code,
            sequence=sequence,
            detail=detail,
            correction=correction,
            estimated_delivery=START + timedelta(days=hour),
        ),
        st.sampled_from([status.value for status in TrackingStatus]),
        st.integers(0, 6),
        st.sampled_from(["", "A", "B"]),
        st.integers(0, 2),
        st.sampled_from(["", "on its way", "unterwegs"]),
        st.booleans(),
    ),
    max_size=10,
)


@given(events=EVENTS, seed=st.integers(0, 2**32))
def test_any_order_and_any_repeats_end_the_same(events: list[TrackingEvent], seed: int) -> None:
    chance = random.Random(seed)
    told = [*events, *chance.choices(events, k=len(events))] if events else []
    chance.shuffle(told)

    assert project(told) == project(events)
    assert history(told) == history(events)


@given(events=EVENTS)
def test_a_delivery_is_never_undone_by_a_scan(events: list[TrackingEvent]) -> None:
    delivered = seen("delivered", 3)
    scans = [e for e in events if not e.correction and e.status not in (S.RETURN_TO_SENDER, S.CANCELLED, S.DELIVERED)]

    assert project([*scans, delivered]).status is S.DELIVERED


def test_a_voided_label_that_travels_is_somebodys_to_look_at() -> None:
    cancelled = [seen("pre_transit", 0), seen("cancelled", 5)]

    assert project(cancelled).alert is None
    assert project([*cancelled, seen("unknown", 6)]).alert is None
    assert project([*cancelled, seen("picked_up", 9)]).alert is Alert.VOID_BUT_MOVING


def test_says_when_it_was_delivered_and_when_it_will_be() -> None:
    soon, later = START + timedelta(days=1), START + timedelta(days=2)
    way = [seen("in_transit", 2, estimated_delivery=later), seen("out_for_delivery", 20, estimated_delivery=soon)]

    assert project(way[::-1]).estimated_delivery == soon
    assert project([*way, seen("delivered", 30)]).delivered_at == START + timedelta(hours=30)
    assert project([*way, seen("delivered", 30), seen("return_to_sender", 40)]).delivered_at is None


def test_the_same_sight_in_other_words_is_one_event() -> None:
    told = [seen("in_transit", 2, detail=detail) for detail in ("on its way", "unterwegs")]

    assert len(history(told)) == 1
    assert history(told) == history(told[::-1])
    assert len(history([seen("in_transit", 2, location="Lyon"), seen("in_transit", 2, location="Paris")])) == 2
