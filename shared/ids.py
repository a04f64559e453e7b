"""Ids: UUIDv7 everywhere, so that rows written together lie together."""

from datetime import datetime
from uuid import UUID

import uuid_utils
from uuid_utils.compat import uuid7

NOBODY = UUID(int=0)
"""Stands where a message is for no store in particular."""


def new_id() -> UUID:
    """Make a fresh time-ordered id (UUIDv7, RFC 9562)."""
    return uuid7()


def new_id_text() -> str:
    """Make a fresh time-ordered id as the text that it travels as."""
    return str(uuid_utils.uuid7())


def first_id_at(moment: datetime) -> UUID:
    """Tell the smallest id that can be minted at a moment: a UUIDv7 begins with its milliseconds."""
    return UUID(int=int(moment.timestamp() * 1000) << 80)
