"""Labels and tax documents as they are compared: our records and a provider's word in the same terms."""

from datetime import datetime
from uuid import UUID

from services.fulfillment.domain.shipping.labels import LabelStatus
from shared.contracts.books import Entry, EntryStatus, Side

LABEL = "label"
VOID = "void"
# How a void ended, where one was asked for.
VOIDS = {
    LabelStatus.VOID_REQUESTED: EntryStatus.OPEN,
    LabelStatus.REFUNDED: EntryStatus.DONE,
    LabelStatus.REJECTED: EntryStatus.NOT_DONE,
    LabelStatus.NOT_APPLICABLE: EntryStatus.NOT_DONE,
}
BUYING, FAILED = "buying", "failed"


def label_side(
    *,
    key: str,
    status: str,
    amount: int | None,
    currency: str,
    made_at: datetime,
    reference: UUID | None = None,
    order_id: UUID | None = None,
) -> Side:
    """Show a label: that it was bought for so much, and how its void ended."""
    bought = {BUYING: EntryStatus.OPEN, FAILED: EntryStatus.NOT_DONE}.get(status, EntryStatus.DONE)
    entries = [Entry(kind=LABEL, status=bought, currency=currency, amount=amount, provider_id=key or None, reference=reference)]
    if status in VOIDS:
        void = VOIDS[LabelStatus(status)]
        entries.append(Entry(kind=VOID, status=void, currency=currency, provider_id=key or None, reference=reference))
    return Side(
        key=key,
        entries=tuple(entries),
        made_at=made_at,
        order_id=order_id,
        # What is being bought is the resolver's, and so is a void that the carrier has not decided.
        in_flight=status in (BUYING, LabelStatus.VOID_REQUESTED),
    )


def tax_side(
    *,
    key: str,
    kind: str,
    net_amount: int,
    tax_amount: int,
    currency: str,
    made_at: datetime,
    standing: bool = True,
    order_id: UUID | None = None,
    in_flight: bool = False,
) -> Side:
    """Show a tax document: what was sold or taken back, and its tax; one that was struck out stands no more."""
    status = EntryStatus.DONE if standing else EntryStatus.NOT_DONE
    figures = {kind: net_amount, f"{kind}_tax": tax_amount}
    return Side(
        key=key,
        entries=tuple(
            Entry(kind=name, status=status, currency=currency, amount=amount, provider_id=key) for name, amount in figures.items()
        ),
        made_at=made_at,
        order_id=order_id,
        in_flight=in_flight,
    )
