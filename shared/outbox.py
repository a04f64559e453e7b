"""The outbox: events and commands promised in a transaction, published right after it, swept after a crash."""

import asyncio
import logging
from collections.abc import Sequence
from uuid import UUID

import msgspec

from shared import telemetry, topology
from shared.bus import Letter, Publisher, Unroutable, headers_of
from shared.database import GroupCommit, Pool, Statement, connected, transaction
from shared.dependencies import WARNING_INTERVAL_SECONDS, Throttle
from shared.errors import Unavailable
from shared.ids import new_id
from shared.messages import Envelope, Event, Message, encode, type_of
from shared.stopping import stop

logger = logging.getLogger(__name__)

SWEEP_ROWS_MAX = 200
UNDERWAY_MAX = 256
SWEEP_INTERVAL_SECONDS = 0.25
# What was sent is deleted in groups: nobody waits for it, and a crash before it only sends an event twice.
DELETE_PAUSE_SECONDS = 0.05
STOP_TIMEOUT_SECONDS = 5.0
TYPE_HEADER = "message_type"


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """One event or command as its row holds it."""

    id: UUID
    exchange: str
    routing_key: str
    headers: dict[str, object]
    body: bytes

    def letter(self) -> Letter:
        """Address it to its exchange; its type is its routing key, unless a header says otherwise."""
        kind = str(self.headers.get(TYPE_HEADER, self.routing_key))
        return Letter(exchange=self.exchange, routing_key=self.routing_key, body=self.body, headers=self.headers, type=kind)


def parcel(event: Event, cause: Envelope) -> Parcel:
    """Wrap an event with an id of its own and the facts of the message that caused it."""
    envelope = msgspec.structs.replace(cause, id=new_id(), attempt=0, deadline=None, first_seen=None)
    kind = type_of(type(event))
    return Parcel(id=envelope.id, exchange=topology.EVENTS, routing_key=kind, headers=headers_of(envelope), body=encode(event))


def command_parcel(command: Message, envelope: Envelope) -> Parcel:
    """Wrap a command that nobody waits for; its id is the envelope's."""
    kind = type_of(type(command))
    return Parcel(id=envelope.id, exchange=topology.COMMANDS, routing_key=kind, headers=headers_of(envelope), body=encode(command))


def promise(parcel: Parcel, *, head_start_seconds: float) -> Statement:
    """Write an event with the change that makes it true; whoever wrote it has a head start in publishing it."""
    return Statement(
        """
        INSERT INTO outbox (id, routing_key, headers, body, available_at, exchange)
        VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5), $6)
        """,
        (parcel.id, parcel.routing_key, encode(parcel.headers).decode(), parcel.body, head_start_seconds, parcel.exchange),
    )


def promises(parcels: Sequence[Parcel], *, head_start_seconds: float) -> Statement:
    """Write any number of events in one statement; where there is only one, `promise` costs half."""
    return Statement(
        """
        INSERT INTO outbox (id, routing_key, headers, body, available_at, exchange)
        SELECT id, routing_key, headers::jsonb, body, now() + make_interval(secs => $5), exchange
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::bytea[], $6::text[]) AS t (id, routing_key, headers, body, exchange)
        """,
        (
            [each.id for each in parcels],
            [each.routing_key for each in parcels],
            [encode(each.headers).decode() for each in parcels],
            [each.body for each in parcels],
            head_start_seconds,
            [each.exchange for each in parcels],
        ),
    )


class Relay:
    """Publishes events after their commit and deletes what the broker confirmed; several may run."""

    def __init__(self, pool: Pool, publisher: Publisher, *, service: str, head_start_seconds: float) -> None:
        self._pool = pool
        self._publisher = publisher
        self._service = service
        self.head_start_seconds = head_start_seconds
        self._sent = GroupCommit(self._delete, pause_seconds=DELETE_PAUSE_SECONDS)
        self._underway: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._waiting = Throttle(WARNING_INTERVAL_SECONDS)

    async def __aenter__(self) -> "Relay":
        self._sweeper = asyncio.create_task(self._sweep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._sweeper is not None:
            await stop(self._sweeper)
        if self._underway:
            await asyncio.wait(self._underway, timeout=STOP_TIMEOUT_SECONDS)

    def send_soon(self, parcels: Sequence[Parcel]) -> None:
        """Publish what is committed without holding anybody up; in a burst the rest is left to the sweeper."""
        for each in parcels[: max(0, UNDERWAY_MAX - len(self._underway))]:
            task = asyncio.create_task(self._send(each))
            self._underway.add(task)
            task.add_done_callback(self._underway.discard)

    async def _send(self, each: Parcel) -> None:
        try:
            await self._publisher.publish(each.letter())
            await self._sent.submit(each.id)
        except (Unavailable, Unroutable):
            return  # The row stays; the sweeper sends it.
        telemetry.events_published.labels(self._service).inc()

    async def _delete(self, ids: list[UUID]) -> list[None]:
        async with connected(self._pool) as db:
            await db.execute("DELETE FROM outbox WHERE id = ANY($1::uuid[])", ids)
        return [None] * len(ids)

    async def _sweep(self) -> None:
        while True:
            try:
                swept = await self.sweep_once()
                self._waiting.over()
            except Unavailable as silent:
                swept = 0
                if self._waiting.due():
                    telemetry.say(logger, logging.WARNING, "the outbox waits", {"reason": str(silent)})
            except Exception as failure:
                # An exchange that is missing for now, say. Whatever it is, what was left behind is sent once it is over.
                swept = 0
                if self._waiting.due():
                    logger.error("the outbox cannot be sent", exc_info=failure)
            if swept < SWEEP_ROWS_MAX:
                await asyncio.sleep(SWEEP_INTERVAL_SECONDS)

    async def sweep_once(self) -> int:
        """Publish one batch of what was left behind; rows go only when every confirm came."""
        async with transaction(self._pool) as db:
            rows = await db.fetch(
                """
                DELETE FROM outbox
                 WHERE id = ANY(ARRAY(SELECT id
                                        FROM outbox
                                       WHERE available_at <= now()
                                       ORDER BY available_at
                                       LIMIT $1
                                         FOR UPDATE SKIP LOCKED))
                RETURNING id, exchange, routing_key, headers, body
                """,
                SWEEP_ROWS_MAX,
            )
            parcels = [
                Parcel(
                    id=r["id"],
                    exchange=r["exchange"],
                    routing_key=r["routing_key"],
                    headers=msgspec.json.decode(r["headers"]),
                    body=r["body"],
                )
                for r in rows
            ]
            await asyncio.gather(*(self._publisher.publish(each.letter()) for each in sorted(parcels, key=lambda p: p.id)))
        return len(parcels)
