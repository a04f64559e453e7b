"""Orders and their quotes, and reading what is known of them."""

from datetime import timedelta
from decimal import Decimal

import msgspec

from services.payments.domain import orders as rules
from services.payments.domain.orders import OrderStatus
from services.payments.handlers.asking import Payments
from services.payments.store import intents as intent_rows
from services.payments.store import orders as rows
from services.payments.store import snapshots
from shared.contracts.fulfillment.pricing import Notice, Price, ProviderMetadata, QuoteRates
from shared.contracts.orders import Personal, with_personal
from shared.contracts.payments import (
    PAGE_ROWS_MAX,
    GetOrder,
    GetPayments,
    Ledger,
    ListOrders,
    OrderPage,
    OrderView,
    PutOrder,
    Quote,
    ReportedAmount,
    ShopRates,
    SnapshotView,
)
from shared.database import connected
from shared.errors import NotFound
from shared.messages import Envelope, done
from shared.money import Money, converted, current_exponent
from shared.vault import personal_place
from shared.work import Work


async def put_order(work: Work, command: PutOrder, context: Payments) -> None:
    """Create an order or replace what it says."""
    if command.personal is not None:
        place = personal_place(work.envelope.store_id, work.envelope.environment.value, command.order_id)
        personal = msgspec.json.decode(context.unhidden(command.personal, info=place), type=Personal)
        command = msgspec.structs.replace(command, content=with_personal(command.content, personal))
    priced = rules.price(command.content)
    async with connected(context.desk.pool) as db:
        found = await rows.before_writing(db, work.envelope, command.order_id)
    before = found.order
    if before is None or before.content.currency != command.content.currency:
        # Nobody can pay in a currency that is no more; what was ordered in it once can still be changed, and cancelled.
        current_exponent(command.content.currency)
    version = 0 if before is None else before.version
    if command.expected_version is not None and command.expected_version != version:
        raise rules.StaleVersion(f"The order is at version {version}.", {"expected": command.expected_version, "current": version})
    batch = work.batch()
    overpaid_amount = sum(each.overpaid_amount for each in found.payments)
    if before is not None and before.content == command.content:
        batch.conclude(done(rows.view(before, overpaid_amount=overpaid_amount)))
        await batch.commit()
        return
    if before is not None and before.priced_hash != priced.hash:
        rules.check_changeable(before.content, command.content, found.payments)
        if found.payments:
            batch.add(intent_rows.superseded(work.envelope, before.id))
    order = rows.Order(
        id=command.order_id,
        version=version + 1,
        revision=0,
        status=_status_after(found, cancelled=command.content.cancelled),
        currency=command.content.currency,
        total=priced.totals.total,
        content=command.content,
        totals=priced.totals,
        priced_hash=priced.hash,
        created_at=found.now if before is None else before.created_at,
        updated_at=found.now,
    )
    customer_id = command.content.customer_id
    if before is None:
        batch.add(rows.new_order(work.envelope, order, customer_id))
    else:
        batch.add(rows.changed_order(work.envelope, before, order, customer_id))
    batch.add(*rows.items_of(work.envelope, order.id, command.content, priced))
    if before is None or before.status is not order.status:
        was = None if before is None else before.status
        reason = "created" if before is None else "cancelled" if command.content.cancelled else "reopened"
        batch.add(rows.status_changed(work.envelope, order.id, before=was, after=order.status, reason=reason, source="api"))
    batch.conclude(done(rows.view(order, overpaid_amount=overpaid_amount)))
    await batch.commit()


def _status_after(found: rows.Before, *, cancelled: bool) -> OrderStatus:
    before, free = found.order, any(payment.free for payment in found.payments)
    if before is not None and before.status not in (OrderStatus.OPEN, OrderStatus.CANCELLED) and not free:
        return before.status
    if cancelled:
        return OrderStatus.CANCELLED
    return OrderStatus.PAID if free else OrderStatus.OPEN


