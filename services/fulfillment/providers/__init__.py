"""What carriers and tax engines must do, and how they may answer."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol, runtime_checkable
from uuid import UUID

import msgspec

from services.fulfillment.domain.shipping.customs import Terms
from services.fulfillment.domain.shipping.labels import LabelStatus
from services.fulfillment.domain.shipping.tracking import TrackingEvent
from services.fulfillment.domain.tax.engine import Line, Row
from services.fulfillment.domain.tax.rules import Rule
from services.fulfillment.domain.tax.sale import Sale
from shared.contracts.fulfillment.pricing import PackageBody, TableBody
from shared.contracts.orders import Address, OrderContent
from shared.errors import Refusal
from shared.http_client import Answer
from shared.provider_answers import AnswerFormat
from shared.provider_values import ID_MAX_CHARACTERS, check_amount, check_currency, check_moment, check_number, check_text

TRANSIT_DAYS_MAX = 1_000


class Unsupported(Refusal):
    """The carrier cannot do this; nothing was sent."""

    code = "unsupported-by-provider"
    title = "This carrier cannot do this"
    status = 422


class CarrierRefused(Exception):
    """The carrier said no for good, with its own reason: nothing was bought or changed."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code, self.detail = code, detail


def changed(answers: AnswerFormat, answer: Answer) -> dict[str, Any]:
    """Take what a change came to; raises CarrierRefused by the carrier's own word, and IndeterminateResponse for all else."""
    if (error := answers.refusal(answer)) is not None:
        raise CarrierRefused(error.code, error.message)
    return answers.shown(answer)


def tracker_of(tracker: Mapping[str, Any], field: str, tracking_number: str) -> Mapping[str, Any]:
    """Insist that a tracker is that of a tracking number; raises ValueError for another's, which an intermediary may have stored."""
    shown = str(tracker[field])
    if "".join(shown.split()).upper() != "".join(tracking_number.split()).upper():
        raise ValueError("it is another tracking number's")
    return tracker


class CarrierCapabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a carrier can do."""

    labels: bool
    documents: tuple[str, ...]
    returns: bool
    insurance: bool
    # The only currencies that an insured value may be in; any, where there are none.
    insurance_currencies: frozenset[str] = frozenset()
    multiple_packages: bool
    tracking: bool
    # Whether a rate buys one label and no second one, also when the first was given back.
    rates_buy_once: bool = False
    # Whether what customs must know is part of a rate, so that other terms need another one.
    rates_bind_terms: bool = False


class RatesRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What is to go from where to where."""

    ship_from: Address
    ship_to: Address
    packages: tuple[PackageBody, ...]
    content: OrderContent
    # The store's own tariffs, for the carrier that is a table.
    table: TableBody | None = None
    terms: Terms = Terms()


class CarrierRate(msgspec.Struct, frozen=True, kw_only=True):
    """A carrier's price of a service."""

    provider_rate_id: str
    service: str
    amount: int
    currency: str
    transit_days: int | None = None
    expires_at: datetime | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be kept."""
        check_text("provider_rate_id", self.provider_rate_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_text("service", self.service, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_amount("amount", self.amount, least=0)
        check_currency(self.currency)
        if self.transit_days is not None:
            check_number("transit_days", self.transit_days, least=0, most=TRANSIT_DAYS_MAX)
        check_moment("expires_at", self.expires_at)


class LabelRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The label to buy, exactly; repeats are the same."""

    provider_rate_id: str
    service: str
    ship_from: Address
    ship_to: Address
    packages: tuple[PackageBody, ...]
    content: OrderContent
    document: str
    insured_amount: int | None
    is_return: bool
    terms: Terms = Terms()


