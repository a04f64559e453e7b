"""What has an age or a due time: of every job's rows one on either side of the border, and only the one past it is touched."""

from collections.abc import AsyncIterator, Mapping, Sequence
from uuid import UUID

import asyncpg
import msgspec
import pytest

from services.gateway.handlers.commands import MakeCustomerToken
from shared.ids import first_id_at, new_id
from shared.messages import encode, type_of
from tests.world import Place, World, a_world, until

SERVICES = ("gateway", "payments", "webhooks", "fulfillment", "reconciler")
STORE = new_id()


Sides = tuple[Sequence[Mapping[str, str]], Sequence[Mapping[str, str]]]


class Border(msgspec.Struct, frozen=True, kw_only=True):
    """A border in time that a job looks at: the rows that it acts on, and those that it must leave alone."""

    table: str
    key: str
    # SQL of what the rows have in common; the key is given, but where a row's age is in it.
    row: Mapping[str, str]
    # The rows past the border, and those before it, each by what is its own.
    sides: Sides
    # How to see that a row was acted upon; by default it is gone.
    acted: str = ""
    # The key is an id that holds its time, or is bytes.
    aged_ids: bool = False
    bytes_key: bool = False


def ago(time: str) -> str:
    """A moment in SQL."""
    return f"now() - interval '{time}'"


def around(column: str, past: str, before: str) -> Sides:
    """One row on either side, by one column."""
    return [{column: ago(past)}], [{column: ago(before)}]


def _of_every_service(service: str) -> dict[str, Border]:
    ours = {"store_id": f"'{STORE}'", "environment": "'sandbox'"}
    return {
        f"{service}: processes not seen": Border(
            # The young one is no longer counted as alive, so that its figures are not read.
            table=f"{service}.service_replicas",
            key="name",
            row={"figures": "'{}'"},
            sides=around("seen_at", "70 seconds", "15 seconds"),
        ),
        f"{service}: finished messages": Border(
            table=f"{service}.inbox",
            key="message_id",
            row={**ours, "source": "'tests'", "type": "'t'", "digest": "''", "state": "'done'", "reply": "''"},
            sides=around("finished_at", "45 days 1 hour", "44 days 23 hours"),
        ),
        f"{service}: spans": Border(
            table=f"{service}.spans",
            key="trace_id",
            row={
                **dict.fromkeys(("span_id", "parent_id", "name", "kind"), "''"),
                "duration_us": "1",
                "failed": "false",
                "attributes": "'{}'",
            },
            sides=around("started_at", "25 hours", "23 hours"),
        ),
    }


OPERATION = {
    "scope": "'tests'",
    "request_hash": "''",
    "command_type": f"'{type_of(MakeCustomerToken)}'",
    "store_id": f"'{STORE}'",
    "environment": "'sandbox'",
    "actor": "'tests'",
    "correlation_id": "'tests'",
    "traceparent": "''",
}
COMMAND = f"'\\x{encode(MakeCustomerToken(customer_id=new_id())).hex()}'"
RATE = {
    "store_id": f"'{STORE}'",
    "environment": "'sandbox'",
    "order_id": "gen_random_uuid()",
    **dict.fromkeys(("priced_hash", "carrier", "provider_rate_id", "service"), "'x'"),
    "amount": "1",
    "currency": "'EUR'",
    "packages": "'[]'",
}
TAX_QUOTE = {
    "store_id": f"'{STORE}'",
    "environment": "'sandbox'",
    "order_id": "gen_random_uuid()",
    **dict.fromkeys(("priced_hash", "tax_hash"), "'x'"),
    "quote": "'{}'",
}
EVENT = {
    "store_id": f"'{STORE}'",
    "received_for": f"'{STORE}'",
    "environment": "'sandbox'",
    "provider": "'sandbox'",
    "account": "'sandbox:default'",
    "provider_event_id": "gen_random_uuid()::text",
    "event_type": "'payment.authorize.succeeded'",
}
LETTER = {
    "identity": "uuid_send(gen_random_uuid())",
    "store_id": f"'{STORE}'",
    "environment": "'sandbox'",
    **dict.fromkeys(("service", "queue", "source", "message_type", "actor", "correlation_id", "reason", "fingerprint"), "'x'"),
    **dict.fromkeys(("digest", "body"), "''"),
    "headers": "'{}'",
    "attempts": "1",
}
RUN = {
    "store_id": f"'{STORE}'",
    "environment": "'sandbox'",
    "domain": "'payments'",
    "provider": "'sandbox'",
    "since": ago("2 hours"),
    "until": ago("1 hour"),
    "position": ago("2 hours"),
    "actor": "'tests'",
    "correlation_id": "'tests'",
}
REDRIVE = {
    "store_id": f"'{STORE}'",
    "environment": "'sandbox'",
    "action": "'retry'",
    "ids": "'{}'",
    "chosen": "'{}'",
    "rate_per_second": "10",
    "letters": "0",
    **dict.fromkeys(("actor", "reason", "correlation_id"), "'tests'"),
}
EXPIRED, VALID = ago("1 minute"), ago("-1 hour")


