"""What the database itself refuses, whoever asks."""

from uuid import UUID

import asyncpg
import pytest

from deploy import setup
from tests.world import PASSWORD, World


async def _as_payments(world: World, sql: str, *arguments: object) -> None:
    connection = await asyncpg.connect(setup.service_url(world.place.database_url, "payments", PASSWORD))
    try:
        await connection.execute(sql, *arguments)
    finally:
        await connection.close()


class TestLedger:
    async def test_rows_are_never_deleted(self, world: World) -> None:
        payment = await world.a_payment()

        with pytest.raises(asyncpg.RestrictViolationError, match="never deleted"):
            await _as_payments(world, "DELETE FROM payment_transactions WHERE payment_intent_id = $1", payment.id)

    @pytest.mark.parametrize(
        "change", ["amount = amount + 1", "idempotency_key = 'other'", "request = 'x'", "provider_idempotency_key = 'x'"]
    )
    async def test_amounts_keys_and_requests_never_change(self, world: World, change: str) -> None:
        payment = await world.a_payment()

        with pytest.raises(asyncpg.RestrictViolationError, match="never change"):
            await _as_payments(world, f"UPDATE payment_transactions SET {change} WHERE payment_intent_id = $1", payment.id)

    async def test_a_status_never_goes_back(self, world: World) -> None:
        payment = await world.a_payment()

        with pytest.raises(asyncpg.RestrictViolationError, match="cannot go from succeeded back to pending"):
            await _as_payments(world, "UPDATE payment_transactions SET status = 'pending' WHERE payment_intent_id = $1", payment.id)

    async def test_a_refund_that_came_back_never_succeeds_again_and_nothing_else_comes_back(self, world: World) -> None:
        """C05: only a refund fails after it succeeded, and that is final."""
        payment = await world.a_captured_payment()
        await payment.refund(100)
        change = "UPDATE payment_transactions SET status = $2, processed_amount = $3 WHERE payment_intent_id = $1 AND operation = $4"

        with pytest.raises(asyncpg.RestrictViolationError, match="cannot go from succeeded back to failed"):
            await _as_payments(world, change, payment.id, "failed", 0, "capture")
        await _as_payments(world, change, payment.id, "failed", 0, "refund")
        with pytest.raises(asyncpg.RestrictViolationError, match="has come back cannot become succeeded"):
            await _as_payments(world, change, payment.id, "succeeded", 100, "refund")

    async def test_one_order_has_one_active_payment(self, world: World) -> None:
        payment = await world.a_payment()

        with pytest.raises(asyncpg.UniqueViolationError, match="one_active_intent"):
            await _as_payments(world, _COPY_INTENT, payment.id)

    async def test_a_payment_has_one_open_question(self, world: World) -> None:
        payment = await world.a_payment()
        await _as_payments(world, _OPEN_TRANSACTION, payment.id)

        with pytest.raises(asyncpg.UniqueViolationError, match="one_open_transaction"):
            await _as_payments(world, _OPEN_TRANSACTION, payment.id)

    @pytest.mark.parametrize("column", ["capture_reserved", "refund_reserved"])
    async def test_no_more_can_be_reserved_than_is_there(self, world: World, column: str) -> None:
        payment = await world.a_payment()

        with pytest.raises(asyncpg.CheckViolationError):
            await _as_payments(world, f"UPDATE payment_intents SET {column} = 10001 WHERE id = $1", payment.id)


_COPY_INTENT = """
    INSERT INTO payment_intents (id, store_id, environment, order_id, snapshot_id, provider, provider_account, status, currency,
                                 requested_amount)
    SELECT gen_random_uuid(), store_id, environment, order_id, snapshot_id, provider, provider_account, status, currency,
           requested_amount
      FROM payment_intents WHERE id = $1
"""
_OPEN_TRANSACTION = """
    INSERT INTO payment_transactions (id, payment_intent_id, store_id, environment, operation, idempotency_key, command_id, answers,
                                      command_type, command_digest, provider_idempotency_key, provider_account, amount, status, source,
                                      request, actor, correlation_id, next_look_at)
    SELECT gen_random_uuid(), payment_intent_id, store_id, environment, 'capture', gen_random_uuid()::text, gen_random_uuid(),
           gen_random_uuid(), 'observed', '', 'k', provider_account, 1, 'pending', source, 'null', actor, correlation_id,
           now() + interval '1 hour'
      FROM payment_transactions WHERE payment_intent_id = $1 AND operation = 'authorize'
"""


class TestIsolation:
    @pytest.mark.parametrize("service", ["gateway", "payments"])
    async def test_a_services_role_reads_nothing_of_anothers(self, world: World, service: str) -> None:
        tables = await world.rows(
            "SELECT table_schema || '.' || table_name AS name FROM information_schema.tables"
            " WHERE table_schema IN ('gateway', 'payments') AND table_schema <> $1",
            service,
        )
        assert len(tables) > 3
        connection = await asyncpg.connect(setup.service_url(world.place.database_url, service, PASSWORD))
        try:
            for table in tables:
                for statement in ("SELECT FROM {}", "DELETE FROM {}"):
                    with pytest.raises(asyncpg.InsufficientPrivilegeError):
                        await connection.execute(statement.format(table["name"]))
        finally:
            await connection.close()

    async def test_a_services_role_cannot_change_its_tables(self, world: World) -> None:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _as_payments(world, "DROP TRIGGER ledger_moves_on ON payment_transactions")


class TestAudit:
    async def test_its_partitions_are_made_ahead_and_dropped_by_age(self, world: World) -> None:
        await world.change(
            "CREATE TABLE payments.provider_call_audit_200001 PARTITION OF payments.provider_call_audit"
            " FOR VALUES FROM ('2000-01-01') TO ('2000-02-01')"
        )

        await _as_payments(world, "SELECT keep_audit_partitions(4, 13)")

        names = [
            r["name"]
            for r in await world.rows(
                "SELECT inhrelid::regclass::text AS name FROM pg_inherits WHERE inhparent = $1::regclass::oid",
                "payments.provider_call_audit",
            )
        ]
        assert "payments.provider_call_audit_200001" not in names
        assert len(names) >= 5


async def test_intents_equal_the_fold_over_their_rows(world: World) -> None:
    payment = await world.a_captured_payment()
    await payment.refund(1_234)

    row = (await world.rows(_FOLDED, payment.id))[0]

    assert (row["captured"], row["refunded"]) == (row["captured_amount"], row["refunded_amount"])
    assert isinstance(payment.id, UUID)


_FOLDED = """
    SELECT i.captured_amount, i.refunded_amount,
           sum(t.processed_amount) FILTER (WHERE t.operation = 'capture' AND t.status = 'succeeded') AS captured,
           sum(t.processed_amount) FILTER (WHERE t.operation = 'refund' AND t.status = 'succeeded') AS refunded
      FROM payments.payment_intents i JOIN payments.payment_transactions t ON t.payment_intent_id = i.id
     WHERE i.id = $1
     GROUP BY i.id
"""
