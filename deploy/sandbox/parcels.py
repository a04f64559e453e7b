"""The sandbox's carrier: its rates, the labels it sold and where their parcels are, in books of its own."""

import sqlite3
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from deploy.sandbox.books import Refused, now
from shared.ids import new_id

RATE_LIFETIME_SECONDS = 7 * 24 * 3600.0
# A box that is large for its weight is charged by its volume (the usual divisor of 5000 cm³ a kilogram).
MM3_PER_GRAM = 5_000
GRAMS_PER_STEP = 500
NUMBER_DIGITS = 12
NEAR = frozenset(
    {
        *("AT", "BE", "BG", "CH", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GB", "GR", "HR", "HU"),
        *("IE", "IT", "LI", "LT", "LU", "LV", "MT", "NL", "NO", "PL", "PT", "RO", "SE", "SI", "SK"),
    }
)
OUTSIDE_EU = frozenset({"CH", "GB", "NO", "LI"})
# Who is in another country's customs territory, and where, inside of a country, every parcel needs a declaration.
CUSTOMS_UNIONS = {"MC": "FR", "LI": "CH", "IM": "GB", "PR": "US"}
DECLARED: dict[str, tuple[str, ...]] = {
    "DE": ("27498", "78266"),
    "ES": ("35", "38", "51", "52"),
    "FI": ("22",),
    "FR": ("97", "984", "986", "987", "988"),
    "GR": ("63086", "63087"),
    "IT": ("22061", "23041"),
}
US_DECLARED = frozenset({"AA", "AE", "AP", "AS", "GU", "MP", "VI"})


class Service(msgspec.Struct, frozen=True):
    """A way to ship: what it costs to begin with and for each half kilogram, by how far it goes, and how long it takes."""

    name: str
    base: tuple[int, int, int]
    step: tuple[int, int, int]
    days: tuple[int, int, int]
    # Charged when it is scanned: giving it back means nothing.
    billed_on_scan: bool = False


SERVICES = (
    Service("economy", (390, 890, 1490), (20, 70, 190), (4, 8, 20), billed_on_scan=True),
    Service("ground", (490, 1190, 2290), (40, 110, 290), (2, 5, 12)),
    Service("express", (1290, 2490, 3990), (90, 210, 490), (1, 2, 4)),
)

# What a parcel goes through, unless somebody has other plans for it.
ROUTE = (
    ("pre_transit", "label_created", "The label was made"),
    ("picked_up", "accepted", "Taken in"),
    ("in_transit", "departed", "Left the sorting centre"),
    ("out_for_delivery", "on_vehicle", "On the way to the door"),
    ("delivered", "handed_over", "Handed over"),
)
SCANNED = frozenset({"picked_up", "in_transit", "out_for_delivery", "available_for_pickup", "exception", "delivered", "return_to_sender"})


class Rate(msgspec.Struct, kw_only=True):
    """A price that holds for a while."""

    id: str
    service: str
    amount: int
    currency: str
    transit_days: int
    expires_at: str


class Scan(msgspec.Struct, kw_only=True):
    """Something that was seen of a parcel."""

    id: str
    status: str
    code: str
    detail: str
    location: str
    occurred_at: str
    sequence: int
    estimated_delivery: str | None = None


class Parcel(msgspec.Struct, kw_only=True):
    """One package on its way."""

    tracking_number: str
    weight_grams: int
    scans: list[Scan] = []


class Label(msgspec.Struct, kw_only=True):
    """A label that was sold."""

    id: str
    reference: str | None
    service: str
    amount: int
    currency: str
    status: str
    document: str
    is_return: bool
    ship_from: dict[str, Any]
    ship_to: dict[str, Any]
    parcels: list[Parcel]
    created_at: str
    insured_amount: int | None = None
    # Through which face it was sold.
    face: str = ""
    # Whether its void was decided later than it was requested.
    void_was_pending: bool = False


class Carrier:
    """Every rate, label and parcel the sandbox knows, labels and parcels also after a restart."""

    def __init__(self, file: Path | None) -> None:
        self._db = sqlite3.connect(str(file) if file else ":memory:", isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = OFF")
        self._db.execute("CREATE TABLE IF NOT EXISTS labels (id TEXT PRIMARY KEY, body BLOB NOT NULL)")
        self.labels: dict[str, Label] = {}
        self.rates: dict[str, Rate] = {}
        self.rate_lifetime_seconds = RATE_LIFETIME_SECONDS
        # A void is granted at once, or when somebody says so.
        self.grants_voids = True
        # Told of what happens: what, the label, and the scan if there is one.
        self.tell: Callable[[str, Label, Parcel | None, Scan | None], None] = lambda *_: None
        for _, body in self._db.execute("SELECT id, body FROM labels ORDER BY id"):
            label = msgspec.json.decode(body, type=Label)
            self.labels[label.id] = label

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def quote(self, body: dict[str, Any]) -> list[Rate]:
        """Price a shipment by every service."""
        parcels, zone = _parcels(body), _zone(body)
        currency = str(body.get("currency") or "EUR")
        expires = now() + timedelta(seconds=self.rate_lifetime_seconds)
        found = []
        for service in SERVICES:
            amount = sum(service.base[zone] + service.step[zone] * (_chargeable(each) // GRAMS_PER_STEP) for each in parcels)
            rate = Rate(
                id=f"rate_{new_id().hex}",
                service=service.name,
                amount=amount,
                currency=currency,
                transit_days=service.days[zone],
                expires_at=expires.isoformat(),
            )
            self.rates[rate.id] = rate
            found.append(rate)
        return found

    def buy(self, body: dict[str, Any]) -> Label:
        """Sell a label for a rate; every call sells one, whoever asks."""
        rate = self.rates.get(str(body.get("rate_id")))
        if rate is None:
            raise Refused(404, "rate_not_found", f"No such rate: {body.get('rate_id')}")
        if rate.expires_at <= now().isoformat():
            raise Refused(409, "rate_expired", "The rate has expired")
        ship_from, ship_to = _address(body, "from"), _address(body, "to")
        if not (_customs_areas(ship_from) & _customs_areas(ship_to)) and not body.get("customs"):
            raise Refused(422, "customs_needed", "Goods that cross a customs border need a declaration")
        label = Label(
            id=f"lbl_{new_id().hex}",
            reference=body.get("reference"),
            service=rate.service,
            amount=rate.amount,
            currency=rate.currency,
            status="purchased",
            document=str(body.get("document") or "pdf"),
            is_return=bool(body.get("is_return")),
            ship_from=ship_from,
            ship_to=ship_to,
            parcels=[
                Parcel(tracking_number=f"SBX{int(new_id()) % 10**NUMBER_DIGITS:0{NUMBER_DIGITS}d}", weight_grams=each["weight_grams"])
                for each in _parcels(body)
            ],
            created_at=now().isoformat(),
            insured_amount=body.get("insured_amount"),
            face=str(body.get("face") or ""),
        )
        return self.keep(label)

    def keep(self, label: Label) -> Label:
        """Write a label down."""
        self.labels[label.id] = label
        self._db.execute(
            "INSERT INTO labels VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET body = excluded.body", (label.id, msgspec.json.encode(label))
        )
        return label

    def get(self, label_id: str) -> Label:
        """Find a label."""
        found = self.labels.get(label_id)
        if found is None:
            raise Refused(404, "label_not_found", f"No such label: {label_id}")
        return found

    def find(self, reference: str) -> list[Label]:
        """Find what was sold under a reference."""
        return [label for label in self.labels.values() if label.reference == reference]

    def sold(
        self, *, since: str, until: str, after: str, limit: int, face: str, newest_first: bool = False
    ) -> tuple[list[Label], str | None]:
        """List labels sold through a face, a page of those of a time behind one of them; gives the page and the next page's cursor."""
        moments = [None if not text else datetime.fromisoformat(text.replace(" ", "+")) for text in (since, until)]

        def within(label: Label) -> bool:
            made = datetime.fromisoformat(label.created_at)
            return (moments[0] is None or made >= moments[0]) and (moments[1] is None or made < moments[1])

        def behind(label: Label) -> bool:
            return not after or (label.id < after if newest_first else label.id > after)

        found = [label for label in self.labels.values() if label.face == face and behind(label) and within(label)]
        found.sort(key=lambda label: label.id, reverse=newest_first)
        return found[:limit], found[limit - 1].id if len(found) > limit else None

    def forget(self, label: Label) -> None:
        """Strike a label out, as if it had never been."""
        del self.labels[label.id]
        self._db.execute("DELETE FROM labels WHERE id = ?", (label.id,))

    def parcel(self, tracking_number: str) -> tuple[Label, Parcel]:
        """Find a parcel by its number."""
        for label in self.labels.values():
            for parcel in label.parcels:
                if parcel.tracking_number == tracking_number:
                    return label, parcel
        raise Refused(404, "parcel_not_found", f"No such parcel: {tracking_number}")

    def void(self, label: Label) -> Label:
        """Take a label back, unless it was used, or costs nothing until it is."""
        if label.status in ("refunded", "void_requested"):
            return label
        if any(scan.status in SCANNED for parcel in label.parcels for scan in parcel.scans):
            label.status = "rejected"
        elif next(service for service in SERVICES if service.name == label.service).billed_on_scan:
            label.status = "not_applicable"
        else:
            label.status = "refunded" if self.grants_voids else "void_requested"
            label.void_was_pending = not self.grants_voids
        self.keep(label)
        self.tell("label.void", label, None, None)
        return label

    def decide_void(self, label: Label, *, granted: bool) -> Label:
        """Say what became of a void that was asked for."""
        label.status = "refunded" if granted else "rejected"
        self.keep(label)
        self.tell("label.void", label, None, None)
        return label

    def move(self, tracking_number: str, body: dict[str, Any]) -> Scan:
        """Have a parcel seen: at the next stop of its route, or as somebody says."""
        label, parcel = self.parcel(tracking_number)
        on_route = [scan.status for scan in parcel.scans if scan.status in {stop[0] for stop in ROUTE}]
        ahead = [stop for stop in ROUTE if stop[0] not in on_route]
        status, code, detail = ahead[0] if ahead else ROUTE[-1]
        if body.get("status"):
            status, code, detail = str(body["status"]), str(body.get("code") or "as_told"), str(body.get("detail") or "")
        estimated = now() + timedelta(days=2)
        scan = Scan(
            id=f"scan_{new_id().hex}",
            status=status,
            code=code,
            detail=detail,
            location=str(body.get("location") or label.ship_to.get("city") or ""),
            # Sent as it is given: a time may be without its zone, or be missing.
            occurred_at=str(body["occurred_at"] or "") if "occurred_at" in body else now().isoformat(),
            sequence=len(parcel.scans),
            estimated_delivery=None if status == "delivered" else estimated.replace(microsecond=0).isoformat(),
        )
        parcel.scans.append(scan)
        self.keep(label)
        self.tell("parcel.moved", label, parcel, scan)
        return scan


def _parcels(body: dict[str, Any]) -> list[dict[str, Any]]:
    parcels = body.get("parcels")
    whole = isinstance(parcels, list) and parcels and all(isinstance(p, dict) and int(p.get("weight_grams") or 0) > 0 for p in parcels)
    if not whole:
        raise Refused(400, "parcels_invalid", "parcels must be a list of objects with weight_grams")
    assert isinstance(parcels, list), "it was looked at just now"
    return parcels


def _chargeable(parcel: dict[str, Any]) -> int:
    volume = int(parcel.get("length_mm") or 0) * int(parcel.get("width_mm") or 0) * int(parcel.get("height_mm") or 0)
    return max(int(parcel["weight_grams"]), volume // MM3_PER_GRAM)


def _address(body: dict[str, Any], name: str) -> dict[str, Any]:
    address = body.get(name)
    if not isinstance(address, dict) or not address.get("country_code"):
        raise Refused(400, "address_invalid", f"{name} must be an address with a country_code")
    return address


def _customs_areas(address: dict[str, Any]) -> set[str]:
    """Tell between which places carriers want no declaration."""
    country = CUSTOMS_UNIONS.get(address["country_code"], str(address["country_code"]))
    area, postal_code = str(address.get("country_area") or "").upper(), str(address.get("postal_code") or "")
    if country == "US" and area in US_DECLARED:
        return set()
    if any(postal_code.startswith(prefix) for prefix in DECLARED.get(country, ())):
        return set()
    northern = country == "GB" and postal_code.upper().startswith("BT")
    return {country, *(("EU",) if country in NEAR - OUTSIDE_EU or northern else ())}


def _zone(body: dict[str, Any]) -> int:
    here, there = _address(body, "from")["country_code"], _address(body, "to")["country_code"]
    if here == there:
        return 0
    return 1 if {here, there} <= NEAR else 2
