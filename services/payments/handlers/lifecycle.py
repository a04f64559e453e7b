"""The payment lifecycle: authorize, confirm, capture, void, refund; and what happened at the provider without us."""

from collections.abc import Callable, Mapping, Sequence

import msgspec

from services.payments.domain import guards, orders
from services.payments.domain.intents import (
    NO_MONEY,
    Intent,
    IntentStatus,
    Observation,
    Operation,
    Source,
    Transaction,
    TransactionStatus,
    fold,
)
from services.payments.handlers.asking import Payments, ask, conclude, confirming, recorded_call, reply_of, see
from services.payments.handlers.resolving import resolve
from services.payments.handlers.waiting_payments import capture_submitted, end_waiting
from services.payments.providers import (
    AuthorizeRequest,
    Captured,
    CaptureRequest,
    PaymentProvider,
    Prepared,
    RefundRequest,
    Request,
    VoidRequest,
)
from services.payments.store import intents as intent_rows
from services.payments.store import ledger, questions, snapshots
from services.payments.store import orders as order_rows
from services.payments.store.intents import Seen
from services.payments.store.questions import Question
from shared import telemetry
from shared.contracts.payments import Authorize, Capture, Confirm, IntentChanged, PaymentView, Refund, Void
from shared.database import connected
from shared.errors import Invalid, NotFound
from shared.ids import new_id
from shared.messages import done
from shared.vault import payment_method_place
from shared.work import Batch, Work

# How the gateway names a checkout token as an actor.
SHOPPER = "shopper:"


async def authorize(work: Work, command: Authorize, context: Payments) -> None:
    """Hold the customer's money for a snapshot; a payment of the order that still waits for its customer is ended first."""
    begun = await _new_payment(work, command, context)
    if isinstance(begun, _Waiting):
        begun = await _instead_of(begun, work, command, context)
    if begun is None:
        return
    question = begun.question

    provider = context.provider(work.envelope, question.provider, account=question.provider_account)
    heard = await ask(context, question, lambda: _send(provider, question))

    await conclude(work, context, question, heard, source=Source.API, expected=begun.expected)


async def _instead_of(waiting: "_Waiting", work: Work, command: Authorize, context: Payments) -> "_Begun | None":
    intent = await end_waiting(work, context, waiting.intent.id)
    if intent is None:
        return None
    if intent.holds_order:
        await _answer_with(intent, waiting, work, context)
        return None
    begun = await _new_payment(work, command, context)
    if isinstance(begun, _Waiting):
        raise guards.OperationInProgress("Another payment of this order was begun at the same time.", {"intent_id": str(begun.intent.id)})
    return begun


async def _answer_with(intent: Intent, waiting: "_Waiting", work: Work, context: Payments) -> None:
    """Its customer had acted after all: what is held by now is the answer, if it is what was asked for."""
    if intent.status not in guards.PAID_OR_HELD or intent.requested_amount != waiting.amount or intent.currency != waiting.currency:
        raise guards.active_payment(intent)
    await _go_on_or_tell(intent, work, context)


async def _go_on_or_tell(intent: Intent, work: Work, context: Payments) -> None:
    """Its customer has acted: capture it if it was submitted, else tell how it stands."""
    if intent.to_be_captured and await capture_submitted(work, context, intent.id):
        return
    seen = await see(context, work, intent.id)
    if intent.to_be_captured:
        # Somebody else captures it: whoever asks comes back to hear how that went.
        guards.check_nothing_open(seen.transactions)
    await _tell_again(work, seen, next(t for t in seen.transactions if t.operation is Operation.AUTHORIZE))


async def confirm(work: Work, command: Confirm, context: Payments) -> None:
    """Go on with a payment after its customer has acted, and to its capture if it was submitted."""
    question = await _continued(work, command, context)
    if question is None:
        return

    provider = context.provider(work.envelope, question.provider, account=question.provider_account)
    heard = await ask(context, question, confirming(provider, question))

    intent = await conclude(work, context, question, heard, source=Source.API)
    if intent is not None and intent.to_be_captured:
        await capture_submitted(work, context, intent.id)


