"""One message in hand: its facts, transactions to work in, and one conclusion that is kept and told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from shared import inbox
from shared.bus import Letter, Publisher
from shared.database import Connection, Pool, transaction
from shared.errors import Unavailable
from shared.inbox import AlreadyConcluded
from shared.messages import Envelope, Event, Reply, encode_reply
from shared.outbox import Parcel, Relay, parcel, promise


class Desk:
    """What every piece of work of one service shares: its pool, publisher and relay."""

    def __init__(self, *, pool: Pool, publisher: Publisher, relay: Relay) -> None:
        self.pool = pool
        self.publisher = publisher
        self.relay = relay
        self._replies: set[asyncio.Task[None]] = set()

    def reply_soon(self, reply_to: str, envelope: Envelope, reply: bytes) -> None:
        """Tell the one who waits; a lost reply is asked for again, so nobody waits for the confirm."""
        if not reply_to:
            return
        task = asyncio.create_task(self._reply(reply_to, envelope, reply))
        self._replies.add(task)
        task.add_done_callback(self._replies.discard)

    async def _reply(self, reply_to: str, envelope: Envelope, reply: bytes) -> None:
        letter = Letter(
            exchange="",
            routing_key=reply_to,
            body=reply,
            headers={"id": str(envelope.id)},
            correlation_id=str(envelope.id),
            persistent=False,
            mandatory=False,
        )
        try:
            await self.publisher.publish(letter)
        except Unavailable:
            return  # The inbox keeps the reply; whoever waits asks again.


class Work:
    """A command being worked on; handlers read its facts, open transactions and conclude it once."""

    def __init__(self, desk: Desk, envelope: Envelope, *, kind: str, digest: bytes) -> None:
        self.envelope = envelope
        self.kind = kind
        self.digest = digest
        self._desk = desk
        self._after_commit: list[Callable[[], None]] = []

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Run statements as one; what was concluded inside is told right after the commit."""
        self._after_commit = []
        async with transaction(self._desk.pool) as db:
            yield db
        for tell in self._after_commit:
            tell()

    async def begin(self, db: Connection) -> None:
        """Remember with the caller's transaction that this command was taken up."""
        await inbox.begin(db, self.envelope, self.kind, self.digest)

    async def conclude(self, db: Connection, reply: Reply, events: Sequence[Event] = ()) -> None:
        """Keep the reply and the events with the caller's transaction, and tell them once it is committed.

        Raises AlreadyConcluded when somebody else did, so that what this transaction changed is undone.
        """
        raw = encode_reply(reply)
        reply_to = await inbox.finish(db, self.envelope, self.kind, self.digest, raw)
        if reply_to is None:
            raise AlreadyConcluded(str(self.envelope.id))
        self._after_commit.append(lambda: self._desk.reply_soon(reply_to, self.envelope, raw))
        await self.tell(db, events)

    async def conclude_for(self, db: Connection, envelope: Envelope, *, kind: str, digest: bytes, reply: Reply) -> None:
        """Conclude another command whose answer this work has found out, unless it was concluded before."""
        raw = encode_reply(reply)
        reply_to = await inbox.finish(db, envelope, kind, digest, raw)
        if reply_to is not None:
            self._after_commit.append(lambda: self._desk.reply_soon(reply_to, envelope, raw))

    async def tell(self, db: Connection, events: Sequence[Event]) -> None:
        """Promise events with the caller's transaction without concluding anything."""
        parcels: list[Parcel] = [parcel(event, self.envelope) for event in events]
        await promise(db, parcels)
        self._after_commit.append(lambda: self._desk.relay.send_soon(parcels))
