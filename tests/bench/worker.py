"""The worker with next to nothing in its handler: consume, look whether it was done before, one transaction, ack."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from deploy import setup
from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.database import Statement
from shared.ids import new_id
from shared.messages import Envelope, Environment, Message, done, encode, type_of
from shared.migrations import Owned, migrate
from shared.service import Service
from shared.settings import BusSettings
from shared.work import Desk, Work

NAME = "bench_worker"
PASSWORD = "services-of-the-bench"
MESSAGES = 2_000
PUBLISHED_AT_ONCE = 100


class Do(Message, frozen=True, kw_only=True, tag="bench_worker.do.v1"):
    """Write a row."""

    body: str


class Left:
    """How many are still to be done."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.none = asyncio.Event()
        self.began = 0.0


async def do(work: Work, command: Do, left: Left) -> None:
    """Write the row and the answer in one transaction."""
    left.began = left.began or time.perf_counter()
    batch = work.batch()
    batch.add(Statement("INSERT INTO done (id, body) VALUES ($1, $2)", (work.envelope.id, command.body.encode())))
    batch.conclude(done({}))
    await batch.commit()
    left.count -= 1
    if left.count == 0:
        left.none.set()


async def prepare(database_url: str, amqp_url: str, folder: Path) -> Owned:
    """Make its schema and queues."""
    files = folder / NAME
    files.mkdir(exist_ok=True)
    (files / "001_worker.sql").write_text("CREATE TABLE done (id uuid PRIMARY KEY, body bytea)")
    owned = Owned(name=NAME, files=files)
    await migrate(database_url, [owned], password=PASSWORD)
    await topology.declare(amqp_url, [NAME])
    return owned


async def measure(owned: Owned, database_url: str, amqp_url: str, body: bytes) -> float:
    """Have a queue full of commands carried out; so many a second."""
    async with Publisher(amqp_url, name="bench") as publisher:
        for _ in range(0, MESSAGES, PUBLISHED_AT_ONCE):
            await asyncio.gather(*(publisher.publish(_letter(body)) for _ in range(PUBLISHED_AT_ONCE)))
    left = Left(MESSAGES)

    @asynccontextmanager
    async def context(_: Desk) -> AsyncIterator[Left]:
        yield left

    url = setup.service_url(database_url, NAME, PASSWORD)
    settings = BusSettings(database_url=url, amqp_url=amqp_url)
    service: Service[Left] = Service(name=NAME, settings=settings, owned=owned, context=context, handlers={Do: do}, queries={})
    async with service.running():
        await left.none.wait()
        elapsed = time.perf_counter() - left.began
    connection = await asyncpg.connect(database_url)
    try:
        kept = await connection.fetchval(f"SELECT count(*) FROM {NAME}.done")
        assert kept % MESSAGES == 0, f"{kept} rows are kept"
    finally:
        await connection.close()
    return MESSAGES / elapsed


def _letter(body: bytes) -> Letter:
    envelope = Envelope(
        id=new_id(), store_id=new_id(), environment=Environment.SANDBOX, source="bench", actor="bench", correlation_id="bench"
    )
    return Letter(
        exchange=topology.COMMANDS,
        routing_key=type_of(Do),
        body=encode(Do(body=body.decode())),
        headers=headers_of(envelope),
        type=type_of(Do),
    )
