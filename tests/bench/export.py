"""A long export: so many recorded taxes by COPY, read out twice over the API, its memory watched while it streams."""

import asyncio
import hashlib
import random
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import msgspec

from deploy import setup
from deploy.stack import Running
from services.gateway.domain import Role
from shared.ids import new_id
from shared.messages import Environment

LINES_A_DOCUMENT = 4
PROGRESS_EVERY_BYTES = 1 << 20
KIB = 1024
WATCHED = ("gateway", "fulfillment")


class Exported(msgspec.Struct, frozen=True, kw_only=True):
    """What came of exporting twice."""

    lines: int
    bytes: int
    seconds: tuple[float, float]
    same: bool
    # By how much the most memory that was held is over what was held before, in MiB.
    grown_mib: dict[str, float]
    # The same lines read by COPY, by nobody's rules.
    copied_seconds: float


async def measure(up: Running, lines: int) -> Exported:
    """Load recorded taxes of a month that is over for a store of its own, and export them twice."""
    store_id = new_id()
    key = await setup.create_key(
        up.state.database_url, store_id=store_id, environment=Environment.SANDBOX, role=Role.ADMIN, name="bench export"
    )
    last = datetime.now(UTC).date().replace(day=1) - timedelta(days=1)
    await load(up.state.database_url, store_id, last, lines // LINES_A_DOCUMENT)
    query = {"from": str(last.replace(day=1)), "to": str(last), "format": "itemized"}
    before = {name: resident_mib(up.processes[name].pid) for name in WATCHED}
    most = dict(before)
    async with httpx.AsyncClient(base_url=up.state.gateway_url, headers={"Authorization": f"Bearer {key}"}, timeout=None) as http:
        first = await _export(http, query, up, most)
        second = await _export(http, query, up, most)
    return Exported(
        lines=first[2] - 1,
        bytes=first[3],
        seconds=(first[0], second[0]),
        same=first[1] == second[1],
        grown_mib={name: most[name] - before[name] for name in WATCHED},
        copied_seconds=await _copy_out(up.state.database_url, store_id),
    )


async def _export(http: httpx.AsyncClient, query: dict[str, str], up: Running, most: dict[str, float]) -> tuple[float, str, int, int]:
    digest, lines, size, looked = hashlib.sha256(), 0, 0, 0
    started = time.monotonic()
    async with http.stream("GET", "/api/v1/admin/tax/reports/export", params=query) as answer:
        assert answer.status_code == httpx.codes.OK, await answer.aread()
        async for piece in answer.aiter_raw():
            digest.update(piece)
            lines += piece.count(b"\n")
            size += len(piece)
            if size - looked > PROGRESS_EVERY_BYTES:
                looked = size
                for name in most:
                    most[name] = max(most[name], resident_mib(up.processes[name].pid))
    return time.monotonic() - started, digest.hexdigest(), lines, size


def resident_mib(pid: int) -> float:
    """Tell how much memory a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / KIB


async def load(database_url: str, store_id: UUID, day: Any, documents: int) -> None:
    """Write so many documents of four taxes each, by COPY."""
    ids = [new_id() for _ in range(documents)]
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("SET search_path = fulfillment")
        await connection.copy_records_to_table("tax_documents", records=_documents(store_id, day, ids), columns=DOCUMENT_COLUMNS)
        await connection.copy_records_to_table("order_tax_lines", records=_lines(store_id, day, ids), columns=LINE_COLUMNS)
        await connection.execute("ANALYZE tax_documents")
        await connection.execute("ANALYZE order_tax_lines")
    finally:
        await connection.close()


DOCUMENT_COLUMNS = (
    *("id", "store_id", "environment", "kind", "order_id", "snapshot_id", "tax_hash", "provider", "currency", "tax_date", "document_date"),
    *("ship_from", "ship_to", "ship_to_region", "tax_amount", "line_amounts", "correlation_id"),
)
LINE_COLUMNS = (
    *("document_id", "position", "store_id", "environment", "order_id", "document_date", "line", "tax_code", "quantity", "country"),
    *("region", "level", "jurisdiction", "rate_percent", "taxable_amount", "untaxed_amount", "amount", "included", "reason"),
    "rule_version",
)


def _documents(store_id: UUID, day: Any, ids: list[UUID]) -> Iterator[tuple[Any, ...]]:
    for document_id in ids:
        facts = ("built_in", "EUR", day, day, "DE", "FR", "", 4 * 200, "{}", "bench")
        yield (document_id, store_id, "sandbox", "sale", document_id, document_id, "0" * 64, *facts)


def _lines(store_id: UUID, day: Any, ids: list[UUID]) -> Iterator[tuple[Any, ...]]:
    chance = random.Random(1)
    for document_id in ids:
        for position in range(LINES_A_DOCUMENT):
            net = chance.randrange(100, 100_000)
            what = (position, "household", 1, "FR", "", "country", "TVA", 20, net, 0, net // 5, False, "standard_rated", "bench")
            yield (document_id, position, store_id, "sandbox", document_id, day, *what)


async def _copy_out(database_url: str, store_id: UUID) -> float:
    async def nowhere(_: bytes) -> None:
        return

    connection = await asyncpg.connect(database_url)
    try:
        started = time.monotonic()
        await connection.copy_from_query(
            """
            SELECT l.*, d.kind, d.currency, d.ship_from, d.ship_to
              FROM fulfillment.order_tax_lines l JOIN fulfillment.tax_documents d ON d.id = l.document_id
             WHERE l.store_id = $1
             ORDER BY l.document_date, l.document_id, l.position
            """,
            store_id,
            output=nowhere,
            format="csv",
        )
        return time.monotonic() - started
    finally:
        await connection.close()


def run(up: Running, lines: int) -> Exported:
    """Measure in a loop of its own."""
    return asyncio.run(measure(up, lines))
