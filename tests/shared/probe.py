"""A small service of the tests' own, to see the mechanics without payments."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import aio_pika
import asyncpg
import msgspec
import pytest

from deploy import setup
from shared import topology
from shared.bus import Letter, Publisher, headers_of
from shared.database import Statement
from shared.errors import Outcome, Refusal, Retry, Unavailable
from shared.ids import new_id
from shared.inbox import all_finished
from shared.messages import Envelope, Environment, Event, Message, Query, done, encode, encode_reply, type_of
from shared.migrations import Owned, migrate
from shared.service import Parts, Service
from shared.settings import BusSettings
from shared.work import Desk, Work
from shared.worker import RetrySchedules, Together
from tests.world import PASSWORD, Place

NAME = "probe"


class Do(Message, frozen=True, kw_only=True, tag="probe.do.v1"):
    """Do something, as it says."""

    how: str = "well"


class Ask(Query, frozen=True, kw_only=True, tag="probe.ask.v1"):
    """Ask how often it was done."""


class Happened(Event, frozen=True, kw_only=True, tag="probe.happened.v1"):
    """It was done."""


class Told(Event, frozen=True, kw_only=True, tag="probe.told.v1"):
    """Something that is taken with others."""

    about: str
    how: str = "well"


class No(Refusal):
    """A rule of the probe."""

    code = "no"
    title = "No"
    outcome = Outcome.CONFLICT


class NotNow(Refusal):
    """A passing rule of the probe."""

    code = "not-now"
    title = "Not now"
    retry = Retry.AFTER
    retry_after_seconds = 1


class Counted:
    """What the probe's handler saw."""

    def __init__(self) -> None:
        self.tries = 0
        self.handling = 0
        self.gate = asyncio.Event()
        # What was taken together, and what alone.
        self.groups: list[list[str]] = []
        self.alone: list[str] = []
        # Which, in the order in which they were taken.
        self.taken: list[UUID] = []
        self.desk: Desk


async def do(work: Work, command: Do, counted: Counted) -> None:
    """Do as told."""
    counted.handling += 1
    try:
        await _do(work, command, counted)
    finally:
        counted.handling -= 1


async def _do(work: Work, command: Do, counted: Counted) -> None:
    counted.tries += 1
    match command.how:
        case "refused":
            raise No("never")
        case "not now":
            raise NotNow("later")
        case "bug":
            raise ZeroDivisionError("a bug of the probe")
        case "silent once" if counted.tries == 1:
            raise Unavailable("the world is silent")
        case "slow":
            await counted.gate.wait()
    batch = work.batch()
    batch.add(Statement("INSERT INTO done (id) VALUES ($1)", (work.envelope.id,)))
    batch.conclude(done({"tries": counted.tries}), [Happened()])
    await batch.commit()


async def told(work: Work, event: Told, counted: Counted) -> None:
    """Take an event alone."""
    counted.alone.append(event.about)
    counted.taken.append(work.envelope.id)
    batch = work.batch()
    batch.add(Statement("INSERT INTO done (id) VALUES ($1)", (work.envelope.id,)))
    batch.conclude(done({}))
    await batch.commit()


async def told_together(works: Sequence[Work], events: Sequence[Told], counted: Counted) -> list[bool]:
    """Take events together."""
    counted.groups.append([event.about for event in events])
    counted.taken += [work.envelope.id for work in works]
    if any(event.how == "bug" for event in events):
        raise ZeroDivisionError("a bug of the probe")
    chosen = [work for work, event in zip(works, events, strict=True) if event.how != "alone"]
    if chosen:
        finished = all_finished([(work.envelope, work.digest) for work in chosen], type_of(Told), encode_reply(done({})))
        kept = Statement("INSERT INTO done (id) SELECT unnest($1::uuid[])", ([work.envelope.id for work in chosen],))
        await counted.desk.groups.write([kept, finished])
    return [event.how != "alone" for event in events]


async def ask(_: Envelope, query: Ask, counted: Counted) -> Any:
    """Answer a query."""
    return {"tries": counted.tries}


