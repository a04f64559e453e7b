"""What a tax provider that keeps books must do: record documents, and say what it has recorded."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol, runtime_checkable
from uuid import UUID

import msgspec

from shared.contracts.orders import Address


class TaxRefusedForGood(Exception):
    """The provider will not record this document, for a reason of its own."""


class FiledLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a document: its price without tax and its tax, in minor units; negative in a reversal."""

    # Nothing for shipping.
    line: int | None
    net_amount: int
    tax_amount: int
    tax_code: str = ""


class TaxParties(msgspec.Struct, frozen=True, kw_only=True):
    """From where to where was sold, as the provider was told when it worked the tax out."""

    ship_from: Address
    ship_to: Address
    ship_from_region: str
    ship_to_region: str
    customer: str = "guest"
    # By line ("shipping" for its own) the certificate that freed it; and whether that is all of the sale.
    certificates: dict[str, str] = {}
    exempt: bool = False

    def certificate(self, line: int | None) -> str:
        """Name the certificate that freed a line; empty where none did."""
        return self.certificates.get("shipping" if line is None else str(line), "")


class TaxFiling(msgspec.Struct, frozen=True, kw_only=True):
    """A document to be recorded, exactly; repeats are the same."""

    document_id: UUID
    kind: str
    currency: str
    recorded_at: datetime
    parties: TaxParties
    lines: tuple[FiledLine, ...]
    # Of a reversal: the sale it takes back.
    reverses: UUID | None = None

    @property
    def net_amount(self) -> int:
        """What was sold, without tax."""
        return sum(line.net_amount for line in self.lines)

    @property
    def tax_amount(self) -> int:
        """Its tax."""
        return sum(line.tax_amount for line in self.lines)


class TaxRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A document as a provider's books hold it."""

    key: str
    kind: str
    # Empty where the provider names none.
    currency: str
    net_amount: int
    tax_amount: int
    made_at: datetime
    standing: bool = True


class TaxRecordPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a provider's books; `next` is the cursor of the following one."""

    records: tuple[TaxRecord, ...]
    next: str | None


@runtime_checkable
class TaxBooks(Protocol):
    """The books of a tax provider; calls raise one of OUTCOME_UNKNOWN, or TaxRefusedForGood."""

    name: str

    async def file(self, filing: TaxFiling) -> None:
        """Record a document; one that is recorded already stays as it is."""
        ...

    async def get_record(self, key: str) -> TaxRecord | None:
        """Read a document by our name for it."""
        ...

    async def list_records(self, *, since: datetime, until: datetime, cursor: str | None) -> TaxRecordPage:
        """Page through what was recorded for us in a time."""
        ...


def by_line(lines: Sequence[FiledLine]) -> tuple[list[FiledLine], Mapping[str, int]]:
    """Tell goods from what shipping came to: net and tax."""
    shipping = [line for line in lines if line.line is None]
    sums = {"net": sum(line.net_amount for line in shipping), "tax": sum(line.tax_amount for line in shipping)}
    return [line for line in lines if line.line is not None], sums
