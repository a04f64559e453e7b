"""The inbox: what became of each command, so that the same id has the same result for ever."""

import hashlib
from collections.abc import Sequence
from enum import StrEnum
from functools import lru_cache
from typing import Any
from uuid import UUID

import msgspec

from shared.database import Connection, GroupCommit, Pool, Record, Statement, connected
from shared.messages import Envelope

KEPT_DAYS = 45
DELETE_ROWS_MAX = 5_000
ERROR_MAX_CHARACTERS = 2_000


class State(StrEnum):
    """Where a command stands; parked waits for an operator, discarded was put away by one."""

    OPEN = "open"
    DONE = "done"
    PARKED = "parked"
    DISCARDED = "discarded"


class Seen(msgspec.Struct, frozen=True):
    """What the inbox knows of a command that came before."""

    state: State
    digest: bytes
    reply: bytes | None
    attempts: int


def digest_of(kind: str, body: bytes) -> bytes:
    """Fingerprint the exact bytes of a message."""
    return hashlib.sha256(kind.encode() + b"\0" + body).digest()


class Inbox:
    """Looks commands up in groups; rows are written in the handlers' own transactions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._lookups = GroupCommit(self.each_seen)

    async def seen(self, envelope: Envelope) -> Seen | None:
        """Tell what is known of this command."""
        return await self._lookups.submit(envelope)

    async def each_seen(self, envelopes: Sequence[Envelope]) -> Sequence[Seen | None]:
        """Tell what is known of each of these commands."""
        async with connected(self._pool) as db:
            rows = await db.fetch(
                """
                SELECT asked.position, found.state, found.digest, found.reply, found.attempts
                  FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[])
                       WITH ORDINALITY AS asked (store_id, environment, source, message_id, position)
                 CROSS JOIN LATERAL (SELECT state, digest, reply, attempts
                                       FROM inbox i
                                      WHERE (i.store_id, i.environment, i.source, i.message_id)
                                            = (asked.store_id, asked.environment, asked.source, asked.message_id)
                                      LIMIT 1) AS found
                """,
                [e.store_id for e in envelopes],
                [e.environment.value for e in envelopes],
                [e.source for e in envelopes],
                [e.id for e in envelopes],
            )
        found = {row["position"]: Seen(State(row["state"]), row["digest"], row["reply"], row["attempts"]) for row in rows}
        return [found.get(position) for position in range(1, len(envelopes) + 1)]


class CameBefore(Exception):
    """A command came before, and was concluded or said something else; whoever carries commands out answers it again."""

    def __init__(self, seen: Seen) -> None:
        super().__init__(seen.state.value)
        self.seen = seen


@lru_cache(maxsize=32)
def beside(sql: str, arguments: int) -> str:
    """Have a statement of at most one row say too what is known of a command, which is named by four arguments more."""
    identity = ", ".join(f"${arguments + n}" for n in range(1, 5))
    return f"""
        SELECT seen.state AS seen_state, seen.digest AS seen_digest, seen.reply AS seen_reply, seen.attempts AS seen_attempts, found.*
          FROM (SELECT 1) AS always
          LEFT JOIN inbox seen ON (seen.store_id, seen.environment, seen.source, seen.message_id) = ({identity})
          LEFT JOIN LATERAL (SELECT true AS is_there, one.* FROM ({sql}) AS one) AS found ON true
    """


async def read_beside(db: Connection, envelope: Envelope, digest: bytes, sql: str, *arguments: Any) -> Record | None:
    """Read the row that a command is decided on, as of the moment at which it had not come before; raises CameBefore."""
    row = await db.fetchrow(beside(sql, len(arguments)), *arguments, *_identity(envelope))
    assert row is not None, "one row is always there"
    if row["seen_state"] is not None:
        seen = Seen(State(row["seen_state"]), row["seen_digest"], row["seen_reply"], row["seen_attempts"])
        if seen.state is not State.OPEN or seen.digest != digest:
            raise CameBefore(seen)
    return row if row["is_there"] else None


def begun(envelope: Envelope, kind: str, digest: bytes) -> Statement:
    """Remember that a command was taken up; one that was put away meanwhile is not."""
    return Statement(
        """
        INSERT INTO inbox (store_id, environment, source, message_id, type, digest, state, reply_to)
        VALUES ($1, $2, $3, $4, $5, $6, 'open', $7)
        ON CONFLICT (store_id, environment, source, message_id) DO UPDATE
           SET reply_to = EXCLUDED.reply_to
         WHERE inbox.state <> 'discarded'
        RETURNING message_id
        """,
        (*_identity(envelope), kind, digest, envelope.reply_to),
        must=True,
    )


def finished(envelope: Envelope, kind: str, digest: bytes, reply: bytes, *, must: bool) -> Statement:
    """Keep a command's reply; gives where it is awaited, or nothing when one is kept already, which may be insisted on."""
    return Statement(
        """
        INSERT INTO inbox (store_id, environment, source, message_id, type, digest, state, reply, reply_to, finished_at)
        VALUES ($1, $2, $3, $4, $5, $6, 'done', $7, $8, now())
        ON CONFLICT (store_id, environment, source, message_id) DO UPDATE
           SET state = 'done', reply = EXCLUDED.reply, finished_at = now()
         WHERE inbox.state IN ('open', 'parked')
        RETURNING reply_to
        """,
        (*_identity(envelope), kind, digest, reply, envelope.reply_to),
        must=must,
        gives="reply_to",
    )