class BoughtPackage(msgspec.Struct, frozen=True, kw_only=True):
    """One package's number and printed label."""

    tracking_number: str
    media_type: str
    document: bytes

    def __post_init__(self) -> None:
        """Refuse what could not be kept."""
        check_text("tracking_number", self.tracking_number, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_text("media_type", self.media_type, characters_min=1, characters_max=ID_MAX_CHARACTERS)


class Bought(msgspec.Struct, frozen=True, kw_only=True):
    """A label as the carrier's books hold it."""

    provider_label_id: str
    amount: int
    currency: str
    packages: tuple[BoughtPackage, ...]
    status: LabelStatus = LabelStatus.PURCHASED

    def __post_init__(self) -> None:
        """Refuse what could not be kept."""
        check_text("provider_label_id", self.provider_label_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_amount("amount", self.amount, least=0)
        check_currency(self.currency)


class CarrierNews(msgspec.Struct, frozen=True, kw_only=True):
    """What a carrier's webhook tells: sights of a parcel, or how a label stands."""

    events: tuple[TrackingEvent, ...] = ()
    provider_label_id: str | None = None
    label_status: LabelStatus | None = None
    reference: UUID | None = None

    def __post_init__(self) -> None:
        """Refuse a name that cannot be."""
        check_text("provider_label_id", self.provider_label_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)


class Carrier(Protocol):
    """A carrier, or somebody who stands for several.

    Calls raise one of OUTCOME_UNKNOWN (shared.provider_answers), or, where they change something, CarrierRefused; nothing else.
    """

    name: str
    capabilities: CarrierCapabilities
    # Whose numbers its parcels bear.
    carrier: str
    # From when on "not found" proves that a label was not bought.
    absence_is_proof_after_seconds: float

    async def rates(self, request: RatesRequest) -> list[CarrierRate]:
        """Ask what it costs."""
        ...

    async def buy(self, request: LabelRequest, *, reference: UUID) -> Bought:
        """Buy a label; the same reference buys one, however often."""
        ...

    async def find(self, request: LabelRequest, *, reference: UUID) -> Bought | None:
        """Find out whether this request bought a label under our reference; CarrierRefused proves that it did not and will not."""
        ...

    async def void(self, provider_label_id: str, *, reference: UUID) -> LabelStatus:
        """Give a label back."""
        ...

    async def status(self, provider_label_id: str) -> LabelStatus:
        """Ask how a label stands."""
        ...

    async def track(self, tracking_number: str, *, provider_label_id: str) -> list[TrackingEvent]:
        """Read all that was seen of a parcel."""
        ...

    def read_event(self, event_type: str, payload: bytes) -> CarrierNews:
        """Read a webhook; raises ValueError."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...


class LabelRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A label as a carrier's books list it, without its printed form."""

    provider_label_id: str
    amount: int
    currency: str
    status: LabelStatus
    made_at: datetime
    reference: UUID | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be kept."""
        check_text("provider_label_id", self.provider_label_id, characters_min=1, characters_max=ID_MAX_CHARACTERS)
        check_amount("amount", self.amount, least=0)
        check_currency(self.currency)
        check_moment("made_at", self.made_at)


class LabelPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a carrier's books; `next` is the cursor of the following one."""

    labels: tuple[LabelRecord, ...]
    next: str | None


@runtime_checkable
class LabelBooks(Protocol):
    """The books of a carrier that keeps some; calls fail as a Carrier's do."""

    name: str

    async def list_labels(self, *, since: datetime, until: datetime, cursor: str | None) -> LabelPage:
        """Page through the labels sold to us, by time of creation."""
        ...

    async def get_label(self, provider_label_id: str) -> LabelRecord | None:
        """Read a label; nothing when the carrier knows none of that name."""
        ...


class TaxRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A sale whose tax is to be worked out; rules are for the engine that needs them."""

    sale: Sale
    lines: tuple[Line, ...]
    rules: Sequence[Rule]
    content: OrderContent
    ship_from: Address
    reference: UUID


class TaxEngine(Protocol):
    """Works out tax: our own engine, or a provider, whose figures are taken as they are."""

    name: str
    remote: bool

    async def quote(self, request: TaxRequest) -> list[Row]:
        """Say what the tax comes to; raises Refusal or one of OUTCOME_UNKNOWN."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
