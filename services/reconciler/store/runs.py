"""Runs in SQL: begun once, taken under a lease, and moved on page by page by whoever holds it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from services.reconciler.domain.runs import Phase, Schedule, Status
from shared.contracts.books import Book, Domain
from shared.contracts.reconciler import ListRuns, RunView, StartRun
from shared.contracts.settlements import ImportSettlements
from shared.database import Connection, Pool, Record, Statement, connected
from shared.ids import new_id
from shared.messages import Envelope, Environment

ERROR_MAX_CHARACTERS = 1000


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is ours as long as our lease lasts: what it compares, and where it is."""

    id: UUID
    store_id: UUID
    environment: Environment
    domain: Domain
    provider: str
    since: datetime
    until: datetime
    status: Status
    position: datetime
    phase: Phase
    cursor: str | None
    attempts: int
    lease_token: int
    actor: str
    correlation_id: str


_COLUMNS = """
    id, store_id, environment, domain, provider, since, until, status, position, phase, cursor, attempts, lease_token, actor,
    correlation_id
"""
_SHOWN = """
    id, domain, provider, since, until, status, position, compared, elsewhere, drift_found, drift_healed, attempts, last_error, actor,
    schedule, source, created_at, started_at, finished_at
"""


def _run(row: Record) -> Run:
    return msgspec.convert(dict(row), Run)


def started(envelope: Envelope, run_id: UUID, command: StartRun) -> Statement:
    """Write a run that somebody asked for."""
    return Statement(
        """
        INSERT INTO reconciliation_runs (id, store_id, environment, domain, provider, since, until, position, actor, correlation_id)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $6, $8, $9)
        """,
        (
            run_id,
            envelope.store_id,
            envelope.environment.value,
            command.domain.value,
            command.provider,
            command.since,
            command.until,
            envelope.actor,
            envelope.correlation_id,
        ),
    )


def of_file(envelope: Envelope, run_id: UUID, command: ImportSettlements) -> Run:
    """Describe the run that a payout report is: over the time of its lines, and done when it is read."""
    moments = [line.settled_at for line in command.lines if line.settled_at is not None] or [datetime.now(UTC)]
    first, last = min(moments), max(moments) + timedelta(seconds=1)
    return Run(
        id=run_id,
        store_id=envelope.store_id,
        environment=envelope.environment,
        domain=Domain.PAYMENTS,
        provider=command.provider,
        since=first,
        until=last,
        status=Status.COMPLETED,
        position=last,
        phase=Phase.OURS,
        cursor=None,
        attempts=0,
        lease_token=0,
        actor=envelope.actor,
        correlation_id=envelope.correlation_id,
    )


def imported(run: Run, *, compared: int, found: int) -> Statement:
    """Write a piece of a payout report as part of its run."""
    return Statement(
        """
        INSERT INTO reconciliation_runs (id, store_id, environment, domain, provider, since, until, position, actor, correlation_id, source,
                                         status, compared, drift_found, pages, started_at, finished_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, 'settlement', 'completed', $10, $11, 1, now(), now())
        ON CONFLICT (id) DO UPDATE
           SET compared = reconciliation_runs.compared + EXCLUDED.compared, pages = reconciliation_runs.pages + 1, finished_at = now(),
               drift_found = reconciliation_runs.drift_found + EXCLUDED.drift_found,
               since = least(reconciliation_runs.since, EXCLUDED.since), until = greatest(reconciliation_runs.until, EXCLUDED.until)
        """,
        (
            run.id,
            run.store_id,
            run.environment.value,
            run.domain.value,
            run.provider,
            run.since,
            run.until,
            run.actor,
            run.correlation_id,
            compared,
            found,
        ),
    )


