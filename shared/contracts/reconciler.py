"""What the reconciler can be told and asked, and what it answers."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from shared.contracts.books import Domain
from shared.messages import Message, Query

PAGE_ROWS_MAX = 200


class StartRun(Message, frozen=True, kw_only=True, tag="reconciler.start_run.v1"):
    """Compare a store's books of a time with a provider's."""

    domain: Domain
    provider: str
    since: datetime
    until: datetime


class ResolveDrift(Message, frozen=True, kw_only=True, tag="reconciler.resolve_drift.v1"):
    """Settle a difference by an operator's word: accept it as it is, or have our books learn what the provider says."""

    drift_id: UUID
    action: str
    reason: str


class ListRuns(Query, frozen=True, kw_only=True, tag="reconciler.list_runs.v1"):
    """Read a page of runs, the newest first."""

    domain: Domain | None = None
    before: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class GetRun(Query, frozen=True, kw_only=True, tag="reconciler.get_run.v1"):
    """Read a run."""

    run_id: UUID


class ListDrift(Query, frozen=True, kw_only=True, tag="reconciler.list_drift.v1"):
    """Read a page of differences, the newest first."""

    status: str | None = None
    domain: Domain | None = None
    drift_type: str | None = None
    run_id: UUID | None = None
    before: UUID | None = None
    limit: int = PAGE_ROWS_MAX


class RunView(msgspec.Struct, frozen=True, kw_only=True):
    """A run: what it covers, how far it is and what it found."""

    id: UUID
    domain: Domain
    provider: str
    since: datetime
    until: datetime
    status: str
    # How far the comparing has come.
    position: datetime
    compared: int
    # Of the provider's account, but another store's.
    elsewhere: int
    drift_found: int
    drift_healed: int
    attempts: int
    last_error: str | None
    actor: str
    schedule: str | None
    # With what: the provider's books, or a report of what it paid out.
    source: str
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of runs; `next` is the cursor of the following one."""

    runs: list[RunView]
    next: UUID | None = None


class DriftView(msgspec.Struct, frozen=True, kw_only=True):
    """A difference between our books and a provider's, with what each side says."""

    id: UUID
    domain: Domain
    provider: str
    type: str
    key: str
    entry: str
    ours: dict[str, Any] | None
    theirs: dict[str, Any] | None
    order_id: UUID | None
    status: str
    first_run_id: UUID
    last_run_id: UUID
    first_seen_at: datetime
    last_seen_at: datetime
    settled_at: datetime | None
    resolution: str | None
    reason: str
    actor: str


class DriftPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of differences; `next` is the cursor of the following one."""

    items: list[DriftView]
    next: UUID | None = None


MESSAGES: tuple[type[Message], ...] = (StartRun, ResolveDrift, ListRuns, GetRun, ListDrift)