async def capture(work: Work, command: Capture, context: Payments) -> None:
    """Take held money, all or part of it."""

    def plan(seen: Seen, provider: PaymentProvider) -> tuple[Transaction, Request]:
        intent = seen.intent
        amount = guards.amount_to_capture(intent, command.amount, command.currency)
        _check_capture(provider, intent, amount, final=command.final)
        row = Transaction(id=new_id(), operation=Operation.CAPTURE, amount=amount, status=TransactionStatus.PENDING, final=command.final)
        return row, CaptureRequest(
            reference=row.id,
            provider_payment_id=_known(intent),
            amount=amount,
            currency=intent.currency,
            final=command.final,
            earlier=_captured(seen.transactions),
            undone=tuple(t.id for t in seen.transactions if t.operation is Operation.CAPTURE and t.status in NO_MONEY),
        )

    await _operate(work, command, context, plan)


async def void(work: Work, command: Void, context: Payments) -> None:
    """Release what is held and not captured."""

    def plan(seen: Seen, provider: PaymentProvider) -> tuple[Transaction, Request]:
        intent = seen.intent
        amount = guards.amount_to_void(intent)
        if intent.captured_amount > 0 and not provider.capabilities.void_after_capture:
            raise guards.UnsupportedByProvider(f"{provider.name} cannot release the rest after a capture.", {"provider": provider.name})
        row = Transaction(id=new_id(), operation=Operation.VOID, amount=amount, status=TransactionStatus.PENDING)
        return row, VoidRequest(reference=row.id, provider_payment_id=_known(intent))

    await _operate(work, command, context, plan)


async def refund(work: Work, command: Refund, context: Payments) -> None:
    """Give captured money back, all or part of it, or what it names of its lines."""
    if command.overpaid and command.lines:
        raise Invalid("What the order does not owe is for none of its lines.", {"field": "$.lines"})
    command = msgspec.structs.replace(command, amount=guards.amount_of_lines(command.lines, command.amount))
    prices: Mapping[int | None, int] = {}
    if command.lines:
        async with connected(context.desk.pool) as db:
            prices = await snapshots.line_prices(db, command.intent_id)

    def plan(seen: Seen, provider: PaymentProvider) -> tuple[Transaction, Request]:
        intent = seen.intent
        decide = guards.amount_to_give_back if command.overpaid else guards.amount_to_refund
        amount = decide(intent, command.amount, command.currency)
        guards.check_lines(intent, seen.transactions, command.lines, prices)
        _check_refund(provider, intent, amount)
        row = Transaction(
            id=new_id(),
            operation=Operation.REFUND,
            amount=amount,
            status=TransactionStatus.PENDING,
            reason=command.reason,
            lines=command.lines,
        )
        return row, RefundRequest(
            reference=row.id,
            provider_payment_id=_known(intent),
            amount=amount,
            currency=intent.currency,
            reason=command.reason,
        )

    await _operate(work, command, context, plan)


OPERATIONS = {Capture: Operation.CAPTURE, Void: Operation.VOID, Refund: Operation.REFUND}
Plan = Callable[[Seen, PaymentProvider], tuple[Transaction, Request]]


async def _operate(work: Work, command: Capture | Void | Refund, context: Payments, plan: Plan) -> None:
    begun = await _remembered(work, command, context, plan)
    if begun is None:
        return
    question = begun.question

    provider = context.provider(work.envelope, question.provider, account=question.provider_account)
    heard = await ask(context, question, lambda: _send(provider, question))

    await conclude(work, context, question, heard, source=Source.API, expected=begun.expected)


async def _remembered(work: Work, command: Capture | Void | Refund, context: Payments, plan: Plan) -> "_Begun | None":
    first = await _try_to_remember(work, command, context, plan, resolve_first=True)
    if not isinstance(first, _Unknown):
        return first
    # An earlier outcome is not known: that one first, then ours, or the caller comes back.
    await resolve(context, first.question)
    again = await _try_to_remember(work, command, context, plan, resolve_first=False)
    assert not isinstance(again, _Unknown), "the second try refuses instead of looking once more"
    return again


class _Unknown(msgspec.Struct, frozen=True):
    question: Question


class _Begun(msgspec.Struct, frozen=True):
    """A question that is written, and what its intent is expected to be when the answer comes."""

    question: Question
    expected: Seen


