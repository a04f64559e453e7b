"""A past for the books: any number of finished orders, loaded by COPY, so that growth can be measured and looked at."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from services.gateway.domain import Principal, Role
from services.gateway.handlers.commands import SUCCESS_STATUS
from services.payments.domain import orders as rules
from services.payments.domain.intents import Intent, IntentStatus
from services.payments.store.intents import view
from shared.contracts import payments
from shared.contracts.orders import OrderContent
from shared.ids import new_id
from shared.messages import Environment, type_of
from shared.owner import connect_as_owner, insert_owner_action

CHUNK_ORDERS = 5_000
PRICE = 1_250
CURRENCY = "EUR"
HISTORY = timedelta(days=20)
ANSWER_DAYS = 30
COMMANDS = (payments.PutOrder, payments.Quote, payments.Authorize, payments.Capture)


async def seed(
    owner_url: str, *, store_id: UUID, orders: int, progress: Callable[[int], None] = lambda _: None, analyze: bool = True
) -> None:
    """Load so many captured orders of a store's sandbox, each with everything that a real one leaves behind."""
    await insert_owner_action(owner_url, "payments", "orders.seed", f"orders={orders}", store_id=store_id, environment=Environment.SANDBOX)
    connection = await connect_as_owner(owner_url)
    try:
        # What is loaded refers to what is loaded beside it; checking each would double the time.
        await connection.execute("SET session_replication_role = replica")
        for done in range(0, orders, CHUNK_ORDERS):
            count = min(CHUNK_ORDERS, orders - done)
            rows = await asyncio.to_thread(_rows, store_id, count, done)
            async with connection.transaction():
                for (schema, table, columns), records in rows.items():
                    await connection.copy_records_to_table(table, schema_name=schema, columns=columns, records=records)
            progress(done + count)
        if analyze:
            await connection.execute("ANALYZE")
    finally:
        await connection.close()


_Table = tuple[str, str, tuple[str, ...]]


def _rows(store_id: UUID, count: int, number: int) -> dict[_Table, list[Sequence[Any]]]:
    content = msgspec.convert(
        {
            "currency": CURRENCY,
            "items": [{"product_variant_id": str(new_id()), "name": "Mug", "quantity": 1, "unit_price": PRICE}],
            "shipping_amount": 0,
            "tax_lines": [],
        },
        OrderContent,
    )
    priced = rules.price(content)
    texts = (msgspec.json.encode(content).decode(), msgspec.json.encode(priced.totals).decode())
    # One after the other and older than now, as ids that bear their time would have it.
    began = datetime.now(UTC) - HISTORY + timedelta(milliseconds=number)
    rows: dict[_Table, list[Sequence[Any]]] = {}
    for nth in range(count):
        _one(rows, store_id, began + timedelta(milliseconds=nth), content, priced, texts)
    return rows


