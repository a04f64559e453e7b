"""Tracking tells the truth: the cases K1 to K12 of public reports, and properties of any feed of several parcels."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from services.fulfillment.domain.shipping.shipments import WHOLE, as_a_whole
from services.fulfillment.domain.shipping.tracking import EARLY_MAX, TrackingEvent, TrackingStatus, history, of_parcel, project
from services.fulfillment.providers.easypost import EasyPost, tracker_for
from services.fulfillment.providers.sandbox import SandboxCarrier
from services.fulfillment.providers.shippo import Shippo

S = TrackingStatus
START = datetime(2026, 6, 1, 8, tzinfo=UTC)
EASYPOST = EasyPost(base_url="https://api.easypost.com", api_key="x", timeout_seconds=1.0)
SHIPPO = Shippo(base_url="https://api.goshippo.com", api_key="x", timeout_seconds=1.0)
SANDBOX = SandboxCarrier(base_url="https://sandbox.invalid", api_key="x", timeout_seconds=1.0)


def seen(status: TrackingStatus, hour: float, **facts: Any) -> TrackingEvent:
    return TrackingEvent(carrier="easypost", tracking_number="T1", occurred_at=START + timedelta(hours=hour), status=status, **facts)


def tracker(*details: Any, **facts: Any) -> bytes:
    """EasyPost's webhook with a tracker (docs.easypost.com/docs/trackers, Tracker object)."""
    result = {"object": "Tracker", "tracking_code": "EZ1", "est_delivery_date": None, "tracking_details": list(details), **facts}
    return msgspec.json.encode({"object": "Event", "result": result})


def detail(status: str, at: object, **facts: Any) -> dict[str, Any]:
    return {"object": "TrackingDetail", "status": status, "status_detail": "status_update", "message": "", "datetime": at, **facts}


def track(*entries: Any, **facts: Any) -> bytes:
    """Shippo's webhook with a track (docs.goshippo.com/docs/tracking/tracking)."""
    data = {"carrier": "usps", "tracking_number": "SH1", "eta": None, "tracking_history": list(entries), **facts}
    return msgspec.json.encode({"event": "track_updated", "test": True, "data": data})


def entry(status: str, at: object, **facts: Any) -> dict[str, Any]:
    return {"status": status, "status_details": "", "status_date": at, "substatus": None, "location": None, **facts}


def read_easypost(*details: Any, **facts: Any) -> list[TrackingEvent]:
    return list(EASYPOST.read_event("tracker.updated", tracker(*details, **facts)).events)


def read_shippo(*entries: Any, **facts: Any) -> list[TrackingEvent]:
    return list(SHIPPO.read_event("track_updated", track(*entries, **facts)).events)


# K1: github.com/shlee322/delivery-tracker issue 50. K4, a parcel that goes back is "delivered" to its sender: thibmaek/bpost issue 93,
# allegro/allegro-api issue 12775, ha-parcel-integrations/ha-dhl-nl issue 18.
STORIES: list[tuple[str, list[TrackingEvent], TrackingStatus]] = [
    ("K1 delivered 5 minutes before out for delivery", [seen(S.DELIVERED, 5), seen(S.OUT_FOR_DELIVERY, 5.1)], S.DELIVERED),
    ("K3 an exception after the delivery", [seen(S.DELIVERED, 5), seen(S.EXCEPTION, 6)], S.DELIVERED),
    ("K4 back at the sender", [seen(S.IN_TRANSIT, 1), seen(S.RETURN_TO_SENDER, 5), seen(S.DELIVERED, 9)], S.RETURN_TO_SENDER),
    ("K4 back at the sender in the same moment", [seen(S.DELIVERED, 5), seen(S.RETURN_TO_SENDER, 5)], S.RETURN_TO_SENDER),
    ("K4 returned twice", [seen(S.RETURN_TO_SENDER, 5), seen(S.DELIVERED, 9), seen(S.RETURN_TO_SENDER, 10)], S.RETURN_TO_SENDER),
    ("K5 on the way back", [seen(S.RETURN_TO_SENDER, 5), seen(S.IN_TRANSIT, 6)], S.RETURN_TO_SENDER),
    ("K5 out for delivery to the sender", [seen(S.RETURN_TO_SENDER, 5), seen(S.OUT_FOR_DELIVERY, 6)], S.RETURN_TO_SENDER),
    ("K5 at the sender's post office", [seen(S.RETURN_TO_SENDER, 5), seen(S.AVAILABLE_FOR_PICKUP, 6)], S.RETURN_TO_SENDER),
    ("K5 lost on the way back", [seen(S.RETURN_TO_SENDER, 5), seen(S.EXCEPTION, 6)], S.RETURN_TO_SENDER),
    ("K5 no word of it any more", [seen(S.RETURN_TO_SENDER, 5), seen(S.UNKNOWN, 6)], S.RETURN_TO_SENDER),
    ("a return that was none", [seen(S.RETURN_TO_SENDER, 5), seen(S.DELIVERED, 9, correction=True)], S.DELIVERED),
    ("a correction, and then a return", [seen(S.IN_TRANSIT, 5, correction=True), seen(S.RETURN_TO_SENDER, 9)], S.RETURN_TO_SENDER),
    ("K12 an exception, then moving", [seen(S.EXCEPTION, 5), seen(S.IN_TRANSIT, 6)], S.IN_TRANSIT),
]


