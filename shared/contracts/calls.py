"""Calls to providers, as whoever looks into an outcome sees them."""

from datetime import datetime

import msgspec


class TriedCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call to the provider about an operation, and what came of it."""

    operation: str
    classification: str
    status: int | None
    called_at: datetime
