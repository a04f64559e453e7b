"""A store's settings in SQL, and the revision that tells when to read them again."""

from datetime import datetime
from uuid import UUID

import msgspec

from shared.contracts.fulfillment.pricing import SettingsView, StoreSettings
from shared.database import Connection, Statement
from shared.messages import Envelope


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """A store's settings as they stand; no settings when nobody made any."""

    settings: StoreSettings | None
    revision: int
    updated_at: datetime | None
    now: datetime


async def standing(db: Connection, store_id: UUID, environment: str) -> Standing:
    """Read a store's settings."""
    row = await db.fetchrow(
        """
        SELECT now() AS now, s.settings, s.revision, s.updated_at
          FROM (SELECT 1) AS always
          LEFT JOIN store_settings s ON s.store_id = $1 AND s.environment = $2
        """,
        store_id,
        environment,
    )
    assert row is not None, "the row is always there"
    return Standing(
        settings=None if row["settings"] is None else msgspec.json.decode(row["settings"], type=StoreSettings),
        revision=row["revision"] or 0,
        updated_at=row["updated_at"],
        now=row["now"],
    )


def kept(envelope: Envelope, settings: StoreSettings) -> Statement:
    """Write a store's settings; gives the new revision."""
    return Statement(
        """
        INSERT INTO store_settings (store_id, environment, settings)
        VALUES ($1, $2, $3)
        ON CONFLICT (store_id, environment) DO UPDATE
           SET settings = EXCLUDED.settings, revision = store_settings.revision + 1, updated_at = now()
        RETURNING revision
        """,
        (envelope.store_id, envelope.environment.value, msgspec.json.encode(settings).decode()),
    )


def changed(store_id: UUID, environment: str) -> Statement:
    """Say that a store's rules or registrations are not what they were."""
    return Statement(
        """
        INSERT INTO store_settings (store_id, environment)
        VALUES ($1, $2)
        ON CONFLICT (store_id, environment) DO UPDATE
           SET revision = store_settings.revision + 1, updated_at = now()
        """,
        (store_id, environment),
    )


def view(found: Standing) -> SettingsView | None:
    """Show a store's settings, if there are any."""
    if found.settings is None or found.updated_at is None:
        return None
    return SettingsView(settings=found.settings, revision=found.revision, updated_at=found.updated_at)
