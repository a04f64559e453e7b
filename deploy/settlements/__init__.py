"""Payout reports: read line by line as a mapping says, and brought in piece by piece over the API."""

import csv
import hashlib
import tomllib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from shared.contracts.settlements import LINES_MAX, SettlementLine
from shared.errors import Clear, Refusal
from shared.money import from_decimal_text

FOLDER = Path(__file__).parent
CHUNK_BYTES = 1 << 20


class ReportRefused(Clear):
    """A report or its mapping cannot be read; the text says which line and why."""


class Columns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """In which column what stands; those with a default may be missing."""

    key: str
    category: str
    payment: str
    gross: str
    fee: str
    net: str
    currency: str
    customer_amount: str = ""
    customer_currency: str = ""
    payout: str = ""
    settled_at: str = ""


class Mapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a provider's report is to be read."""

    provider: str
    columns: Columns
    # What a category is in our ledger.
    operations: dict[str, str]


class Report:
    """A report as it is read: its lines about payments, and how many are about something else."""

    def __init__(self, file: Path, mapping: Mapping) -> None:
        self.file = file
        self.mapping = mapping
        self.sha256 = _sha256(file)
        self.left_out: dict[str, int] = {}

    def lines(self) -> Iterator[SettlementLine]:
        """Read line after line; raises ReportRefused."""
        with self.file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            columns = msgspec.structs.asdict(self.mapping.columns)
            if missing := [name for name in columns.values() if name and name not in (reader.fieldnames or ())]:
                raise ReportRefused(f"{self.file}: there is no column {missing[0]!r}.")
            for number, row in enumerate(reader, start=2):
                line = self._line(number, {name: (row.get(column) or "").strip() for name, column in columns.items() if column})
                if line is not None:
                    yield line

    def pieces(self) -> Iterator[list[SettlementLine]]:
        """Read so many lines at once as travel together."""
        return _pieces(self.lines())

    def _line(self, number: int, said: dict[str, str]) -> SettlementLine | None:
        operation = self.mapping.operations.get(said["category"])
        if operation is None or not said["payment"]:
            self.left_out[said["category"]] = self.left_out.get(said["category"], 0) + 1
            return None
        try:
            return _read(said, operation)
        except (Refusal, ValueError) as unfit:
            raise ReportRefused(f"{self.file}, line {number}: {unfit}") from unfit


def mapping_of(name: str) -> Mapping:
    """Read a mapping: one that ships, by its name, or a file."""
    file = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        return msgspec.convert(tomllib.loads(file.read_text()), Mapping)
    except (OSError, tomllib.TOMLDecodeError, msgspec.ValidationError) as unfit:
        shipped = ", ".join(sorted(each.stem for each in FOLDER.glob("*.toml")))
        raise ReportRefused(f"the mapping {name!r} cannot be read ({unfit}); there ship: {shipped}.") from unfit


def _read(said: dict[str, str], operation: str) -> SettlementLine:
    currency, charged = said["currency"].upper(), said.get("customer_currency", "").upper()
    customer_amount = said.get("customer_amount", "")
    return SettlementLine(
        key=said["key"],
        category=said["category"],
        operation=operation,
        payment=said["payment"],
        gross=from_decimal_text(said["gross"], currency).amount,
        fee=from_decimal_text(said["fee"], currency).amount,
        net=from_decimal_text(said["net"], currency).amount,
        currency=currency,
        customer_amount=abs(from_decimal_text(customer_amount, charged).amount) if customer_amount and charged else None,
        customer_currency=charged or None,
        payout=said.get("payout", ""),
        settled_at=_moment(said.get("settled_at", "")),
    )


def _moment(text: str) -> datetime | None:
    if not text:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _pieces(lines: Iterable[SettlementLine]) -> Iterator[list[SettlementLine]]:
    rest = iter(lines)
    while piece := list(islice(rest, LINES_MAX)):
        yield piece


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            while chunk := stream.read(CHUNK_BYTES):
                digest.update(chunk)
    except OSError as gone:
        raise ReportRefused(f"{file} cannot be read: {gone.strerror}") from gone
    return digest.hexdigest()


def body_of(report: Report, piece: list[SettlementLine]) -> dict[str, Any]:
    """Write a piece as the API takes it."""
    return {"provider": report.mapping.provider, "file_sha256": report.sha256, "lines": msgspec.to_builtins(piece)}
