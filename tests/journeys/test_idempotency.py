"""The table of idempotency, row by row (Idempotency-Key, draft-ietf-httpapi-idempotency-key-header), and fifty at once."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator

import asyncpg

from services.gateway.domain import Role
from shared.ids import new_id
from tests.world import ORDER, TOTAL, World, until

AT_ONCE = 50


class TestKey:
    async def test_is_required(self, world: World) -> None:
        answer = await world.put_order(new_id(), ORDER, key=None)

        assert (answer.status, answer.code) == (400, "idempotency-key-required")

    async def test_is_at_most_255_characters(self, world: World) -> None:
        answer = await world.put_order(new_id(), ORDER, key="k" * 256)

        assert (answer.status, answer.code) == (400, "idempotency-key-malformed")

    async def test_may_be_quoted(self, world: World) -> None:
        order_id, key = new_id(), new_id().hex
        await world.put_order(order_id, ORDER, key=key)

        answer = await world.put_order(order_id, ORDER, key=f'"{key}"')

        assert answer.headers["Idempotent-Replayed"] == "true"

    async def test_belongs_to_its_principal(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        first = await world.quote(order_id, key=key, role=Role.CHECKOUT)

        second = await world.quote(order_id, key=key, role=Role.ADMIN)

        assert first.json["snapshot_id"] != second.json["snapshot_id"]


class TestReplay:
    async def test_gives_the_same_status_and_body_byte_for_byte(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = await world.authorize(order_id, snapshot_id, key=key)

        again = await world.authorize(order_id, snapshot_id, key=key)

        assert (again.status, again.content) == (first.status, first.content)
        assert "Idempotent-Replayed" not in first.headers
        assert again.headers["Idempotent-Replayed"] == "true"
        await world.books_agree(order_id)

    async def test_gives_a_decline_again(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        first = await world.authorize(order_id, snapshot_id, "tok_declined_do_not_honor", key=key)

        again = await world.authorize(order_id, snapshot_id, "tok_declined_do_not_honor", key=key)

        assert (first.status, again.status, again.content) == (402, 402, first.content)

    async def test_spelling_the_same_json_otherwise_is_the_same_request(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        first = await world.send("POST", "/api/v1/checkout/quote", key=key, content=b'{"order_id":"%s"}' % str(order_id).encode())

        again = await world.send("POST", "/api/v1/checkout/quote", key=key, content=b'{ "order_id" : "%s" }' % str(order_id).encode())

        assert again.content == first.content

    async def test_refuses_the_key_for_another_request(self, world: World) -> None:
        order_id, key = new_id(), new_id().hex
        await world.put_order(order_id, ORDER, key=key)

        answer = await world.put_order(order_id, {**ORDER, "shipping_amount": 1}, key=key)

        assert (answer.status, answer.code, answer.json["outcome"]) == (422, "idempotency-key-reused", "conflict")

    async def test_fifty_at_once_are_one(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)

        answers = await asyncio.gather(*(world.authorize(order_id, snapshot_id, key=key) for _ in range(AT_ONCE)))

        assert {a.status for a in answers} == {201}
        assert len({a.content for a in answers}) == 1
        assert len([p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)]) == 1
        await world.books_agree(order_id)

    async def test_what_passes_is_not_stored_and_the_key_goes_on(self, world: World) -> None:
        payment, key = await world.a_payment("tok_capture_slow"), new_id().hex
        first = asyncio.create_task(payment.capture(1_000))
        await until(lambda: _has_open(world, payment.id))

        refused = await payment.capture(2_000, key=key)
        await first
        again = await payment.capture(2_000, key=key)

        assert (refused.status, refused.code, refused.json["retry"]) == (409, "operation-in-progress", "after")
        assert refused.headers["Retry-After"] == "1"
        assert again.status == 201
        assert (await payment.intent())["captured_amount"] == 3_000

    async def test_says_so_also_when_the_answer_was_kept_while_the_key_was_looked_up(self, world: World) -> None:
        payment, key = await world.a_payment("tok_capture_slow"), new_id().hex
        first = asyncio.create_task(payment.capture(key=key))
        await until(lambda: _has_open(world, payment.id))
        async with _claims_held(world, key):
            second = asyncio.create_task(payment.capture(key=key))
            await until(lambda: world.rows("SELECT FROM pg_stat_activity WHERE wait_event = 'advisory' AND datname = current_database()"))
            await until(lambda: world.rows("SELECT FROM gateway.idempotency_keys WHERE (idempotency_key, status) = ($1, 'completed')", key))

        again = await second

        assert (again.status, again.content) == (201, (await first).content)
        assert again.headers["Idempotent-Replayed"] == "true"


@contextlib.asynccontextmanager
async def _claims_held(world: World, key: str) -> AsyncIterator[None]:
    """Let whoever claims a key stand in the middle of the statement: it sees the key as it was when that began."""
    connection = await asyncpg.connect(world.place.database_url)
    try:
        await connection.execute(
            f"""
            SELECT pg_advisory_lock(hashtext('{key}'));
            CREATE FUNCTION gateway.hold() RETURNS trigger LANGUAGE plpgsql AS
              $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext(NEW.idempotency_key)); RETURN NEW; END $$;
            CREATE TRIGGER hold BEFORE INSERT ON gateway.idempotency_keys
              FOR EACH ROW WHEN (NEW.idempotency_key = '{key}') EXECUTE FUNCTION gateway.hold();
            """
        )
        yield
    finally:
        await connection.execute("SELECT pg_advisory_unlock_all()")
        await connection.execute("DROP FUNCTION gateway.hold() CASCADE")
        await connection.close()


async def _has_open(world: World, intent_id: object) -> bool:
    rows = await world.rows("SELECT FROM payments.payment_transactions WHERE payment_intent_id = $1 AND status = 'pending'", intent_id)
    return bool(rows)


class TestWaiting:
    async def test_respond_async_answers_202_and_the_operation_tells_the_end(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)

        answer = await world.authorize(order_id, snapshot_id, "tok_slow", key=key, headers={"Prefer": "respond-async"})

        assert (answer.status, answer.json["outcome"]) == (202, "unknown")
        location = answer.headers["Location"]
        ended = await until(lambda: _completed(world, location))
        assert (ended["response"]["status"], ended["response"]["body"]["intent"]["authorized_amount"]) == (201, TOTAL)
        replay = await world.authorize(order_id, snapshot_id, "tok_slow", key=key)
        assert (replay.status, replay.headers["Idempotent-Replayed"]) == (201, "true")

    async def test_joins_what_is_still_running(self, world: World) -> None:
        order_id, key = await world.an_order(), new_id().hex
        snapshot_id = await world.a_snapshot(order_id)
        await world.authorize(order_id, snapshot_id, "tok_slow", key=key, headers={"Prefer": "respond-async"})

        answer = await world.authorize(order_id, snapshot_id, "tok_slow", key=key)

        assert answer.status == 201
        assert len([p for p in world.sandbox.books.payments.values() if p.order_id == str(order_id)]) == 1

    async def test_an_operation_is_nobody_elses_business(self, world: World) -> None:
        order_id = await world.an_order()
        answer = await world.quote(order_id, role=Role.ADMIN)

        seen = await world.send("GET", f"/api/v1/operations/{answer.headers['Operation-Id']}", role=Role.CHECKOUT)

        assert seen.status == 404

    async def test_refuses_a_wait_that_is_no_number(self, world: World) -> None:
        answer = await world.put_order(new_id(), ORDER, headers={"Prefer": "wait=soon"})

        assert (answer.status, answer.code) == (400, "header-malformed")


async def _completed(world: World, location: str) -> object:
    operation = await world.operation(location)
    return operation if operation["status"] == "completed" else None


class TestRaces:
    async def test_fifty_captures_with_different_keys_take_what_is_there_once(self, world: World) -> None:
        payment = await world.a_payment()

        answers = await asyncio.gather(*(payment.capture(TOTAL) for _ in range(AT_ONCE)))

        counted = Counter(a.status for a in answers)
        assert (counted[201], counted[409]) == (1, AT_ONCE - 1)
        assert payment.at_the_provider().moved("capture") == TOTAL
        await world.books_agree(payment.order_id)

    async def test_fifty_refunds_with_different_keys_give_back_what_was_taken_once(self, world: World) -> None:
        payment = await world.a_captured_payment()

        answers = await asyncio.gather(*(payment.refund(TOTAL) for _ in range(AT_ONCE)))

        assert Counter(a.status for a in answers)[201] == 1
        assert payment.at_the_provider().moved("refund") == TOTAL
        await world.books_agree(payment.order_id)

    async def test_holds_also_when_the_provider_checks_nothing(self, world: World) -> None:
        world.sandbox.books.check_amounts = world.sandbox.books.check_keys = False
        try:
            payment = await world.a_payment()
            captures = await asyncio.gather(*(payment.capture(4_000) for _ in range(AT_ONCE)))
            refunds = await asyncio.gather(*(payment.refund(3_000) for _ in range(AT_ONCE)))
        finally:
            world.sandbox.books.check_amounts = world.sandbox.books.check_keys = True

        taken, returned = (4_000 * Counter(a.status for a in captures)[201], 3_000 * Counter(a.status for a in refunds)[201])
        provider = payment.at_the_provider()
        assert 0 < taken <= TOTAL
        assert 0 < returned <= taken
        assert (provider.moved("capture"), provider.moved("refund")) == (taken, returned)
        await world.books_agree(payment.order_id)

    async def test_retrying_patiently_captures_each_part_once(self, world: World) -> None:
        payment = await world.a_payment()

        async def patiently(amount: int, key: str) -> int:
            async def captured() -> int | None:
                answer = await payment.capture(amount, key=key)
                return None if answer.status == 409 and answer.json["retry"] == "after" else answer.status

            status: int = await until(captured)
            return status

        statuses = await asyncio.gather(*(patiently(1_000, f"part-{n}") for n in range(10) for _ in range(2)))

        assert set(statuses) == {201}
        assert payment.at_the_provider().moved("capture") == TOTAL
        await world.books_agree(payment.order_id)

    async def test_two_authorizations_of_one_order_are_one_payment(self, world: World) -> None:
        order_id = await world.an_order()
        snapshot_id = await world.a_snapshot(order_id)

        answers = await asyncio.gather(*(world.authorize(order_id, snapshot_id) for _ in range(AT_ONCE)))

        assert Counter(a.status for a in answers) == {201: 1, 409: AT_ONCE - 1}
        await world.books_agree(order_id)