async def take_due(pool: Pool, *, lease_seconds: float, limit: int) -> list[Run]:
    """Take runs that are due and that nobody works on."""
    async with connected(pool) as db:
        rows = await db.fetch(
            f"""
            UPDATE reconciliation_runs
               SET status = 'running', started_at = coalesce(started_at, now()), attempts = attempts + 1, lease_token = lease_token + 1,
                   lease_expires_at = now() + make_interval(secs => $1), next_try_at = now() + make_interval(secs => $1)
             WHERE id = ANY(ARRAY(SELECT id
                                    FROM reconciliation_runs
                                   WHERE status <> 'completed' AND next_try_at <= now() AND lease_expires_at <= now()
                                   ORDER BY next_try_at
                                   LIMIT $2
                                     FOR UPDATE SKIP LOCKED))
            RETURNING {_COLUMNS}
            """,
            lease_seconds,
            limit,
        )
    return [_run(row) for row in rows]


def moved_on(run: Run, after: Run, *, compared: int, elsewhere: int, found: int, healed: int, lease_seconds: float) -> Statement:
    """Write how far a run is, only while it is ours; `after` is where it will be."""
    return Statement(
        """
        UPDATE reconciliation_runs
           SET position = $3, phase = $4, cursor = $5, status = $6, compared = compared + $7, elsewhere = elsewhere + $8,
               drift_found = drift_found + $9, drift_healed = drift_healed + $10, pages = pages + 1, attempts = 1, last_error = NULL,
               lease_expires_at = CASE WHEN $6 = 'completed' THEN now() ELSE now() + make_interval(secs => $11) END,
               next_try_at = now() + make_interval(secs => $11),
               finished_at = CASE WHEN $6 = 'completed' THEN now() END
         WHERE id = $1 AND lease_token = $2
        RETURNING id
        """,
        (
            run.id,
            run.lease_token,
            after.position,
            after.phase.value,
            after.cursor,
            after.status.value,
            compared,
            elsewhere,
            found,
            healed,
            lease_seconds,
        ),
        must=True,
    )


async def renew(pool: Pool, run: Run, *, lease_seconds: float) -> bool:
    """Keep a run while a page takes its time; false when somebody else has it."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            UPDATE reconciliation_runs
               SET lease_expires_at = now() + make_interval(secs => $3), next_try_at = now() + make_interval(secs => $3)
             WHERE id = $1 AND lease_token = $2 AND status <> 'completed'
            """,
            run.id,
            run.lease_token,
            lease_seconds,
        )
    return result == "UPDATE 1"


async def put_off(pool: Pool, run: Run, *, error: str, again_seconds: float) -> None:
    """Let a run go that cannot go on now, and say why."""
    async with connected(pool) as db:
        await db.execute(
            """
            UPDATE reconciliation_runs
               SET last_error = $3, lease_expires_at = now(), next_try_at = now() + make_interval(secs => $4)
             WHERE id = $1 AND lease_token = $2 AND status <> 'completed'
            """,
            run.id,
            run.lease_token,
            error[:ERROR_MAX_CHARACTERS],
            again_seconds,
        )


async def release(pool: Pool, run: Run) -> None:
    """Let a run go that another process may go on with at once."""
    async with connected(pool) as db:
        await db.execute(
            "UPDATE reconciliation_runs SET lease_expires_at = now(), next_try_at = now() WHERE id = $1 AND lease_token = $2",
            run.id,
            run.lease_token,
        )


# What the provider's side of a window held


def saw(run: Run, keys: Sequence[str]) -> Statement:
    """Remember what the provider listed."""
    return Statement(
        "INSERT INTO reconciliation_seen (run_id, key) SELECT $1, unnest($2::text[]) ON CONFLICT DO NOTHING", (run.id, list(keys))
    )


async def unseen(db: Connection, run: Run, keys: Sequence[str]) -> list[str]:
    """Tell which of our keys the provider did not list in this window."""
    rows = await db.fetch(
        """
        SELECT asked.key
          FROM unnest($2::text[]) WITH ORDINALITY AS asked (key, position)
         WHERE NOT EXISTS (SELECT FROM reconciliation_seen s WHERE s.run_id = $1 AND s.key = asked.key)
         ORDER BY asked.position
        """,
        run.id,
        list(keys),
    )
    return [row["key"] for row in rows]


def forgot(run: Run) -> Statement:
    """Forget what the provider listed: the window is done."""
    return Statement("DELETE FROM reconciliation_seen WHERE run_id = $1", (run.id,))


# Showing


