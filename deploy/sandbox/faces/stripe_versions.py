"""Stripe's API versions: which one a request speaks, and since when Stripe does otherwise (docs.stripe.com/changelog)."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

CURRENT = "2026-10-28.endive"
WRITTEN = re.compile(r"20\d\d-\d\d-\d\d(\.[a-z]+)?")

# A PaymentIntent has `latest_charge` and no `charges`, and a charge's refunds come only when asked for (changelog/2022-11-15).
LATEST_CHARGE = "2022-11-15"
# Every refund has refund.created, refund.updated and refund.failed (changelog/acacia/2024-10-28/refund-webhook-update).
EVENTS_OF_EVERY_REFUND = "2024-10-28"
# What is held and let go is no Refund (changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow).
NO_REFUND_OF_THE_REST = "2025-03-31"
# payment_method_types cannot be written (changelog/endive/2026-09-30/removes-the-payment-method-types-parameter-from-payment-intents-…).
NO_PAYMENT_METHOD_TYPES = "2026-09-30"

_spoken: ContextVar[str | None] = ContextVar("stripe_version", default=None)


def speak(version: str) -> None:
    """Have what follows in this request be as a version has it."""
    _spoken.set(version)


@contextmanager
def speaking(version: str) -> Iterator[None]:
    """Have what is done inside be as a version has it."""
    before = _spoken.set(version)
    try:
        yield
    finally:
        _spoken.reset(before)


def spoken(default: str = CURRENT) -> str:
    """Say which version is spoken."""
    return _spoken.get() or default


def before(day: str) -> bool:
    """Tell whether the version spoken is older than a change."""
    return older(spoken(), day)


def older(version: str, day: str) -> bool:
    """Tell whether a version is older than a change."""
    return version[: len(day)] < day