async def _try_to_remember(
    work: Work, command: Capture | Void | Refund, context: Payments, plan: Plan, *, resolve_first: bool
) -> _Begun | _Unknown | None:
    seen = await _seen(work, command, context)
    if any(t.command_id == work.envelope.id for t in seen.transactions):
        # It was asked before: only the resolver goes on with it.
        context.wake_resolver()
        return None
    unknown = next((t for t in seen.transactions if t.status is TransactionStatus.UNKNOWN and not t.accepted), None)
    if unknown is not None and resolve_first:
        due = await questions.take_one(context.desk.pool, unknown.id, lease_seconds=context.settings.lease_seconds)
        if due is not None:
            return _Unknown(due)
    guards.check_nothing_open(seen.transactions)
    amount = None if isinstance(command, Void) else command.amount
    lines = command.lines if isinstance(command, Refund) else ()
    known = guards.done_with_key(seen.transactions, OPERATIONS[type(command)], command.idempotency_key, amount, lines)
    if known is not None:
        await _tell_again(work, seen, known)
        return None
    provider = context.provider(work.envelope, seen.intent.provider, account=seen.intent.provider_account)
    row, request = plan(seen, provider)
    batch = work.batch()
    batch.begin()
    intent, reservation = intent_rows.reserved(seen.intent, row)
    batch.add(reservation)
    begun = _ask_in(batch, work, context, seen, intent, row, provider.prepare(request), command.idempotency_key)
    await batch.commit()
    return begun


async def _seen(work: Work, command: Capture | Void | Refund | Confirm, context: Payments) -> Seen:
    async with connected(context.desk.pool) as db:
        seen = await intent_rows.see_intent(work.reading(db), work.envelope, command.intent_id, order_id=command.order_id)
    if seen is None:
        raise NotFound(f"Order {command.order_id} has no payment {command.intent_id}.")
    return seen


async def _tell_again(work: Work, seen: Seen, row: Transaction) -> None:
    view = ledger.view_of(row, seen.facts(row.id), seen.intent.currency, now=seen.now)
    batch = work.batch()
    batch.conclude(reply_of(seen.intent, row, PaymentView(intent=intent_rows.view(seen.intent), transaction=view)))
    await batch.commit()


def _ask_in(
    batch: Batch, work: Work, context: Payments, seen: Seen, intent: Intent, row: Transaction, prepared: Prepared, idempotency_key: str
) -> _Begun:
    asked = recorded_call(work, context, seen, intent, row, prepared, idempotency_key=idempotency_key)
    batch.add(asked.statement)
    return _Begun(asked.question, seen.after_asking(intent, asked.row, asked.facts))


class _Waiting(msgspec.Struct, frozen=True):
    """A payment of the order that waits for its customer, and for how much another is to be begun."""

    intent: Intent
    amount: int
    currency: str


def _check_declines(work: Work, order: order_rows.Payable, context: Payments) -> None:
    settings = context.settings
    # A shop's own key pays for many shoppers, of whom each has few tries.
    of_token = order.declined_of_caller if work.envelope.actor.startswith(SHOPPER) else 0
    orders.check_declines(
        orders.Declines(order=orders.declined_lately(order.intents, now=order.now), token=of_token, store=order.declined_of_store),
        orders.Declines(
            order=settings.declines_per_order_max, token=settings.declines_per_token_max, store=settings.declines_per_store_max
        ),
    )