@pytest.mark.parametrize(("events", "status"), [pytest.param(events, status, id=name) for name, events, status in STORIES])
def test_each_story_ends_so_in_every_order(events: list[TrackingEvent], status: TrackingStatus) -> None:
    ends = {project(order) for order in permutations(events)}

    assert [end.status for end in ends] == [status]
    assert [end.delivered_at is not None for end in ends] == [status is S.DELIVERED]


def test_a_returned_parcel_is_expected_by_no_customer() -> None:
    soon = START + timedelta(days=2)
    way = [seen(S.IN_TRANSIT, 1, estimated_delivery=soon), seen(S.RETURN_TO_SENDER, 5), seen(S.IN_TRANSIT, 6, estimated_delivery=soon)]

    assert project(way).estimated_delivery is None


class TestTimes:
    @pytest.mark.parametrize("read", [read_easypost, read_shippo], ids=["easypost", "shippo"])
    def test_a_time_without_zone_is_utc_and_says_so(self, read: Any) -> None:
        """K7: EasyPost: "timestamps default to UTC" (docs.easypost.com/docs/trackers). Shippo: `status_date` "is displayed in UTC"."""
        make, first, last = (detail, "in_transit", "delivered") if read is read_easypost else (entry, "TRANSIT", "DELIVERED")
        events = read(make(first, "2026-06-01T10:00:00"), make(last, "2026-06-01T13:00:00+02:00"))

        assert [event.occurred_at for event in history(events)] == [START + timedelta(hours=2), START + timedelta(hours=3)]
        assert [event.zone_assumed for event in history(events)] == [True, False]
        assert project(events).status is S.DELIVERED

    def test_one_sight_with_and_without_its_zone_is_one_event(self) -> None:
        times = ("2026-06-01T10:00:00", "2026-06-01T10:00:00Z", "2026-06-01T12:00:00+02:00", "2026-06-01 10:00:00 UTC", "2026-06-01 10:00")

        for order in permutations(times):
            [event] = history(read_easypost(*(detail("in_transit", at) for at in order)))
            assert (event.occurred_at, event.zone_assumed) == (START + timedelta(hours=2), False)

    def test_an_estimate_that_is_no_time_costs_no_event(self) -> None:
        for estimate in ("soon", 7, "0001-01-01T00:00:00+23:59", ["x"]):
            [event] = read_easypost(detail("in_transit", "2026-06-01T10:00:00Z"), est_delivery_date=estimate)
            assert event.estimated_delivery is None


NOT_READ: list[Any] = [None, "", "never", 7, "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", [], {}]


