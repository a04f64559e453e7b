"""One message in hand: its facts, batches to write, and one conclusion that is kept and told."""

import asyncio
from collections.abc import Sequence
from copy import copy
from functools import partial
from typing import Any, Protocol
from uuid import UUID

import msgspec

from shared import audit, inbox, topology
from shared.bus import Letter, Publisher
from shared.database import Connection, FetchRow, Pool, Record, Rows, Statement
from shared.errors import Unavailable
from shared.messages import Envelope, Event, Message, Reply, encode_reply
from shared.outbox import Parcel, Relay, command_parcel, parcel, promise
from shared.vitals import Pulse


class Seal(Protocol):
    """Wraps texts for this service itself, and opens them again; without keys they stay as they are."""

    def hidden(self, text: str, *, info: str) -> str:
        """Wrap a text so that it opens at one place only, which `info` names."""
        ...

    def unhidden(self, text: str, *, info: str) -> str:
        """Open it again; raises Unavailable for a key that is not here yet."""
        ...


class Desk:
    """What every piece of work of one service shares: its pool, publisher, relay and pulse."""

    def __init__(self, *, pool: Pool, publisher: Publisher, relay: Relay, pulse: Pulse, pause_seconds: float = 0.0) -> None:
        self.pool = pool
        self.rows = Rows(pool, pause_seconds=pause_seconds)
        # For what has waited for others already.
        self.groups = Rows(pool)
        self.publisher = publisher
        self.relay = relay
        self.pulse = pulse
        self._replies: set[asyncio.Task[None]] = set()
        # Replies hold names and addresses; a service that has keys keeps them wrapped.
        self.seal: Seal | None = None

    def sealed(self, envelope: Envelope, reply: bytes) -> bytes:
        """Write a reply as the inbox keeps it."""
        return reply if self.seal is None else self.seal.hidden(reply.decode(), info=_reply_place(envelope)).encode()

    def unsealed(self, envelope: Envelope, kept: bytes) -> bytes:
        """Read a reply that the inbox has stored; raises Unavailable for a key that is not here yet."""
        return kept if self.seal is None else self.seal.unhidden(kept.decode(), info=_reply_place(envelope)).encode()

    def reply_soon(self, reply_to: str, envelope: Envelope, reply: bytes) -> None:
        """Tell the one who waits; a lost reply is asked for again, so nobody waits for the confirm."""
        if not reply_to:
            return
        task = asyncio.create_task(self._reply(reply_to, envelope, reply))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _reply(self, reply_to: str, envelope: Envelope, reply: bytes) -> None:
        letter = Letter(
            exchange=topology.reply_exchange(topology.requester_of(reply_to)),
            routing_key=reply_to,
            body=reply,
            headers={"id": str(envelope.id)},
            correlation_id=str(envelope.id),
            persistent=False,
            mandatory=False,
        )
        try:
            await self.publisher.tell(letter)
        except Unavailable:
            return  # The inbox keeps the reply; whoever waits asks again.


def _reply_place(envelope: Envelope) -> str:
    return f"tender/reply/1|{envelope.store_id}|{envelope.environment.value}|{envelope.source}|{envelope.id}"