async def _new_payment(work: Work, command: Authorize, context: Payments) -> _Begun | _Waiting | None:
    async with connected(context.desk.pool) as db:
        order = await order_rows.payable(
            work.reading(db), work.envelope, command.order_id, command.snapshot_id, declines_max=context.settings.declines_per_store_max
        )
    if order is None:
        raise NotFound(f"There is no order {command.order_id}.")
    if order.asked_before:
        # Another copy of this command came first: only its holder or the resolver goes on with it.
        context.wake_resolver()
        return None
    snapshot = order.snapshot
    if snapshot is None:
        raise NotFound(f"Order {command.order_id} has no snapshot {command.snapshot_id}.")
    differing = [] if snapshot.priced_hash == order.priced_hash else await _differing(work, command, context)
    _check_payable(order, snapshot, command, differing)
    _check_declines(work, order, context)
    provider = context.provider(work.envelope, snapshot.provider)
    _check_currency(provider, snapshot.currency)

    intent = Intent(
        id=new_id(),
        order_id=order.id,
        snapshot_id=snapshot.id,
        provider=provider.name,
        provider_account=provider.account,
        currency=snapshot.currency,
        requested_amount=snapshot.total,
        capture_wanted=command.capture,
        created_at=order.now,
        updated_at=order.now,
    )
    waiting = next((other for other in order.intents if other.holds_order), None)
    if intent.free and waiting is not None:
        # It waits for a dearer way to ship the same.
        return _Waiting(waiting, snapshot.total, snapshot.currency)
    if intent.free:
        await _paid_without_money(work, order, intent)
        return None
    place = payment_method_place(work.envelope.store_id, work.envelope.environment.value, order.id)
    method = context.unhidden(command.payment_method, info=place)
    if not method:
        raise Invalid("There is something to pay, so a payment method is needed.", {"field": "$.payment_method"})
    row = Transaction(id=new_id(), operation=Operation.AUTHORIZE, amount=snapshot.total, status=TransactionStatus.PENDING)
    request = AuthorizeRequest(
        reference=row.id,
        order_id=order.id,
        amount=snapshot.total,
        currency=snapshot.currency,
        payment_method=method,
        return_url=command.return_url,
    )
    prepared = provider.prepare(request)
    if waiting is not None:
        return _Waiting(waiting, snapshot.total, snapshot.currency)
    telemetry.bind({"intent_id": str(intent.id)})
    pending = orders.OrderStatus.PAYMENT_PENDING
    reason, source = "authorize: payment is processing", Source.API.value
    batch = work.batch()
    batch.begin()
    if order.intents:
        batch.add(intent_rows.superseded(work.envelope, order.id))
    batch.add(
        order_rows.stands(work.envelope, order.id, revision=order.revision, status=pending),
        order_rows.status_changed(work.envelope, order.id, before=order.status, after=pending, reason=reason, source=source),
        intent_rows.new_intent(work.envelope, intent),
    )
    seen = Seen(
        intent=intent,
        transactions=(),
        order_status=pending,
        order_revision=order.revision + 1,
        others=tuple(msgspec.structs.replace(each, superseded=True) for each in order.intents),
        order_total=order.total,
        cancelled=order.cancelled,
        now=order.now,
        rows="[]",
    )
    begun = _ask_in(batch, work, context, seen, intent, row, prepared, command.idempotency_key)
    await batch.commit()
    return begun


async def _paid_without_money(work: Work, order: order_rows.Payable, intent: Intent) -> None:
    """Pay an order with nothing to pay, which concerns no provider."""
    row = Transaction(id=new_id(), operation=Operation.AUTHORIZE, amount=0, processed_amount=0, status=TransactionStatus.SUCCEEDED)
    intent = fold(intent, [row])
    sums = intent_rows.sums([intent], total=order.total, cancelled=order.cancelled)
    after = orders.order_status(sums)
    reason = f"authorize: payment is {intent.status.value}, there is nothing to pay"
    view = PaymentView(
        intent=intent_rows.view(intent),
        transaction=ledger.view_of(row, ledger.facts_of(work.envelope, row, now=order.now), intent.currency, now=order.now),
    )
    batch = work.batch()
    if order.intents:
        batch.add(intent_rows.superseded(work.envelope, order.id))
    batch.add(
        order_rows.stands(work.envelope, order.id, revision=order.revision, status=after),
        order_rows.status_changed(work.envelope, order.id, before=order.status, after=after, reason=reason, source=Source.API.value),
        intent_rows.new_intent(work.envelope, intent),
        ledger.added(work.envelope, intent, row),
    )
    batch.conclude(done(view), [IntentChanged(intent=view.intent, order_status=after.value)])
    await batch.commit()


async def _differing(work: Work, command: Authorize, context: Payments) -> list[str]:
    async with connected(context.desk.pool) as db:
        priced, now = await snapshots.what_differs(db, work.envelope, command.order_id, command.snapshot_id)
    return orders.differing_fields(priced, now)


