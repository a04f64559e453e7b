"""Ids: UUIDv7 everywhere, so that rows written together lie together."""

from uuid import UUID, uuid5

from uuid_utils.compat import uuid7


def new_id() -> UUID:
    """Make a fresh time-ordered id (UUIDv7, RFC 9562)."""
    return uuid7()


def derived_id(parent: UUID, name: str) -> UUID:
    """Make the same id for the same parent and name, every time (UUIDv5)."""
    return uuid5(parent, name)