class TestEntries:
    @pytest.mark.parametrize("at", NOT_READ, ids=[repr(at) for at in NOT_READ])
    def test_an_entry_without_a_time_costs_itself_alone(self, at: object) -> None:
        """K8 and K9: goshippo/shippo-javascript-sdk issue 18 (no `status_date`), EasyPost/easypost-csharp pull 103 (nulls)."""
        before = REGISTRY.get_sample_value("tender_tracking_entries_left_out_total", {"carrier": "easypost"}) or 0.0

        easypost = read_easypost(detail("pre_transit", at), detail("in_transit", "2026-06-01T10:00:00Z"))
        shippo = read_shippo(entry("PRE_TRANSIT", at), entry("TRANSIT", "2026-06-01T10:00:00Z"))

        assert [project(events).status for events in (easypost, shippo)] == [S.IN_TRANSIT, S.IN_TRANSIT]
        assert REGISTRY.get_sample_value("tender_tracking_entries_left_out_total", {"carrier": "easypost"}) == before + 1

    def test_an_entry_without_its_time_field_costs_itself_alone(self) -> None:
        """K8, word for word: `status_date` is not there at all."""
        unused = {"status": "PRE_TRANSIT", "status_details": "Pre-Transit: Shipment information has been transmitted"}

        assert read_shippo(unused) == []
        assert len(read_shippo(unused, entry("TRANSIT", "2026-06-01T10:00:00Z"))) == 1

    @pytest.mark.parametrize("other", [None, "x", 7, [], {}], ids=repr)
    def test_what_is_no_entry_costs_itself_alone(self, other: Any) -> None:
        assert len(read_easypost(other, detail("delivered", "2026-06-01T10:00:00Z"))) == 1
        assert len(read_shippo(other, entry("DELIVERED", "2026-06-01T10:00:00Z"))) == 1

    def test_nulls_and_odd_kinds_beside_the_time_cost_nothing(self) -> None:
        """K9: every other field is null, of another kind, or too long to be kept."""
        odd: list[Any] = [None, "x" * 5000, ["x"], {"a": None}, 7, "a\0b"]
        easypost = [
            detail("in_transit", f"2026-06-01T10:00:{n:02}Z", message=each, status_detail=each, tracking_location=each)
            for n, each in enumerate(odd)
        ]
        shippo = [
            entry("TRANSIT", f"2026-06-01T10:00:{n:02}Z", status_details=each, substatus=each, location=each) for n, each in enumerate(odd)
        ]

        assert len(read_easypost(*easypost)) == len(read_shippo(*shippo)) == len(odd)

    @pytest.mark.parametrize("history_", [None, {}, "x", 7], ids=repr)
    def test_no_history_is_no_event(self, history_: Any) -> None:
        assert read_easypost(tracking_details=history_) == []
        assert read_shippo(tracking_history=history_) == []

    def test_an_unknown_word_is_kept_and_changes_nothing(self) -> None:
        """K11: karrioapi/karrio issue 144, home-assistant/core issue 135335."""
        events = read_easypost(detail("in_transit", "2026-06-01T10:00:00Z"), detail("teleported", "2026-06-01T11:00:00Z"))

        assert len(events) == 2
        assert project(events).status is S.IN_TRANSIT

    def test_a_history_told_backwards_is_the_same(self) -> None:
        """Several scans of one minute keep the carrier's own order."""
        way = [
            detail("in_transit", at, status_detail=code)
            for at, code in (
                ("2026-06-01T10:00:00Z", "arrived_at_facility"),
                ("2026-06-01T10:05:00Z", "arrived_at_facility"),
                ("2026-06-01T10:05:00Z", "departed_facility"),
            )
        ]

        assert history(read_easypost(*way)) == history(read_easypost(*reversed(way)))
        assert project(read_easypost(*way)).detail == "departed_facility"


OWN: dict[str, Any] = {"tracking_code": "EZ1", "shipment_id": "shp_own", "tracking_details": []}
UNNAMED: dict[str, Any] = {**OWN, "shipment_id": None}
OTHERS: dict[str, Any] = {**OWN, "shipment_id": "shp_other"}


class TestWhoseTracker:
    """EasyPost lists every tracker with a code (docs.easypost.com/docs/trackers, list; `shipment_id` names the shipment it is of)."""

    def test_the_shipments_own_is_chosen_wherever_it_is_listed(self) -> None:
        for order in permutations([OWN, UNNAMED, OTHERS, None, {"tracking_code": None}, {}]):
            assert tracker_for(order, "EZ1", "shp_own") is OWN

    def test_one_of_no_shipment_will_do_and_one_of_another_will_not(self) -> None:
        assert tracker_for([OTHERS, UNNAMED], "EZ1", "shp_own") is UNNAMED
        assert tracker_for([OTHERS], "EZ1", "shp_own") is None
        assert tracker_for([], "EZ1", "shp_own") is None

    def test_another_numbers_answer_is_none(self) -> None:
        with pytest.raises(ValueError, match="another"):
            tracker_for([{**OWN, "tracking_code": "EZ2"}], "EZ1", "shp_own")


class TestWhoseEvent:
    def test_what_is_from_before_the_label_is_another_parcels(self) -> None:
        """K6: docs.easypost.com/docs/trackers: "Carriers recycle codes over time"."""
        old, own = seen(S.DELIVERED, -24 * 365), seen(S.IN_TRANSIT, 5)

        assert of_parcel([old, own], made_at=START, followed_at=None) == [own]

    def test_clocks_zones_and_days_may_differ(self) -> None:
        """A day without a time, at UTC-12: 36 hours early; nothing that is of this parcel can be earlier."""
        early, too_early = seen(S.PRE_TRANSIT, -36), seen(S.PRE_TRANSIT, -36.01)

        assert timedelta(hours=24 + 12) == EARLY_MAX
        assert of_parcel([early, too_early], made_at=START, followed_at=None) == [early]

    def test_what_is_from_after_the_next_label_is_the_next_parcels(self) -> None:
        events = [seen(S.DELIVERED, 24 * day) for day in (3, 200)]
        next_made = START + timedelta(days=190)

        assert of_parcel(events, made_at=START, followed_at=next_made) == events[:1]
        assert of_parcel(events, made_at=next_made, followed_at=None) == events[1:]