class Probe:
    """The probe in a test's hands."""

    def __init__(self, place: Place, publisher: Publisher, parts: Parts, counted: Counted) -> None:
        self.place = place
        self.publisher = publisher
        self.parts = parts
        self.counted = counted

    async def send(self, how: str = "well", **facts: Any) -> Envelope:
        """Send the probe a command."""
        return await self.send_raw(encode(Do(how=how)), **facts)

    async def send_raw(
        self,
        body: bytes,
        *,
        kind: str = type_of(Do),
        routing_key: str = "",
        reply_to: str = "",
        envelope: Envelope | None = None,
        headers: Mapping[str, Any] | None = None,
    ) -> Envelope:
        envelope = envelope or Envelope(
            id=new_id(), store_id=new_id(), environment=Environment.SANDBOX, source="tests", actor="tests", correlation_id="probe"
        )
        letter = Letter(
            exchange=topology.COMMANDS,
            routing_key=routing_key or kind,
            body=body,
            headers=dict(headers) if headers is not None else headers_of(envelope),
            type=kind,
            reply_to=reply_to,
        )
        await self.publisher.publish(letter)
        return envelope

    async def rows(self, sql: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.place.database_url)
        try:
            await connection.execute("SET search_path = probe")
            return await connection.fetch(sql, *arguments)
        finally:
            await connection.close()

    async def done(self, envelope: Envelope) -> int:
        return len(await self.rows("SELECT FROM done WHERE id = $1", envelope.id))

    async def state(self, envelope: Envelope) -> str | None:
        rows = await self.rows("SELECT state FROM inbox WHERE message_id = $1", envelope.id)
        return rows[0]["state"] if rows else None

    async def dead(self) -> Any:
        """Take a dead letter, if there is one."""
        return await take(self.place, topology.dead_queue(NAME))


async def take(place: Place, queue: str) -> Any:
    """Take a message out of a queue, if there is one."""
    connection = await aio_pika.connect(place.amqp_url)
    async with connection:
        channel = await connection.channel()
        found = await (await channel.declare_queue(queue, passive=True)).get(fail=False)
        if found is not None:
            await found.ack()
        return found


async def waiting(place: Place, queue: str) -> int:
    """Count the messages that wait in a queue."""
    connection = await aio_pika.connect(place.amqp_url)
    async with connection:
        channel = await connection.channel()
        return (await channel.declare_queue(queue, passive=True)).declaration_result.message_count or 0


@contextlib.asynccontextmanager
async def a_probe(place: Place, folder: Path, **settings: Any) -> AsyncIterator[Probe]:
    """Run the probe."""
    with pytest.MonkeyPatch.context() as patch:
        # The probe also asks itself.
        patch.setitem(topology.TOLD, NAME, rf"^{NAME}\..*$")
        patch.setitem(topology.REPLIERS, NAME, (NAME,))
        async with _a_probe(place, folder, **settings) as made:
            yield made


@contextlib.asynccontextmanager
async def _a_probe(place: Place, folder: Path, **settings: Any) -> AsyncIterator[Probe]:
    (folder / "001_probe.sql").write_text("CREATE TABLE done (id uuid)")
    owned = Owned(name=NAME, files=folder)
    await migrate(place.database_url, [owned], password=PASSWORD)
    await topology.declare(place.amqp_url, [NAME])
    counted = Counted()

    @contextlib.asynccontextmanager
    async def context(desk: Desk) -> AsyncIterator[Counted]:
        counted.desk = desk
        yield counted

    service: Service[Counted] = Service(
        name=NAME,
        settings=BusSettings(
            database_url=setup.service_url(place.database_url, NAME, PASSWORD),
            amqp_url=place.amqp_url,
            **{"shutdown_grace_seconds": 2.0, **settings},
        ),
        owned=owned,
        context=context,
        handlers={Do: do, Told: told},
        together={Told: Together(handler=told_together, about=lambda event: event.about)},
        queries={Ask: ask},
        schedules=RetrySchedules(bug=("1s", "1s"), silent=("1s", "1s", "1s")),
    )
    async with Publisher(place.amqp_url, name="tests") as publisher, service.running() as parts:
        yield Probe(place, publisher, parts, counted)


def read(body: bytes) -> Any:
    """Read JSON."""
    return msgspec.json.decode(body)