class Work:
    """A command being worked on; handlers read its facts, write in batches and conclude it once."""

    def __init__(
        self,
        desk: Desk,
        envelope: Envelope,
        *,
        kind: str,
        digest: bytes,
        subject: str = "",
        follows: bool = False,
        looked: bool = True,
    ) -> None:
        self.envelope = envelope
        # As it came: by this the inbox knows it, whosever it turns out to be.
        self.received = envelope
        # Whether it is known that this command did not come before; if not, the first reading finds out.
        self._looked = looked
        # Whether somebody asked for it themselves, so that it has to be written down; an event only follows from that.
        self.by_staff = audit.by_staff(envelope, kind) and not follows
        # What it is about, for whoever reads later what staff did.
        self.subject = subject
        self.audited = False
        self.kind = kind
        self.digest = digest
        self._desk = desk

    def reading(self, db: Connection) -> FetchRow:
        """Read a row of the database; the first time, where nobody looked, together with whether this command came before."""
        return partial(self._read, db)

    async def _read(self, db: Connection, sql: str, *arguments: Any) -> Record | None:
        if self._looked:
            return await db.fetchrow(sql, *arguments)
        row = await inbox.read_beside(db, self.received, self.digest, sql, *arguments)
        self._looked = True
        return row

    def of_store(self, store_id: UUID) -> "Work":
        """Give the same message as one of the store that it turned out to be about; it is concluded as it came."""
        other = copy(self)
        other.envelope = msgspec.structs.replace(self.envelope, store_id=store_id)
        return other

    def batch(self) -> "Batch":
        """Begin a write that happens as a whole, in one round trip."""
        return Batch(self._desk, self)


class Batch:
    """Everything one step of a handler writes, its reply and events among it; told once it is committed."""

    def __init__(self, desk: Desk, work: Work) -> None:
        self._desk = desk
        self._work = work
        self._statements: list[Statement] = []
        self._replies: list[tuple[Envelope, bytes]] = []
        self._parcels: list[Parcel] = []

    def add(self, *statements: Statement) -> None:
        """Have these statements in it; no two may change one row."""
        self._statements += statements

    def begin(self) -> None:
        """Remember that this work's command was taken up."""
        self.add(inbox.begun(self._work.received, self._work.kind, self._work.digest))
        self._audit_staff()

    def audit(self, action: str, subject: str, *, before: Any = None, after: Any = None, reason: str = "") -> None:
        """Write down what whoever asked did, in more words than that they asked."""
        self._work.audited = True
        self.add(audit.acted(self._work.envelope, action, subject, before=before, after=after, reason=reason))

    def _audit_staff(self) -> None:
        """Whatever staff have done leaves a row, also where nobody thought of one; what follows from it leaves none."""
        if not self._work.audited and self._work.by_staff:
            self.audit(self._work.kind, self._work.subject)

    def conclude(self, reply: Reply, events: Sequence[Event] = ()) -> None:
        """Keep the reply and the events, and tell them; undoes the whole batch when another copy has concluded."""
        self._audit_staff()
        self._reply(self._work.received, self._work.kind, self._work.digest, reply, must=True)
        self.tell(events)

    def conclude_for(self, envelope: Envelope, *, kind: str, digest: bytes, reply: Reply) -> None:
        """Conclude another command whose answer this work has found out, unless it was concluded before."""
        self._reply(envelope, kind, digest, reply, must=False)

    def tell(self, events: Sequence[Event]) -> None:
        """Promise events without concluding anything."""
        self._parcels += [parcel(event, self._work.envelope) for event in events]

    def send(self, command: Message, envelope: Envelope) -> None:
        """Promise a command that nobody waits for."""
        self._parcels.append(command_parcel(command, envelope))

    def post(self, parcel: Parcel) -> None:
        """Promise something to be published as it is."""
        self._parcels.append(parcel)

    async def commit(self) -> None:
        """Write it all; raises Contended, with nothing written, when something it insists on does not hold."""
        head_start = self._desk.relay.head_start_seconds
        events = [promise(each, head_start_seconds=head_start) for each in self._parcels]
        awaited = await self._desk.rows.write([*self._statements, *events])
        for (envelope, raw), reply_to in zip(self._replies, awaited, strict=True):
            if reply_to is not None:
                self._desk.reply_soon(reply_to, envelope, raw)
        self._desk.relay.send_soon(self._parcels)

    def _reply(self, envelope: Envelope, kind: str, digest: bytes, reply: Reply, *, must: bool) -> None:
        raw = encode_reply(reply)
        self.add(inbox.finished(envelope, kind, digest, self._desk.sealed(envelope, raw), must=must))
        self._replies.append((envelope, raw))