async def quote(work: Work, command: Quote, context: Payments) -> None:
    """Freeze an order's prices into a snapshot."""
    lifetime = context.settings.quote_lifetime_seconds
    async with connected(context.desk.pool) as db:
        ground = await snapshots.quote_ground(db, work.envelope, command.order_id, default_lifetime_seconds=lifetime)
    if ground is None:
        raise NotFound(f"There is no order {command.order_id}.")
    order = ground.order
    if order.content.cancelled:
        raise rules.OrderCancelled("A cancelled order has no price.")
    if order.status is OrderStatus.REFUNDED:
        raise rules.OrderPaid("This order was paid and its money went back; another sale needs a new order.", {})
    name = command.payment_provider or context.default_provider(work.envelope)
    provider = context.provider(work.envelope, name)

    reference, notices = _reference(ground, stale_after_days=context.settings.fx_stale_after_days)
    # Asked again, by another try or another copy of the command, fulfillment keeps one answer.
    snapshot_id, expires_at = work.envelope.id, ground.now + timedelta(seconds=ground.policy.quote_lifetime_seconds)
    figures = await context.pricing.figures(
        work.envelope,
        Price(
            order_id=order.id,
            snapshot_id=snapshot_id,
            priced_hash=order.priced_hash.hex(),
            content=order.content,
            expires_at=expires_at,
            rate_id=command.shipping_rate_id,
            service=command.shipping_service,
        ),
    )

    priced = rules.price(
        msgspec.structs.replace(order.content, shipping_amount=figures.shipping_amount, tax_lines=figures.tax_lines),
        removed_taxes=figures.removed_taxes,
        rounding_amount=figures.rounding_amount,
    )
    payment = ProviderMetadata(name=name, capabilities=msgspec.to_builtins(provider.capabilities), browser=provider.browser())
    snapshot = SnapshotView(
        snapshot_id=snapshot_id,
        order_id=order.id,
        order_version=order.version,
        currency=order.currency,
        lines=priced.lines,
        tax_lines=priced.tax_lines,
        totals=priced.totals,
        shipping_rates=figures.rates,
        selected_shipping_rate=figures.selected,
        shipping_address=rules.normalized(order.content.shipping_address),
        billing_address=rules.normalized(order.content.billing_address),
        providers={"payment": payment, **figures.providers},
        fx_reference=reference,
        reported=_reported(Money(priced.totals.total, order.currency), ground.policy.reporting_currency, reference),
        created_at=ground.now,
        expires_at=expires_at,
        notices=[*figures.notices, *notices],
        tax_hash=figures.tax_hash,
    )
    batch = work.batch()
    batch.add(*snapshots.new_snapshot(work.envelope, snapshot, order=order, provider=name))
    batch.conclude(done(snapshot))
    await batch.commit()


def _reported(total: Money, currency: str, reference: dict[str, str] | None) -> ReportedAmount | None:
    """Say what a total is reported as; without a rate nobody guesses."""
    if total.currency == currency:
        return ReportedAmount(amount=total.amount, currency=currency)
    if reference is None:
        return None
    worth = converted(total, Decimal(reference["rate"]), currency)
    return ReportedAmount(amount=worth.amount, currency=worth.currency)


def _reference(ground: snapshots.QuoteGround, *, stale_after_days: int) -> tuple[dict[str, str] | None, list[Notice]]:
    """Give the rate a quote would be reported at; one that is too old is none, and that is said."""
    if ground.fx_reference is None or ground.fx_age_days is None or ground.fx_age_days <= stale_after_days:
        return ground.fx_reference, []
    known = ground.fx_reference
    detail = f"The last rate from {known['base']} to {known['quote']} is of {known['date']}; import newer ones (./tender fx import)."
    return None, [Notice(code="fx-rate-stale", detail=detail)]


async def shop_rates(work: Work, command: ShopRates, context: Payments) -> None:
    """Ask the carriers what it costs to ship an order."""
    async with connected(context.desk.pool) as db:
        order = await rows.get_order(db, work.envelope, command.order_id)
    if order is None:
        raise NotFound(f"There is no order {command.order_id}.")
    asked = QuoteRates(order_id=order.id, priced_hash=order.priced_hash.hex(), content=order.content, packages=command.packages)
    found = await context.pricing.rates(work.envelope, asked)
    batch = work.batch()
    batch.conclude(done(found))
    await batch.commit()


async def get_order(envelope: Envelope, query: GetOrder, context: Payments) -> OrderView:
    """Read an order, as staff or as the customer it belongs to."""
    async with connected(context.desk.pool) as db:
        order = await rows.get_order(db, envelope, query.order_id, customer_id=query.customer_id)
        if order is None:
            raise NotFound(f"There is no order {query.order_id}.")
        overpaid = 0 if query.customer_id else await intent_rows.overpaid_amount(db, envelope, query.order_id)
    return rows.view(order, overpaid_amount=overpaid)


async def list_orders(envelope: Envelope, query: ListOrders, context: Payments) -> OrderPage:
    """Read a page of a customer's orders, the newest first."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        found = await rows.list_orders(db, envelope, query.customer_id, before=query.before, limit=limit + 1)
    page = found[:limit]
    return OrderPage(orders=[rows.view(order) for order in page], next=page[-1].id if len(found) > limit else None)


async def get_payments(envelope: Envelope, query: GetPayments, context: Payments) -> Ledger:
    """Read everything about an order's money, all as of one moment."""
    async with connected(context.desk.pool) as db, db.transaction(isolation="repeatable_read", readonly=True):
        order = await rows.get_order(db, envelope, query.order_id)
        if order is None:
            raise NotFound(f"There is no order {query.order_id}.")
        payments = await intent_rows.whole_ledger(db, envelope, query.order_id)
        return Ledger(
            order_id=order.id,
            order_status=order.status.value,
            currency=order.currency,
            payments=payments,
            overpaid_amount=sum(each.intent.overpaid_amount for each in payments),
            history=await rows.history(db, envelope, query.order_id),
        )
