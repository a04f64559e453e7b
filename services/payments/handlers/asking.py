"""Asking a provider: under a lease, outside any transaction, and what it says is applied by the one reducer."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

import msgspec

from services.payments.domain.declines import conflicted, declined
from services.payments.domain.intents import (
    NO_MONEY,
    Applied,
    Intent,
    Observation,
    Operation,
    Source,
    Transaction,
    TransactionStatus,
    money_returned,
)
from services.payments.domain.intents import observe as apply
from services.payments.domain.orders import OrderStatus, order_status
from services.payments.providers import ConfirmRequest, PaymentProvider, Prepared, Pricing, Request
from services.payments.settings import Settings
from services.payments.store import intents as intent_rows
from services.payments.store import ledger, orders, questions
from services.payments.store.intents import Seen
from services.payments.store.ledger import RowFacts
from services.payments.store.questions import Question
from shared import audit, telemetry
from shared.backoff import step, trying
from shared.contracts.payments import FailedRefund, IntentChanged, PaymentView
from shared.credentials import Adapters, Credential, Wallet, tried
from shared.database import CONTENDED_ATTEMPTS_MAX, connected
from shared.errors import Contended, Invalid, Unavailable
from shared.http_client import Call, NoAnswer, NotSent, recorded
from shared.ids import new_id
from shared.leases import lease_kept
from shared.messages import Envelope, Environment, Refused, Reply, done
from shared.provider_answers import IndeterminateResponse
from shared.vault import BrokenSeal
from shared.work import Batch, Desk, Work

logger = logging.getLogger(__name__)

# The first look comes at once; then ever more rarely, for ever, until there is proof.
LOOKS_SECONDS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)

NO_SUCH_PAYMENT = "pi_tender_is_this_key_good"

# Rows that no command waits for: work of our jobs, and what happened at the provider without us.
JOB = "job"
OBSERVED = "observed"


class ProviderNotConfigured(Invalid):
    """There is no such provider for this store's environment."""

    code = "provider-not-configured"
    title = "This payment provider is not configured"


class Payments:
    """What the handlers of payments work with."""

    def __init__(
        self,
        *,
        desk: Desk,
        settings: Settings,
        wallet: Wallet,
        providers: Adapters[PaymentProvider],
        pricing: Pricing,
    ) -> None:
        self.desk = desk
        self.settings = settings
        self.pricing = pricing
        self.wallet = wallet
        self._providers = providers
        self.wake_resolver: Callable[[], None] = lambda: None

    def provider(self, envelope: Envelope, name: str, *, account: str | None = None) -> PaymentProvider:
        """Find a store's provider, or the one whose account a payment was made with.

        Sandbox work never reaches a production account, nor the other way round.
        """
        for found in self._providers.choices(envelope.store_id, envelope.environment, name):
            if account in (None, found.account):
                return found
        where = envelope.environment.value
        raise ProviderNotConfigured(f"No payment provider {name!r} is configured for {where}.", {"provider": name})

    def provider_names(self, store_id: UUID, environment: Environment) -> list[str]:
        """List whom orders of a store can be paid with."""
        return self._providers.names(store_id, environment)

    def default_provider(self, envelope: Envelope) -> str:
        """Name the provider an order is paid with when nobody chose."""
        names = self.provider_names(envelope.store_id, envelope.environment)
        if not names:
            raise ProviderNotConfigured(f"No payment provider is configured for {envelope.environment.value}.", {})
        return names[0]

    def unhidden(self, text: str, *, info: str) -> str:
        """Open what was wrapped for us; what never was is as it is. A key that is not here yet is waited for."""
        return self.wallet.unhidden(text, info=info)

    def hidden(self, text: str, *, info: str) -> str:
        """Wrap something for ourselves, so that it does not lie about as it is."""
        return self.wallet.hidden(text, info=info)

    def pinned(self, transaction_id: UUID, prepared: Prepared) -> bytes:
        """Write an exact call as its row keeps it: it bears the payment method's token."""
        return self.hidden(questions.request_of(prepared), info=_request_place(transaction_id)).encode()

    def with_call(self, question: Question) -> Question:
        """Read a question's exact call from its row; without, where its key is gone: then it can be looked up, and not repeated."""
        if question.prepared is not None:
            return question
        try:
            text = self.unhidden(question.request.decode(), info=_request_place(question.transaction_id))
        except (Unavailable, BrokenSeal) as closed:
            facts = {"transaction_id": str(question.transaction_id), "reason": str(closed)}
            telemetry.say(logger, logging.ERROR, "an exact call cannot be read", facts)
            return question
        return msgspec.structs.replace(question, prepared=questions.prepared_of(text))

    async def try_credential(self, credential: Credential) -> tuple[str, str]:
        """Ask for a payment that is not there; who is answered that has a key that is good."""
        provider = self._providers.make(credential)
        assert provider is not None, "there is an adapter for every kind of credential"
        try:
            return await tried(provider.get_transaction(NO_SUCH_PAYMENT), silent=(NotSent, NoAnswer, IndeterminateResponse))
        finally:
            await provider.close()


