"""Planted secrets are looked for in logs, in every table and in the dead letters, when a module is done."""

import logging
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import asyncpg

from deploy import setup
from shared import topology
from tests.planted import PLANTED, SIGNING_SECRET_PATTERN, leaks_in
from tests.world import Place, management

DEAD_LETTERS_MAX = 1_000


class Watch(logging.Handler):
    """Reads along what is logged, and remembers where a secret was."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Look at a line."""
        text = f"{record.getMessage()} {getattr(record, 'tender', '')} {record.exc_info[1] if record.exc_info else ''}"
        self.found += [f"{record.name} logged {name}" for name in leaks_in(text)]


async def leaks_at(place: Place) -> list[str]:
    """Which tables and dead letters of a place hold a secret."""
    return [*await _in_tables(place), *await _in_dead_letters(place)]


async def _in_tables(place: Place) -> list[str]:
    connection = await asyncpg.connect(place.database_url)
    try:
        schemas = [service.name for service in setup.SERVICES]
        tables = await connection.fetch(
            "SELECT schemaname AS s, tablename AS t FROM pg_tables WHERE schemaname = ANY($1::text[]) ORDER BY 1, 2", schemas
        )
        secrets = [form for secret in PLANTED.values() for form in (secret, secret.encode().hex())]
        # Each row is written out once (that is what OFFSET is for), not once for every secret.
        looks = [
            f"SELECT '{each['s']}.{each['t']}' AS name"
            f" WHERE EXISTS (SELECT FROM (SELECT t::text AS whole FROM {each['s']}.{each['t']} t OFFSET 0) AS written"
            " WHERE whole ~ $2 OR EXISTS (SELECT FROM unnest($1::text[]) AS secret WHERE position(secret IN whole) > 0))"
            for each in tables
        ]
        found = await connection.fetch(" UNION ALL ".join(looks), secrets, SIGNING_SECRET_PATTERN)
    finally:
        await connection.close()
    return [f"{row['name']} holds a secret" for row in found]


async def _in_dead_letters(place: Place) -> list[str]:
    if place.management_url is None:
        return []
    found: list[str] = []
    async with management(place.management_url) as http:
        for service in topology.CONSUMERS:
            name = topology.dead_queue(service)
            path = f"/api/queues/{quote(place.vhost, safe='')}/{name}/get"
            wanted = {"count": DEAD_LETTERS_MAX, "ackmode": "ack_requeue_true", "encoding": "auto"}
            letters: Sequence[Any] = (await http.post(path, json=wanted)).json()
            found += [f"a letter in {name} holds {leak}" for letter in letters for leak in leaks_in(str(letter))]
    return found
