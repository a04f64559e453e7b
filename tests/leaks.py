"""Planted secrets are looked for in logs, in every table and in the dead letters, when a module is done."""

import logging
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import asyncpg

from deploy import setup
from shared import topology
from tests.planted import IN_THE_CLEAR, PERSONAL, PLANTED, SIGNING_SECRET_PATTERN, every_form_of, forms_of, leaks_in
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


async def kept_in(place: Place, text: str) -> list[str]:
    """Which tables of the services hold a text in any column: as it is, as rows show bytes, or in base64."""
    connection = await asyncpg.connect(place.database_url)
    try:
        tables = await connection.fetch(
            "SELECT schemaname || '.' || tablename AS name FROM pg_tables WHERE schemaname = ANY($1::text[]) ORDER BY 1",
            [service.name for service in setup.SERVICES],
        )
        looks = [
            f"SELECT '{each['name']}' AS name WHERE EXISTS (SELECT FROM {each['name']} t, unnest($1::text[]) AS form"
            " WHERE position(form IN t::text) > 0)"
            for each in tables
        ]
        found = await connection.fetch(" UNION ALL ".join(looks), every_form_of(text))
    finally:
        await connection.close()
    return [str(row["name"]) for row in found]


async def _in_tables(place: Place) -> list[str]:
    connection = await asyncpg.connect(place.database_url)
    try:
        schemas = [service.name for service in setup.SERVICES]
        tables = await connection.fetch(
            """
            SELECT schemaname || '.' || tablename AS name
              FROM pg_tables
             WHERE schemaname = ANY($1::text[])
             ORDER BY 1
            """,
            schemas,
        )
        # Each row is written out once (that is what OFFSET is for), not once for every secret.
        looks = [
            f"SELECT '{each['name']}' AS name"
            f" WHERE EXISTS (SELECT FROM (SELECT t::text AS whole FROM {each['name']} t OFFSET 0) AS written"
            f" WHERE whole ~ $3 OR EXISTS (SELECT FROM unnest(${1 if each['name'] in IN_THE_CLEAR else 2}::text[]) AS secret"
            " WHERE position(secret IN whole) > 0))"
            for each in tables
        ]
        found = await connection.fetch(
            " UNION ALL ".join(looks), forms_of(PLANTED), forms_of({**PLANTED, **PERSONAL}), SIGNING_SECRET_PATTERN
        )
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


async def leaks_on_disk(management_url: str | None) -> list[str]:
    """Which files of a broker on this machine hold a secret or a buyer's name, street or phone."""
    if management_url is None:
        return []
    async with management(management_url) as http:
        [folder] = [Path(node["db_dir"]) for node in (await http.get("/api/nodes")).json()][:1]
    wanted = {name: secret.encode() for name, secret in {**PLANTED, **PERSONAL}.items()}
    # Unlike rglob, walk goes on where the broker deletes a folder meanwhile.
    files = [Path(parent, file) for parent, _, names in os.walk(folder) for file in names]
    return sorted({f"{file.name} holds {name}" for file in files for name in _on_disk(file, wanted)})


def _on_disk(file: Path, wanted: Mapping[str, bytes]) -> list[str]:
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return [name for name, secret in wanted.items() if content.find(secret) >= 0]
    except (OSError, ValueError):
        # An empty file, or one that the broker has deleted meanwhile.
        return []