def around_thirty_days_unless_valid(column: str) -> Sides:
    """What is old and expired on one side; what is younger, or old and still valid, on the other."""
    old, younger = ago("30 days 1 hour"), ago("29 days 23 hours")
    return [{column: old, "expires_at": EXPIRED}], [{column: younger, "expires_at": EXPIRED}, {column: old, "expires_at": VALID}]


BORDERS: dict[str, Border] = {
    **{name: border for service in SERVICES for name, border in _of_every_service(service).items()},
    "gateway: answers of keys": Border(
        table="gateway.idempotency_keys",
        key="operation_id",
        row={
            **OPERATION,
            "idempotency_key": "gen_random_uuid()::text",
            "status": "'completed'",
            "response_code": "200",
            "response_body": "''",
        },
        sides=around("expires_at", "1 minute", "-1 hour"),
    ),
    "gateway: operations whose caller never came back": Border(
        table="gateway.idempotency_keys",
        key="operation_id",
        row={**OPERATION, "idempotency_key": "gen_random_uuid()::text", "status": "'in_progress'", "resting": "true"},
        sides=around("driven_at", "30 days 1 hour", "29 days 23 hours"),
    ),
    "gateway: operations not driven, at their longest pause": Border(
        table="gateway.idempotency_keys",
        key="operation_id",
        row={**OPERATION, "idempotency_key": "gen_random_uuid()::text", "status": "'in_progress'", "command": COMMAND, "drives": "20"},
        acted="drives > 20",
        sides=around("driven_at", "301 seconds", "100 seconds"),
    ),
    "gateway: sessions of the console": Border(
        table="gateway.console_sessions",
        key="token_hash",
        bytes_key=True,
        row={"key_id": f"'{STORE}'"},
        sides=around("expires_at", "1 minute", "-1 hour"),
    ),
    "gateway: samples": Border(
        table="gateway.samples", key="service", row={}, sides=around("taken_at", "2 hours 1 minute", "1 hour 50 minutes")
    ),
    "fulfillment: rates": Border(
        table="fulfillment.shipment_rates",
        key="id",
        row=RATE,
        sides=around_thirty_days_unless_valid("quoted_at"),
    ),
    "fulfillment: tax of quotes": Border(
        table="fulfillment.tax_quotes",
        key="snapshot_id",
        row=TAX_QUOTE,
        sides=around_thirty_days_unless_valid("created_at"),
    ),
    "webhooks: events of providers": Border(
        table="webhooks.webhook_events",
        key="id",
        aged_ids=True,
        row={**EVENT, "status": "'processed'"},
        sides=around("received_at", "400 days 1 hour", "399 days 23 hours"),
    ),
    "webhooks: events to merchants": Border(
        table="webhooks.merchant_events",
        key="id",
        aged_ids=True,
        row={
            "store_id": f"'{STORE}'",
            "environment": "'sandbox'",
            "type": "'payment.authorized'",
            **dict.fromkeys(("order_id", "subject_id"), "gen_random_uuid()"),
            **dict.fromkeys(("sequence", "version"), "1"),
            "body": "''",
        },
        sides=around("created_at", "90 days 1 hour", "89 days 23 hours"),
    ),
    "webhooks: sample of what was refused": Border(
        table="webhooks.webhook_rejections",
        key="id",
        row={"provider": "'sandbox'", "reason": "''", "headers": "'{}'", "body_start": "''"},
        sides=around("received_at", "24 hours 1 minute", "23 hours 50 minutes"),
    ),
    "webhooks: events given up that never matched": Border(
        table="webhooks.webhook_events",
        key="id",
        row={**EVENT, "status": "'waiting'", "next_attempt_at": VALID},
        acted="status = 'unmatched'",
        sides=around("received_at", "3 days 1 hour", "2 days 23 hours"),
    ),
    "webhooks: events to match again": Border(
        table="webhooks.webhook_events",
        key="id",
        row={**EVENT, "status": "'waiting'"},
        acted="next_attempt_at IS DISTINCT FROM happened_at",
        sides=([{"next_attempt_at": EXPIRED, "happened_at": EXPIRED}], [{"next_attempt_at": VALID, "happened_at": VALID}]),
    ),
    "reconciler: dead letters dealt with": Border(
        table="reconciler.dead_letters",
        key="id",
        row={**LETTER, "status": "'discarded'", "first_seen_at": ago("50 days"), "died_at": ago("50 days")},
        sides=around("settled_at", "40 days 1 hour", "39 days 23 hours"),
    ),
    "reconciler: runs": Border(
        table="reconciler.reconciliation_runs",
        key="id",
        row=RUN,
        acted="attempts > 0",
        sides=around("next_try_at", "1 second", "-1 hour"),
    ),
    "reconciler: redrives": Border(
        table="reconciler.redrives",
        key="id",
        row=REDRIVE,
        acted="lease_token > 0",
        sides=around("next_try_at", "1 second", "-1 hour"),
    ),
}