async def page(db: Connection, envelope: Envelope, query: ListRuns, *, limit: int) -> list[RunView]:
    """Read a page of a store's runs, the newest first."""
    rows = await db.fetch(
        f"""
        SELECT {_SHOWN}
          FROM reconciliation_runs
         WHERE store_id = $1 AND environment = $2 AND ($3::text IS NULL OR domain = $3) AND ($4::uuid IS NULL OR id < $4)
         ORDER BY id DESC
         LIMIT $5
        """,
        envelope.store_id,
        envelope.environment.value,
        None if query.domain is None else query.domain.value,
        query.before,
        limit,
    )
    return [msgspec.convert(dict(row), RunView) for row in rows]


async def one(db: Connection, envelope: Envelope, run_id: UUID) -> RunView | None:
    """Read a run of a store's."""
    row = await db.fetchrow(
        f"""
        SELECT {_SHOWN}
          FROM reconciliation_runs
         WHERE id = $1 AND store_id IS NOT DISTINCT FROM $2 AND environment IS NOT DISTINCT FROM $3
        """,
        run_id,
        envelope.store_id,
        envelope.environment.value,
    )
    return None if row is None else msgspec.convert(dict(row), RunView)


# Schedules and who fires them


async def lead(pool: Pool, role: str, holder: UUID, *, lease_seconds: float) -> int | None:
    """Become or stay the leader; gives the number that what a leader writes must bear, or nothing when somebody else leads."""
    async with connected(pool) as db:
        token: int | None = await db.fetchval(
            """
            INSERT INTO leaders (role, holder, token, expires_at)
            VALUES ($1, $2, 1, now() + make_interval(secs => $3))
            ON CONFLICT (role) DO UPDATE
               SET token = leaders.token + CASE WHEN leaders.holder = EXCLUDED.holder THEN 0 ELSE 1 END,
                   holder = EXCLUDED.holder, expires_at = EXCLUDED.expires_at
             WHERE leaders.holder = EXCLUDED.holder OR leaders.expires_at <= now()
            RETURNING token
            """,
            role,
            holder,
            lease_seconds,
        )
    return token


async def resign(pool: Pool, role: str, holder: UUID) -> None:
    """Let another lead at once."""
    async with connected(pool) as db:
        await db.execute("UPDATE leaders SET expires_at = now() WHERE role = $1 AND holder = $2", role, holder)


async def fired(db: Connection) -> tuple[datetime, dict[str, datetime]]:
    """Tell the database's time, and when each schedule was fired last."""
    rows = await db.fetch("SELECT schedule, fired_at FROM schedules_fired")
    now: datetime = await db.fetchval("SELECT now()")
    return now, {row["schedule"]: row["fired_at"] for row in rows}


def fire(
    schedule: Schedule, books: Sequence[Book], *, role: str, token: int, due: datetime, since: datetime, until: datetime
) -> list[Statement]:
    """Begin a schedule's runs, one a book and time, only while we lead."""
    runs = Statement(
        """
        INSERT INTO reconciliation_runs (id, store_id, environment, domain, provider, since, until, position, actor, correlation_id,
                                         schedule, due_at)
        SELECT id, store_id, environment, $5, provider, $6, $7, $6, 'schedule', id::text, $8, $9
          FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[]) AS book (id, store_id, environment, provider)
        ON CONFLICT (schedule, due_at, store_id, environment, provider) WHERE schedule IS NOT NULL DO NOTHING
        """,
        (
            [new_id() for _ in books],
            [book.store_id for book in books],
            [book.environment for book in books],
            [book.provider for book in books],
            schedule.domain.value,
            since,
            until,
            schedule.name,
            due,
        ),
    )
    remembered = Statement(
        """
        INSERT INTO schedules_fired (schedule, fired_at, token)
        SELECT $1, $2, $3
         WHERE EXISTS (SELECT FROM leaders WHERE role = $4 AND token = $3 AND expires_at > now())
        ON CONFLICT (schedule) DO UPDATE
           SET fired_at = EXCLUDED.fired_at, token = EXCLUDED.token
         WHERE schedules_fired.token <= EXCLUDED.token
        RETURNING schedule
        """,
        (schedule.name, due, token, role),
        must=True,
    )
    return [runs, remembered]