def _one(
    rows: dict[_Table, list[Sequence[Any]]],
    store_id: UUID,
    at: datetime,
    content: OrderContent,
    priced: rules.Priced,
    texts: tuple[str, str],
) -> None:
    order_id, snapshot_id, intent_id = new_id(), new_id(), new_id()
    where = (store_id, Environment.SANDBOX.value)
    actor, correlation_id = f"{Role.ADMIN.value}:seed", f"seed-{order_id}"

    def add(schema: str, table: str, **values: Any) -> None:
        rows.setdefault((schema, table, tuple(values)), []).append(tuple(values.values()))

    scope = dict(zip(("store_id", "environment"), where, strict=True))
    add(
        "payments",
        "orders",
        **scope,
        id=order_id,
        version=1,
        revision=3,
        status="paid",
        currency=CURRENCY,
        total=PRICE,
        content=texts[0],
        totals=texts[1],
        priced_hash=priced.hash,
        created_at=at,
        updated_at=at,
    )
    line = {"line": 0, "product_variant_id": content.items[0].product_variant_id, "name": "Mug", "quantity": 1, "unit_price": PRICE}
    add("payments", "order_items", **scope, order_id=order_id, **line, discount=0, tax_code="", tax_behavior="exclusive")
    add(
        "payments",
        "order_checkout_snapshots",
        id=snapshot_id,
        **scope,
        order_id=order_id,
        order_version=1,
        priced_hash=priced.hash,
        currency=CURRENCY,
        total=PRICE,
        provider="sandbox",
        content=texts[0],
        priced=texts[0],
        created_at=at,
        expires_at=at + timedelta(minutes=15),
    )
    add("payments", "order_checkout_snapshot_items", snapshot_id=snapshot_id, **line, discount=0, amount=PRICE)
    for before, after in ((None, "open"), ("open", "payment_pending"), ("payment_pending", "authorized"), ("authorized", "paid")):
        history = {"from_status": before, "to_status": after, "reason": "seed", "source": "api", "actor": actor}
        add(
            "payments",
            "order_status_history",
            id=new_id(),
            **scope,
            order_id=order_id,
            **history,
            correlation_id=correlation_id,
            changed_at=at,
        )
    intent = Intent(
        id=intent_id,
        order_id=order_id,
        snapshot_id=snapshot_id,
        provider="sandbox",
        provider_account="sandbox:default",
        provider_payment_id=f"pay_{intent_id.hex}",
        currency=CURRENCY,
        requested_amount=PRICE,
        status=IntentStatus.CAPTURED,
        authorized_amount=PRICE,
        captured_amount=PRICE,
        authorization_expires_at=at + timedelta(days=7),
        version=4,
        created_at=at,
        updated_at=at,
    )
    columns = ("id", "order_id", "snapshot_id", "provider", "provider_account", "provider_payment_id", "currency", "requested_amount")
    more = ("authorized_amount", "captured_amount", "authorization_expires_at", "version", "created_at", "updated_at")
    facts = {name: getattr(intent, name) for name in (*columns, *more)}
    add("payments", "payment_intents", **scope, **facts, status=intent.status.value, holds_order=True)
    for operation in ("authorize", "capture"):
        row_id, txn = new_id(), f"{operation[:3]}_{new_id().hex}"
        add(
            "payments",
            "payment_transactions",
            id=row_id,
            payment_intent_id=intent_id,
            **scope,
            operation=operation,
            idempotency_key=f"seed:{order_id}",
            command_id=row_id,
            answers=row_id,
            command_type=f"payments.{operation}.v1",
            command_digest=b"seed",
            provider_idempotency_key=f"tender-{row_id}",
            provider_account=intent.provider_account,
            provider_txn_id=txn,
            amount=PRICE,
            processed_amount=PRICE,
            status="succeeded",
            source="api",
            request=b"null",
            actor=actor,
            correlation_id=correlation_id,
            created_at=at,
            concluded_at=at,
        )
        call = {"provider": "sandbox", "operation": operation, "url_path": "/v1/payments", "request": "{}", "response": "{}"}
        told = {"status": 200, "latency_ms": 5, "attempt": 1, "classification": "answered", "correlation_id": correlation_id}
        # In the month that is open: partitions of months gone by are made when their time comes.
        add("payments", "provider_call_audit", id=new_id(), **scope, **call, **told, transaction_id=row_id, called_at=datetime.now(UTC))
    reply = msgspec.json.encode(view(intent))
    principal = Principal(id=str(store_id), store_id=store_id, environment=Environment.SANDBOX, role=Role.ADMIN)
    for command in COMMANDS:
        kind, operation_id = type_of(command), new_id()
        digest = hashlib.sha256(operation_id.bytes).digest()
        kept = {"type": kind, "digest": digest, "state": "done", "reply": reply, "received_at": at, "finished_at": at}
        add("payments", "inbox", **scope, source="gateway", message_id=operation_id, **kept)
        add(
            "gateway",
            "idempotency_keys",
            scope=principal.scope,
            idempotency_key=f"seed:{operation_id}",
            request_hash=digest,
            status="completed",
            response_code=SUCCESS_STATUS[kind],
            response_body=reply,
            operation_id=operation_id,
            command_type=kind,
            **scope,
            actor=actor,
            correlation_id=correlation_id,
            traceparent="",
            created_at=at,
            completed_at=at,
            expires_at=at + timedelta(days=ANSWER_DAYS),
        )