def _request_place(transaction_id: UUID) -> str:
    return f"tender/request/1|{transaction_id}"


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """What came of asking: observations, or nothing certain; and the calls made."""

    observations: tuple[Observation, ...] | None
    calls: tuple[Call, ...]
    trouble: str = ""
    retry_after_seconds: float = 0.0


async def ask(context: Payments, question: Question, call: Callable[[], Awaitable[tuple[Observation, ...]]]) -> Heard:
    """Ask the provider while our lease is kept alive; silence is not an answer."""
    seconds = context.settings.lease_seconds
    async with lease_kept(lambda: questions.renew(context.desk.pool, question, lease_seconds=seconds), lease_seconds=seconds):
        if time.monotonic() - question.leased_at_seconds > context.settings.lease_seconds:
            # We stood still (a frozen machine, say) and somebody else may be at it by now.
            heard = Heard(observations=None, calls=(), trouble="the lease ran out before anything was sent")
        else:
            heard = await listen(call)
    telemetry.say(
        logger,
        logging.INFO if heard.observations is not None else logging.WARNING,
        "asked the provider",
        {
            "provider": question.provider,
            "operation": question.operation.value,
            "transaction_id": str(question.transaction_id),
            "calls": len(heard.calls),
            "classification": heard.calls[-1].classification.value if heard.calls else None,
            "latency_ms": sum(c.latency_ms for c in heard.calls),
            "trouble": heard.trouble or None,
        },
    )
    return heard


async def remember(work: Work, context: Payments, seen: Seen, row: Transaction, request: Request, *, idempotency_key: str) -> Question:
    """Write down what is about to be asked of a provider, if the payment still is as it was seen."""
    provider = context.provider(work.envelope, seen.intent.provider, account=seen.intent.provider_account)
    asked = recorded_call(work, context, seen, seen.intent, row, provider.prepare(request), idempotency_key=idempotency_key)
    _, reservation = intent_rows.reserved(seen.intent, row)
    batch = work.batch()
    if work.kind != JOB:
        batch.begin()
    batch.add(reservation, asked.statement)
    await batch.commit()
    return asked.question


def recorded_call(
    work: Work, context: Payments, seen: Seen, intent: Intent, row: Transaction, prepared: Prepared, *, idempotency_key: str
) -> questions.Asked:
    """Make the statement that records an exact call before it is made."""
    return questions.asked(
        work.envelope,
        intent,
        row,
        prepared,
        request=context.pinned(row.id, prepared),
        idempotency_key=idempotency_key,
        command_type=work.kind,
        command_digest=work.digest,
        lease_seconds=context.settings.lease_seconds,
        now=seen.now,
    )


async def call(work: Work, context: Payments, question: Question) -> Heard:
    """Make the exact call that was written down."""
    provider, prepared = context.provider(work.envelope, question.provider, account=question.provider_account), question.prepared
    assert prepared is not None, "it was prepared just now"
    return await ask(
        context, question, lambda: provider.send(prepared, idempotency_key=question.idempotency_key, reference=question.transaction_id)
    )


def confirming(provider: PaymentProvider, question: Question) -> Callable[[], Awaitable[tuple[Observation, ...]]]:
    """Make the call that goes on after the customer acted: the same bytes and key however often a command sends it."""
    assert question.provider_payment_id is not None, "a payment that waits for its customer is known to its provider"
    prepared = provider.prepare(ConfirmRequest(provider_payment_id=question.provider_payment_id))
    key = f"{question.idempotency_key}-confirm-{question.envelope.id}"
    return lambda: provider.send(prepared, idempotency_key=key, reference=question.transaction_id)


