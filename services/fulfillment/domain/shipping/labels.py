"""What becomes of a label: bought once, perhaps given back, and the money for it perhaps too."""

from enum import StrEnum

from shared.errors import Outcome, Refusal


class LabelStatus(StrEnum):
    """How a label stands; the last three are what its carrier says to a void."""

    PURCHASED = "purchased"
    VOID_REQUESTED = "void_requested"
    REFUNDED = "refunded"
    REJECTED = "rejected"
    NOT_APPLICABLE = "not_applicable"


# A rejected void may be asked for again (docs.easypost.com/docs/shipments/shipping-refund).
MOVES: dict[LabelStatus, frozenset[LabelStatus]] = {
    LabelStatus.PURCHASED: frozenset({LabelStatus.VOID_REQUESTED}),
    LabelStatus.VOID_REQUESTED: frozenset({LabelStatus.REFUNDED, LabelStatus.REJECTED, LabelStatus.NOT_APPLICABLE}),
    LabelStatus.REJECTED: frozenset({LabelStatus.VOID_REQUESTED, LabelStatus.REFUNDED}),
    LabelStatus.REFUNDED: frozenset(),
    LabelStatus.NOT_APPLICABLE: frozenset(),
}


class LabelFinal(Refusal):
    """A label's state does not allow this."""

    code = "invalid-label-state"
    title = "The label's state does not allow this"
    outcome = Outcome.CONFLICT


def moved(status: LabelStatus, to: LabelStatus) -> LabelStatus:
    """Move a label on; staying where it is moves nothing; refuses what carriers do not do."""
    if to is not status and to not in MOVES[status]:
        raise LabelFinal(f"A label that is {status.value} cannot become {to.value}.", {"label_status": status.value, "wanted": to.value})
    return to