# Whose sessions of the console there are.
A_KEY = "INSERT INTO gateway.api_keys (id, store_id, environment, role, name, secret_hash) VALUES ($1, $1, 'sandbox', 'admin', '', '')"

# Monthly partitions: how many months each is kept.
MONTHLY = {"payments.provider_call_audit": 13, "fulfillment.provider_call_audit": 13, "webhooks.webhook_payloads": 6}
MONTHS_AHEAD = 3


class Planted(msgspec.Struct, frozen=True):
    """A border's rows, by their keys."""

    past: list[str]
    before: list[str]


@pytest.fixture(scope="module")
async def planted(place: Place) -> dict[str, Planted]:
    """Rows on either side of every border, as they lie there when the services start, whose jobs run at once."""
    connection = await asyncpg.connect(place.database_url)
    try:
        async with connection.transaction():
            await connection.execute(A_KEY, STORE)
            for table, kept in MONTHLY.items():
                for months in (kept, kept + 1):
                    await connection.execute(await _partition(connection, table, months))
            return {name: await _plant(connection, border) for name, border in BORDERS.items()}
    finally:
        await connection.close()


async def _partition(connection: asyncpg.Connection, table: str, months: int) -> str:
    found: str = await connection.fetchval(
        """
        SELECT format('CREATE TABLE %s_%s PARTITION OF %s FOR VALUES FROM (%L) TO (%L)',
                      $1::text, to_char(month, 'YYYYMM'), $1, month, month + interval '1 month')
          FROM (SELECT date_trunc('month', now()) - make_interval(months => $2) AS month) AS one
        """,
        table,
        months,
    )
    return found


async def _plant(connection: asyncpg.Connection, border: Border) -> Planted:
    return Planted(*[[await _row(connection, border, more) for more in rows] for rows in border.sides])


async def _row(connection: asyncpg.Connection, border: Border, more: Mapping[str, str]) -> str:
    key = new_id()
    if border.aged_ids:
        [moment] = more.values()
        key = UUID(bytes=first_id_at(await connection.fetchval(f"SELECT {moment}")).bytes[:8] + key.bytes[8:])
    literal = f"\\x{key.hex}" if border.bytes_key else key.hex
    values = {border.key: f"'{literal}'", **border.row, **more}
    await connection.execute(f"INSERT INTO {border.table} ({', '.join(values)}) VALUES ({', '.join(values.values())})")
    return literal


@pytest.fixture(scope="module")
async def running(place: Place, planted: dict[str, Planted]) -> AsyncIterator[World]:
    async with a_world(place, gateway={"sample_every_seconds": 0.2}, webhooks={}, fulfillment={}, reconciler={}) as world:
        yield world


@pytest.mark.parametrize("name", BORDERS)
async def test_a_job_acts_past_its_border_only(running: World, planted: dict[str, Planted], name: str) -> None:
    """A comparison the wrong way round, or a border left out, deletes or repeats what is young, or leaves what is old for good."""
    border, rows = BORDERS[name], planted[name]
    sql = f"SELECT {border.key}::text AS key FROM {border.table}" + (f" WHERE NOT ({border.acted})" if border.acted else "")

    async def untouched() -> set[str]:
        return {row["key"].replace("-", "") for row in await running.rows(sql)}

    async def acted() -> bool:
        left = await untouched()
        return not set(rows.past) & left or not set(rows.before) <= left

    await until(acted)
    left = await untouched()
    assert (set(rows.past) & left, set(rows.before) - left) == (set(), set())


@pytest.mark.parametrize("table", MONTHLY)
async def test_months_are_kept_as_long_as_they_say(running: World, planted: dict[str, Planted], table: str) -> None:
    """A month's partition goes when the last of its days is past retention, and the months ahead are there."""
    wanted = """
        SELECT array_agg(format('%s_%s', split_part($1, '.', 2),
                                to_char(date_trunc('month', now()) + make_interval(months => n), 'YYYYMM'))) AS names
          FROM unnest($2::integer[]) AS n
    """
    months = [-MONTHLY[table] - 1, -MONTHLY[table], *range(MONTHS_AHEAD + 1)]
    [named] = await running.rows(wanted, table, months)
    sql = "SELECT relname FROM pg_class WHERE oid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = $1::text::regclass)"

    async def there() -> list[str]:
        return sorted(row["relname"] for row in await running.rows(sql, table))

    async def one_less() -> bool:
        return named["names"][0] not in await there()

    await until(one_less)
    assert await there() == sorted(named["names"][1:])