async def listen(call: Callable[[], Awaitable[tuple[Observation, ...]]]) -> Heard:
    """Make calls to a provider and keep what was said, or that nothing certain was."""
    with recorded() as calls:
        try:
            observations = await call()
        except (NotSent, NoAnswer, IndeterminateResponse) as silent:
            pause = silent.retry_after_seconds if isinstance(silent, IndeterminateResponse) else 0.0
            trouble = f"{type(silent).__name__}: {silent}"
            return Heard(observations=None, calls=tuple(calls), trouble=trouble, retry_after_seconds=pause)
    return Heard(observations=observations, calls=tuple(calls))


async def conclude(
    work: Work, context: Payments, question: Question, heard: Heard, *, source: Source, expected: Seen | None = None
) -> Intent | None:
    """Remember the answer: apply what was heard, keep the reply, and tell; or remember that nothing is known, and give nothing.

    Whoever asked knows what the intent is `expected` to be, which saves reading it; it is read when somebody else wrote it.
    """
    sights = iter((expected,))
    # The provider was asked, so it is the remembering that is tried again, not the whole.
    settled = await trying(
        lambda: _conclude(work, context, question, heard, source, next(sights, None)), Contended, attempts_max=CONTENDED_ATTEMPTS_MAX
    )
    if settled is None:
        context.wake_resolver()
    return settled


async def _conclude(
    work: Work, context: Payments, question: Question, heard: Heard, source: Source, expected: Seen | None
) -> Intent | None:
    batch = work.batch()
    batch.add(*audit.called(work.envelope, question.transaction_id, heard.calls))
    if heard.observations is None:
        pause = max(heard.retry_after_seconds, step(LOOKS_SECONDS, question.looks))
        batch.add(questions.unknown(question, look_again_seconds=pause))
        await batch.commit()
        return None
    seen = await see(context, work, question.intent_id) if expected is None else expected.at_present()
    applied = apply(seen.intent, seen.transactions, heard.observations, source=source, ids=[new_id() for _ in heard.observations])
    row = next(t for t in applied.transactions if t.id == question.transaction_id)
    looks = _next_look(context, question, row)
    steps = steps_to(seen, heard.observations, source=source)
    intent = keep_applied(batch, work, seen, applied, source=source, why=question.operation.value, steps=steps, next_looks=looks)
    await batch.commit()
    if not row.open or row.awaiting_customer:
        facts = {"operation": row.operation.value, "result": row.status.value, "intent_status": intent.status.value}
        telemetry.say(logger, logging.INFO, "concluded", {**facts, "transaction_id": str(row.id)})
    return intent


async def see(context: Payments, work: Work, intent_id: UUID) -> Seen:
    """Read an intent that must be there."""
    async with connected(context.desk.pool) as db:
        seen = await intent_rows.see_intent(db.fetchrow, work.envelope, intent_id)
    assert seen is not None, "intents are never deleted"
    return seen


def _next_look(context: Payments, question: Question, row: Transaction) -> dict[UUID, float]:
    if not row.open:
        return {}
    # Of a payment that waits for its customer, and of one that the provider is still at: its word is "pending", not "unknown".
    pause = context.settings.customer_look_seconds if row.awaiting_customer else step(LOOKS_SECONDS, max(1, question.looks))
    return {row.id: pause}


# An intent as it was in between, and what had happened by then.
Step = tuple[str, Intent]


def steps_to(seen: Seen, observations: Sequence[Observation], *, source: Source) -> list[Step]:
    """Tell how an intent stood after each observation but the last, so that news that come together leave the same history."""
    ids = [new_id() for _ in observations]
    return [
        (observations[n - 1].operation.value, apply(seen.intent, seen.transactions, observations[:n], source=source, ids=ids[:n]).intent)
        for n in range(1, len(observations))
    ]


