"""What the handlers of the reconciler work with: who owns which books, and how fast providers may be asked."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar
from uuid import UUID, uuid5

import msgspec

from services.reconciler.settings import Settings
from shared.bus import Unroutable
from shared.contracts import books
from shared.contracts.books import Domain, Healed
from shared.errors import UNAVAILABLE, Refusal, Unavailable
from shared.ids import new_id
from shared.messages import Done, Envelope, Environment, Message, Query, Reply, encode, type_of
from shared.replies import Replies
from shared.work import Desk

V = TypeVar("V")


class Owner(msgspec.Struct, frozen=True):
    """What a service that owns books is asked and told."""

    list_books: type[books.ListBooks]
    list_theirs: type[books.ListTheirs]
    list_ours: type[books.ListOurs]
    look_at: type[books.LookAt]
    heal: type[books.Heal]


PAYMENTS = Owner(books.PaymentsListBooks, books.PaymentsListTheirs, books.PaymentsListOurs, books.PaymentsLookAt, books.PaymentsHeal)
FULFILLMENT = Owner(
    books.FulfillmentListBooks,
    books.FulfillmentListTheirs,
    books.FulfillmentListOurs,
    books.FulfillmentLookAt,
    books.FulfillmentHeal,
)
OWNERS = {Domain.PAYMENTS: PAYMENTS, Domain.SHIPPING: FULFILLMENT, Domain.TAX: FULFILLMENT}


class Reconciler:
    """Asks the owners of books, each provider at its pace."""

    def __init__(self, *, desk: Desk, settings: Settings, replies: Replies) -> None:
        self.desk = desk
        self.settings = settings
        self.replies = replies
        # Who we are among the copies of this service, when one has to lead.
        self.holder = new_id()
        self.wake_runs: Callable[[], None] = lambda: None
        self.wake_redrives: Callable[[], None] = lambda: None
        self.collector_trouble: Callable[[], str | None] = lambda: None
        self._next_ask_at_seconds: dict[tuple[Environment, str], float] = {}

    async def ask(self, envelope: Envelope, query: Query, kind: type[V], *, timeout_seconds: float | None = None) -> V:
        """Ask an owner; raises Unavailable when it, or its provider, cannot answer now."""
        asking = msgspec.structs.replace(envelope, id=new_id(), source="reconciler", attempt=0, first_seen=None, reply_to="")
        try:
            answer = await self.replies.ask(asking, query, timeout_seconds=timeout_seconds or self.settings.ask_timeout_seconds)
        except Unroutable as missing:
            raise Unavailable(str(missing)) from missing
        return msgspec.json.decode(_body(answer), type=kind)

    async def heal(self, envelope: Envelope, command: books.Heal) -> Healed:
        """Have an owner take in its provider's word; the same command of one envelope is carried out once."""
        return await self.tell(envelope, command, Healed, about=command.key)

    async def tell(self, envelope: Envelope, command: Message, kind: type[V], *, about: str = "") -> V:
        """Have an owner do something and say what came of it; the same command of one envelope is carried out once."""
        command_id = uuid5(envelope.id, f"{type_of(type(command))} {about}")
        telling = msgspec.structs.replace(envelope, id=command_id, source="reconciler", attempt=0, first_seen=None, reply_to="")
        future = self.replies.expect(command_id)
        try:
            await self.replies.send(telling, type_of(type(command)), encode(command))
            answer = await self.replies.wait(future, timeout_seconds=self.settings.heal_timeout_seconds)
        except Unroutable as missing:
            raise Unavailable(str(missing)) from missing
        finally:
            future.cancel()
        return msgspec.json.decode(_body(answer), type=kind)

    async def pace(self, environment: Environment, provider: str, *, calls: int = 1) -> None:
        """Wait until a provider may be asked again."""
        now = time.monotonic()
        at = max(self._next_ask_at_seconds.get((environment, provider), now), now)
        self._next_ask_at_seconds[environment, provider] = at + calls / self.settings.asks_per_second
        await asyncio.sleep(at - now)


def _body(answer: Reply) -> bytes:
    if isinstance(answer, Done):
        return bytes(answer.body)
    if answer.problem.code == UNAVAILABLE:
        raise Unavailable(answer.problem.detail)
    raise Refusal.of(answer.problem)


def message(kind: type[Message], **fields: object) -> Message:
    """Make an owner's message of a kind."""
    return msgspec.convert({"type": type_of(kind), **fields}, kind)


def envelope_of(*, message_id: UUID, store_id: UUID, environment: Environment, actor: str, correlation_id: str) -> Envelope:
    """Say for whom the reconciler asks."""
    return Envelope(
        id=message_id, store_id=store_id, environment=environment, source="reconciler", actor=actor, correlation_id=correlation_id
    )