def all_finished(messages: Sequence[tuple[Envelope, bytes]], kind: str, reply: bytes) -> Statement:
    """Keep one reply for many messages of one kind, given with their digests, none of which may have come before."""
    envelopes = [envelope for envelope, _ in messages]
    return Statement(
        """
        INSERT INTO inbox (store_id, environment, source, message_id, type, digest, state, reply, finished_at)
        SELECT store_id, environment, source, message_id, $6, digest, 'done', $7, now()
          FROM unnest($1::uuid[], $2::text[], $3::text[], $4::uuid[], $5::bytea[]) AS t (store_id, environment, source, message_id, digest)
        ON CONFLICT (store_id, environment, source, message_id) DO NOTHING
        RETURNING message_id
        """,
        (
            [each.store_id for each in envelopes],
            [each.environment.value for each in envelopes],
            [each.source for each in envelopes],
            [each.id for each in envelopes],
            [digest for _, digest in messages],
            kind,
            reply,
        ),
        must=True,
        rows="cardinality($4)",
    )


def _identity(envelope: Envelope) -> tuple[UUID, str, str, UUID]:
    return envelope.store_id, envelope.environment.value, envelope.source, envelope.id


async def failed(pool: Pool, envelope: Envelope, kind: str, digest: bytes, *, error: str, parked: bool) -> None:
    """Count a failed try of a command, and park it when it was the last."""
    async with connected(pool) as db:
        await db.execute(
            """
            INSERT INTO inbox (store_id, environment, source, message_id, type, digest, state, attempts, last_error, reply_to)
            VALUES ($1, $2, $3, $4, $5, $6, $7, 1, $8, $9)
            ON CONFLICT (store_id, environment, source, message_id) DO UPDATE
               SET state = EXCLUDED.state, attempts = inbox.attempts + 1, last_error = EXCLUDED.last_error
             WHERE inbox.state IN ('open', 'parked')
            """,
            envelope.store_id,
            envelope.environment.value,
            envelope.source,
            envelope.id,
            kind,
            digest,
            (State.PARKED if parked else State.OPEN).value,
            error[-ERROR_MAX_CHARACTERS:],
            envelope.reply_to,
        )


async def forget_finished(pool: Pool) -> int:
    """Delete a batch of commands finished longer ago than any key or retry lives; returns how many."""
    async with connected(pool) as db:
        result = await db.execute(
            """
            DELETE FROM inbox
             WHERE ctid = ANY(ARRAY(SELECT ctid
                                      FROM inbox
                                     WHERE finished_at < now() - make_interval(days => $1)
                                     LIMIT $2))
            """,
            KEPT_DAYS,
            DELETE_ROWS_MAX,
        )
    return int(result.split()[-1])


async def put_away(db: Connection, envelope: Envelope, kind: str, digest: bytes, reply: bytes) -> str | None:
    """Keep an operator's word as a command's answer; gives where it is awaited, or nothing when it was answered or is another's."""
    reply_to: str | None = await db.fetchval(
        """
        INSERT INTO inbox (store_id, environment, source, message_id, type, digest, state, reply, finished_at)
        VALUES ($1, $2, $3, $4, $5, $6, 'discarded', $7, now())
        ON CONFLICT (store_id, environment, source, message_id) DO UPDATE
           SET state = 'discarded', reply = EXCLUDED.reply, finished_at = now()
         WHERE inbox.state <> 'done' AND inbox.digest = EXCLUDED.digest
        RETURNING reply_to
        """,
        *_identity(envelope),
        kind,
        digest,
        reply,
    )
    return reply_to


async def seen_as(db: Connection, envelope: Envelope) -> tuple[State, bytes] | None:
    """Tell where a command stands, and the digest of what it said."""
    row = await db.fetchrow(
        "SELECT state, digest FROM inbox WHERE (store_id, environment, source, message_id) = ($1, $2, $3, $4)", *_identity(envelope)
    )
    return None if row is None else (State(row["state"]), row["digest"])