def keep_applied(
    batch: Batch,
    work: Work,
    seen: Seen,
    applied: Applied,
    *,
    source: Source,
    why: str,
    steps: Sequence[Step] = (),
    next_looks: Mapping[UUID, float] | None = None,
) -> Intent:
    """Have a batch write what an observation changed, with the order's status, its history, the answers and the event."""
    looks = next_looks or {}
    rows = [t for t in applied.transactions if t.id in looks or t in applied.changed]
    batch.add(*(ledger.changed(row, now=seen.now, next_look_seconds=looks.get(row.id)) for row in rows))
    if not applied.changed and not applied.added and applied.intent == seen.intent:
        if rows:
            # Else a row that a webhook has settled meanwhile would be written as it was seen.
            batch.add(intent_rows.unchanged(seen.intent))
        return applied.intent
    intent = msgspec.structs.replace(applied.intent, version=seen.intent.version + 1, updated_at=seen.now)
    batch.add(intent_rows.changed(seen.intent, intent), *(ledger.added(work.envelope, intent, row) for row in applied.added))
    _answer_settled(batch, work, seen, intent, applied)
    after = _order_status(seen, intent)
    # Also when the status stays: two payments of one order that end at once must not each overlook the other.
    batch.add(orders.stands(work.envelope, intent.order_id, revision=seen.order_revision, status=after))
    before, where = seen.order_status, _history_source(source)
    for happened, then in (*steps, (why, intent)):
        status = _order_status(seen, then)
        if status is not before:
            reason = f"{happened}: payment is {then.status.value}"
            batch.add(orders.status_changed(work.envelope, intent.order_id, before=before, after=status, reason=reason, source=where))
        before = status
    failed = _failed_refunds(seen, applied)
    changed = IntentChanged(
        intent=intent_rows.view(intent),
        order_status=after.value,
        failed_refunds=failed,
        returned=money_returned(applied.transactions),
    )
    batch.tell([changed])
    return intent


def _failed_refunds(seen: Seen, applied: Applied) -> tuple[FailedRefund, ...]:
    """List the refunds of which it is news that they gave nothing back."""
    before = {row.id: row.status for row in seen.transactions}
    news = (row for row in (*applied.changed, *applied.added) if row.status in NO_MONEY and before.get(row.id) not in NO_MONEY)
    return tuple(
        FailedRefund(transaction_id=row.id, amount=row.amount, decline_code=row.decline_code)
        for row in news
        if row.operation is Operation.REFUND
    )


def _order_status(seen: Seen, intent: Intent) -> OrderStatus:
    return order_status(intent_rows.sums([*seen.others, intent], total=seen.order_total, cancelled=seen.cancelled))


def _answer_settled(batch: Batch, work: Work, seen: Seen, intent: Intent, applied: Applied) -> None:
    """Whoever brings a fact answers the command that waits for it: the call's own answer, a webhook, a look, all alike."""
    before = {row.id: row for row in seen.transactions}
    for row in applied.changed:
        known = before[row.id]
        ended = known.open and not row.open
        waits_now = row.awaiting_customer and not known.awaiting_customer
        # Whoever confirms a submitted payment is answered by its capture.
        goes_on = row.operation is Operation.AUTHORIZE and intent.to_be_captured
        if (ended and not goes_on) or waits_now:
            facts = seen.facts(row.id)
            if facts.command_type not in (JOB, OBSERVED):
                view = ledger.view_of(row, facts, intent.currency, now=seen.now)
                reply = reply_of(intent, row, PaymentView(intent=intent_rows.view(intent), transaction=view))
                batch.conclude_for(asker(work, facts), kind=facts.command_type, digest=facts.digest, reply=reply)


def asker(work: Work, facts: RowFacts) -> Envelope:
    """Name whoever asked for what a row is about."""
    return msgspec.structs.replace(
        work.envelope, id=facts.answers, source="gateway", actor=facts.actor, correlation_id=facts.correlation_id, reply_to=""
    )


def _history_source(source: Source) -> str:
    # The history knows three sources; a reconciliation finding is the work of a job.
    return Source.JOB.value if source is Source.RECONCILIATION else source.value


def reply_of(intent: Intent, row: Transaction, view: PaymentView) -> Reply:
    """Say what became of an operation."""
    if row.status in (TransactionStatus.DECLINED, TransactionStatus.FAILED):
        return Refused(declined(intent, row))
    mismatch = row.operation is not Operation.VOID and row.status is TransactionStatus.SUCCEEDED and row.moved != row.amount
    if mismatch or row.contradicted:
        return Refused(conflicted(intent, row))
    return done(view)
