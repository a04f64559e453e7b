"""What staff look through: orders, and payments that need somebody."""

from contextlib import suppress
from uuid import UUID

from services.payments.handlers.asking import Payments
from services.payments.store import intents as intent_rows
from services.payments.store import listings as rows
from shared.contracts.payments import PAGE_ROWS_MAX, AttentionView, FindOrders, FoundOrders, ListAttention
from shared.database import connected
from shared.messages import Envelope


async def find_orders(envelope: Envelope, query: FindOrders, context: Payments) -> FoundOrders:
    """Read a page of orders, or those that a text is about."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        if not query.text:
            found, following = await rows.page(db, envelope, status=query.status, before=query.before, limit=limit)
            return FoundOrders(orders=found, next=following)
        ids = await rows.found_by_name(db, envelope, query.text)
        with suppress(ValueError):
            ids += await rows.found_by_id(db, envelope, UUID(query.text), limit=limit)
        found = await rows.summaries(db, envelope, ids)
    return FoundOrders(orders=[order for order in found if query.status in (None, order.status)][:limit])


async def list_attention(envelope: Envelope, query: ListAttention, context: Payments) -> AttentionView:
    """Read the payments that need somebody."""
    limit = min(query.limit, PAGE_ROWS_MAX)
    async with connected(context.desk.pool) as db:
        conflicted = await rows.in_conflict(db, envelope, provider=query.provider, limit=limit)
        overpaid = await rows.overpaid(db, envelope, provider=query.provider, limit=limit)
        expiring = await rows.expiring(db, envelope, provider=query.provider, within_hours=query.expiring_within_hours, limit=limit)
    return AttentionView(
        conflicted=[intent_rows.view(i) for i in conflicted],
        expiring=[intent_rows.view(i) for i in expiring],
        overpaid=[intent_rows.view(i) for i in overpaid],
    )
