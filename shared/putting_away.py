"""What every service does about a message of its own that could not be handled: says what became of it, and puts it away."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from shared import inbox
from shared.contracts.dead_letters import ATTENDED, DescribeMessage, MessageFate, PutAway
from shared.database import Connection, connected, transaction
from shared.errors import Outcome, Problem, Refusal, Retry
from shared.inbox import State
from shared.messages import Envelope, Message, Query, Refused, done, encode_reply
from shared.work import Desk, Work

# Whether a provider may have been called for a command.
MayHaveLeft = Callable[[Connection, Envelope], Awaitable[bool]]
# Told of a command that an operator has discarded, in the transaction that says so.
Discarded = Callable[[Connection, Envelope], Awaitable[None]]


class MayHaveBeenCarriedOut(Refusal):
    """A provider may have been called: what became of that has to be found out, not put away."""

    code = "may-have-been-sent"
    title = "A provider may have been called for this already"


class CarriedOut(Refusal):
    """The message was handled after all."""

    code = "carried-out"
    title = "This message has been carried out"


async def nothing_leaves(db: Connection, envelope: Envelope) -> bool:
    """Say of a service that calls no provider for a message that none was called."""
    return False


async def nothing_else(db: Connection, envelope: Envelope) -> None:
    """Leave it at that, where a service keeps nothing else about a command."""


def attending(
    service: str, desk: Desk, may_have_left: MayHaveLeft, discarded: Discarded = nothing_else
) -> tuple[
    dict[type[Message], Callable[[Work, Any, Any], Awaitable[None]]], dict[type[Query], Callable[[Envelope, Any, Any], Awaitable[Any]]]
]:
    """Give the handlers of a service by which the dead letters' keeper tells and asks it."""

    async def put_away(work: Work, command: PutAway, _: Any) -> None:
        target, digest, reply = _target(work.envelope, command), bytes.fromhex(command.digest), encode_reply(Refused(_answer(command)))
        async with transaction(desk.pool) as db:
            # Written first, so that whoever is about to take the command up waits for us, and then sees it.
            reply_to = await inbox.put_away(db, target, command.message_type, digest, reply)
            known = await inbox.seen_as(db, target)
            if known == (State.DONE, digest):
                raise CarriedOut("There is nothing left to put away.", {"message_id": str(command.message_id)})
            if reply_to is not None and await may_have_left(db, target):
                raise MayHaveBeenCarriedOut(
                    "Retry it, which asks nobody twice, or settle it where unknown outcomes are listed.",
                    {"message_id": str(command.message_id)},
                )
            if command.replaced_by is None:
                await discarded(db, target)
        desk.reply_soon(reply_to or "", target, reply)

        batch = work.batch()
        batch.conclude(done(MessageFate(state="discarded", may_have_left=False)))
        await batch.commit()

    async def describe(envelope: Envelope, query: DescribeMessage, _: Any) -> MessageFate:
        target = _target(envelope, query)
        async with connected(desk.pool) as db:
            known = await inbox.seen_as(db, target)
            return MessageFate(state="unseen" if known is None else known[0].value, may_have_left=await may_have_left(db, target))

    attended = ATTENDED.get(service)
    if attended is None:
        return {}, {}
    return {attended.put_away: put_away}, {attended.describe: describe}


def _target(envelope: Envelope, about: PutAway | DescribeMessage) -> Envelope:
    return msgspec.structs.replace(envelope, id=about.message_id, source=about.source, reply_to="")


def _answer(command: PutAway) -> Problem:
    instead = "" if command.replaced_by is None else f" It was replaced by {command.replaced_by}."
    return Problem(
        code="operation-discarded",
        title="An operator discarded this operation",
        status=409,
        detail=f"The operation failed and an operator put it away; it was not carried out.{instead}",
        outcome=Outcome.CONFLICT,
        retry=Retry.NEVER,
        facts={} if command.replaced_by is None else {"replaced_by": str(command.replaced_by)},
    )