class TestTheWhole:
    def test_every_status_is_in_the_table_once(self) -> None:
        assert sorted(WHOLE) == sorted(TrackingStatus)

    @pytest.mark.parametrize(
        ("parcels", "whole"),
        [
            ([], S.UNKNOWN),
            ([S.DELIVERED, S.IN_TRANSIT], S.IN_TRANSIT),
            ([S.DELIVERED, S.RETURN_TO_SENDER], S.RETURN_TO_SENDER),
            ([S.IN_TRANSIT, S.RETURN_TO_SENDER], S.RETURN_TO_SENDER),
            ([S.EXCEPTION, S.RETURN_TO_SENDER, S.DELIVERED], S.EXCEPTION),
            ([S.OUT_FOR_DELIVERY, S.AVAILABLE_FOR_PICKUP], S.OUT_FOR_DELIVERY),
            ([S.DELIVERED, S.CANCELLED], S.DELIVERED),
            ([S.UNKNOWN, S.DELIVERED], S.UNKNOWN),
            ([S.CANCELLED, S.CANCELLED], S.CANCELLED),
        ],
        ids=lambda value: value.value if isinstance(value, S) else "+".join(value) or "none",
    )
    def test_several_parcels_have_one_whole(self, parcels: list[TrackingStatus], whole: TrackingStatus) -> None:
        assert {as_a_whole(order) for order in permutations(parcels)} == {whole}


# What a carrier may tell of several parcels: with and without a zone, in other words, out of order, again, in part.
FEED = st.lists(
    st.tuples(
        st.integers(0, 2), st.sampled_from(sorted({"teleported", *(status.value for status in S)})), st.integers(0, 5), st.booleans()
    ),
    max_size=14,
)


def told(feed: Iterable[tuple[int, str, int, bool]]) -> dict[int, list[TrackingEvent]]:
    """Read a feed: each entry is a webhook of its own."""
    by_parcel: dict[int, list[TrackingEvent]] = {0: [], 1: [], 2: []}
    for parcel, status, hour, zone in feed:
        [event] = read_easypost(detail(status, f"2026-06-01T{8 + hour:02}:00:00{'Z' if zone else ''}"), tracking_code=f"EZ{parcel}")
        by_parcel[parcel].append(event)
    return by_parcel


def whole_of(by_parcel: dict[int, list[TrackingEvent]]) -> tuple[Any, ...]:
    ends = {parcel: project(events) for parcel, events in by_parcel.items()}
    return (ends, {parcel: history(events) for parcel, events in by_parcel.items()}, as_a_whole(end.status for end in ends.values()))


@given(feed=FEED, seed=st.integers(0, 2**32))
def test_any_order_and_repeats_of_several_parcels_end_the_same(feed: list[tuple[int, str, int, bool]], seed: int) -> None:
    chance = random.Random(seed)
    again = [*feed, *chance.choices(feed, k=len(feed))] if feed else []
    chance.shuffle(again)

    assert whole_of(told(again)) == whole_of(told(feed))


@given(feed=FEED)
def test_a_zone_left_out_of_utc_changes_no_end(feed: list[tuple[int, str, int, bool]]) -> None:
    zoned = told((parcel, status, hour, True) for parcel, status, hour, _ in feed)

    assert whole_of(told(feed))[0] == whole_of(zoned)[0]


def expected(events: list[TrackingEvent]) -> TrackingStatus:
    """The rule in other words: what ends the story first in time ends it, a delivery unless it was sent back; else the last sight."""
    ordered = sorted(events, key=lambda event: (event.occurred_at, list(S).index(event.status)))
    said = [event.status for event in ordered if event.status is not S.UNKNOWN]
    final = next((status for status in said if status in (S.RETURN_TO_SENDER, S.CANCELLED)), None)
    return final or (S.DELIVERED if S.DELIVERED in said else said[-1] if said else S.UNKNOWN)


@given(feed=FEED, kept=st.lists(st.booleans(), min_size=14, max_size=14))
def test_whatever_is_lost_the_rest_ends_by_the_rule(feed: list[tuple[int, str, int, bool]], kept: list[bool]) -> None:
    rest = told(each for each, is_kept in zip(feed, kept, strict=False) if is_kept)

    for events in rest.values():
        # Of one moment the order is another matter (see RANK); here each counts once a moment.
        alone = list({event.occurred_at: event for event in sorted(events, key=lambda event: event.status.value)}.values())
        assert project(alone).status is expected(alone)