def _check_payable(order: order_rows.Payable, snapshot: order_rows.SnapshotFacts, command: Authorize, differing: list[str]) -> None:
    orders.check_snapshot(
        expired=snapshot.expired,
        snapshot_hash=snapshot.priced_hash,
        order_hash=order.priced_hash,
        differing=differing,
        cancelled=order.cancelled,
    )
    orders.check_amount(
        amount=command.amount, currency=command.currency, expected_amount=snapshot.total, expected_currency=snapshot.currency
    )
    for intent in order.intents:
        facts = {"intent_id": str(intent.id), "payment_status": intent.status.value}
        if intent.holds_order and intent.status is IntentStatus.REFUNDED:
            raise orders.OrderPaid("This order was paid and its money went back; another sale needs a new order.", facts)
        if intent.holds_order and intent.status is not IntentStatus.REQUIRES_ACTION:
            raise guards.active_payment(intent)
        if intent.overpaid_amount > 0:
            raise orders.OrderPaid("An earlier payment of this order has taken money after all; give it back first, or accept it.", facts)


async def _continued(work: Work, command: Confirm, context: Payments) -> Question | None:
    seen = await _seen(work, command, context)
    row = next(t for t in seen.transactions if t.operation is Operation.AUTHORIZE)
    if any(t.open and seen.facts(t.id).answers == work.envelope.id for t in seen.transactions):
        context.wake_resolver()
        return None
    if not row.open:
        # The bank told us before the customer did.
        await _go_on_or_tell(seen.intent, work, context)
        return None
    guards.check_nothing_open(seen.transactions)
    guards.check_confirmable(seen.intent)
    _, untouched = intent_rows.reserved(seen.intent, row)
    batch = work.batch()
    batch.begin()
    batch.add(
        # Nothing is reserved, but whoever saw the intent as it was, to void it say, has to look again.
        untouched,
        questions.continued(
            seen.intent,
            row,
            answers=work.envelope,
            command_type=work.kind,
            command_digest=work.digest,
            lease_seconds=context.settings.lease_seconds,
        ),
    )
    await batch.commit()
    return await questions.question(context.desk.pool, row.id)


async def _send(provider: PaymentProvider, question: Question) -> tuple[Observation, ...]:
    assert question.prepared is not None, "a question of ours holds its exact call"
    return await provider.send(question.prepared, idempotency_key=question.idempotency_key, reference=question.transaction_id)


def _known(intent: Intent) -> str:
    assert intent.provider_payment_id is not None, "a payment with anything to capture, void or refund is known to its provider"
    return intent.provider_payment_id


def _captured(transactions: Sequence[Transaction]) -> tuple[Captured, ...]:
    ours = (t for t in transactions if t.operation is Operation.CAPTURE and t.source is Source.API and t.moved > 0)
    return tuple(Captured(reference=t.id, amount=t.moved) for t in sorted(ours, key=lambda t: t.id))


def _check_currency(provider: PaymentProvider, currency: str) -> None:
    allowed = provider.capabilities.currencies
    if allowed is not None and currency not in allowed:
        raise guards.UnsupportedByProvider(f"{provider.name} cannot take {currency}.", {"provider": provider.name, "currency": currency})


def _check_capture(provider: PaymentProvider, intent: Intent, amount: int, *, final: bool) -> None:
    able = provider.capabilities
    partial = amount < intent.capturable
    if partial and able.partial_capture and not final and not able.multiple_captures:
        raise guards.UnsupportedByProvider(
            f"{provider.name} captures a payment once and lets go of the rest; say final: true if that is meant.",
            {"provider": provider.name, "amount": amount, "capturable": intent.capturable},
        )
    if (
        (partial and not able.partial_capture)
        or (intent.captured_amount > 0 and not able.multiple_captures)
        or (final and not able.final_capture)
    ):
        raise guards.UnsupportedByProvider(f"{provider.name} cannot capture like this.", {"provider": provider.name})


def _check_refund(provider: PaymentProvider, intent: Intent, amount: int) -> None:
    able = provider.capabilities
    if (amount < intent.refundable and not able.partial_refund) or (intent.refunded_amount > 0 and not able.multiple_refunds):
        raise guards.UnsupportedByProvider(f"{provider.name} cannot refund like this.", {"provider": provider.name})
