"""Ids: UUIDv7 everywhere, so that rows written together lie together."""

from uuid import UUID

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Make a fresh time-ordered id (UUIDv7, RFC 9562)."""
    return uuid7()
