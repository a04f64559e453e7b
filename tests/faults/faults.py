"""Everything that is broken on purpose: each fault happens, lasts a while, and is put right again."""

import asyncio
import contextlib
import signal
from collections.abc import Awaitable, Callable, Mapping
from itertools import cycle
from urllib.parse import quote

import aio_pika
import asyncpg
import msgspec

from deploy.sandbox.intermediary import Meddling
from shared import topology
from tests.faults.ground import Ground
from tests.world import management

MEMORY_LIMIT_NONE_LEFT = "0.0000001"
MEMORY_LIMIT_USUAL = "0.4"
DEADLOCKS_PER_SECOND = 20.0
DEADLOCK_PATIENCE_SECONDS = 30.0

Inject = Callable[[Ground, float], Awaitable[None]]


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """Something that goes wrong, and what it touches: two that touch the same cannot be paired."""

    name: str
    touches: str
    inject: Inject
    # What must be up for the fault itself to be made and put right.
    needs: frozenset[str] = frozenset()


# The broker


async def _broker_restarted(ground: Ground, seconds: float) -> None:
    await asyncio.to_thread(ground.broker.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(ground.broker.start)


async def _broker_killed(ground: Ground, seconds: float) -> None:
    assert ground.broker.process is not None, "the ground runs its broker"
    ground.broker.process.send_group(signal.SIGKILL)
    await asyncio.to_thread(ground.broker.process.wait, 10)
    await asyncio.to_thread(ground.broker.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(ground.broker.start)


async def _broker_frozen(ground: Ground, seconds: float) -> None:
    assert ground.broker.process is not None, "the ground runs its broker"
    ground.broker.process.send_group(signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        ground.broker.process.send_group(signal.SIGCONT)


async def _memory_alarm(ground: Ground, seconds: float) -> None:
    await asyncio.to_thread(ground.broker.control, "set_vm_memory_high_watermark", MEMORY_LIMIT_NONE_LEFT)
    try:
        await asyncio.sleep(seconds)
    finally:
        await asyncio.to_thread(ground.broker.control, "set_vm_memory_high_watermark", MEMORY_LIMIT_USUAL)


async def _connections_closed(ground: Ground, seconds: float) -> None:
    ends = asyncio.get_running_loop().time() + seconds
    async with management(ground.management_url) as http:
        while asyncio.get_running_loop().time() < ends:
            for connection in (await http.get("/api/connections")).json():
                await http.delete(f"/api/connections/{quote(connection['name'], safe='')}", headers={"X-Reason": "a test"})
            await asyncio.sleep(seconds / 3)


async def _queue_deleted(ground: Ground, seconds: float) -> None:
    async with management(ground.management_url) as http:
        (await http.delete(f"/api/queues/%2F/{topology.lane('payments')}")).raise_for_status()
    await asyncio.sleep(seconds)
    await topology.declare(ground.broker.amqp_url, topology.CONSUMERS)


async def _queue_declared_otherwise(ground: Ground, seconds: float) -> None:
    """Somebody puts a classic queue in the place of ours; the job that declares refuses it until it is gone."""
    name = topology.lane("payments")
    async with management(ground.management_url) as http:
        (await http.delete(f"/api/queues/%2F/{name}")).raise_for_status()
        async with await aio_pika.connect(ground.broker.amqp_url) as connection:
            channel = await connection.channel()
            with contextlib.suppress(aio_pika.exceptions.AMQPError):
                other = await channel.declare_queue(name, durable=True)
                await other.bind(topology.COMMANDS, routing_key="payments.#")
        try:
            await topology.declare(ground.broker.amqp_url, topology.CONSUMERS)
            raise AssertionError("a queue declared otherwise was taken for ours")
        except topology.TopologyRefused:
            await asyncio.sleep(seconds)
        (await http.delete(f"/api/queues/%2F/{name}")).raise_for_status()
    await topology.declare(ground.broker.amqp_url, topology.CONSUMERS)


# The database


async def _database_restarted(ground: Ground, seconds: float) -> None:
    await asyncio.to_thread(ground.database.stop)
    await asyncio.sleep(seconds)
    await asyncio.to_thread(ground.database.start)


async def _connections_cut(ground: Ground, seconds: float) -> None:
    for _ in range(4):
        await ground.world.rows(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await asyncio.sleep(seconds / 4)


async def _out_of_connections(ground: Ground, seconds: float) -> None:
    """Others take every connection there is, and ours are cut so that they have to be opened anew."""
    taken: list[asyncpg.Connection[asyncpg.Record]] = []
    await _connections_cut(ground, 0)
    try:
        with contextlib.suppress(asyncpg.TooManyConnectionsError):
            while True:
                taken.append(await asyncpg.connect(ground.world.place.database_url))
        await asyncio.sleep(seconds)
    finally:
        await asyncio.gather(*(connection.close() for connection in taken))


async def _deadlocks(ground: Ground, seconds: float) -> None:
    """Take what our transactions take, in one order and the other, until Postgres has had to undo one."""
    loop = asyncio.get_running_loop()
    ends, before = loop.time() + seconds, await _deadlocks_so_far(ground)
    connection = await asyncpg.connect(ground.world.place.database_url)
    locks = (
        ("payments.payment_intents", "SELECT id FROM payments.payment_intents ORDER BY updated_at DESC LIMIT 8"),
        ("payments.orders", "SELECT order_id FROM payments.payment_intents ORDER BY updated_at DESC LIMIT 8"),
    )
    try:
        await connection.execute("SET deadlock_timeout = '10s'")  # So that it is ours that find out, after a second.
        for order in cycle((locks, locks[::-1])):
            with contextlib.suppress(asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
                async with connection.transaction():
                    await connection.execute("SET LOCAL lock_timeout = '3s'")
                    for table, ids in order:
                        await connection.execute(f"SELECT FROM {table} WHERE id IN ({ids}) ORDER BY id FOR UPDATE")
                        await asyncio.sleep(1 / DEADLOCKS_PER_SECOND)
            seen = await _deadlocks_so_far(ground) > before
            if loop.time() > ends and (seen or loop.time() > ends + DEADLOCK_PATIENCE_SECONDS):
                break
    finally:
        await connection.close()
    assert seen, "no deadlock came about"


async def _deadlocks_so_far(ground: Ground) -> int:
    rows = await ground.world.rows("SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return int(rows[0]["deadlocks"])


UNDONE = (("payments", "payment_intents"), ("payments", "payment_transactions"), ("gateway", "idempotency_keys"))


async def _serialization_failures(ground: Ground, seconds: float) -> None:
    """Every eighth statement that writes an intent or a key is undone as if others had been in the way."""
    for schema, table in UNDONE:
        await ground.world.change(
            f"""
            CREATE OR REPLACE FUNCTION {schema}.undone() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF random() < 0.125 THEN RAISE EXCEPTION 'could not serialize access' USING ERRCODE = 'serialization_failure'; END IF;
                RETURN NEW;
            END $$
            """
        )
        await ground.world.change(
            f"CREATE OR REPLACE TRIGGER undone BEFORE INSERT OR UPDATE ON {schema}.{table} FOR EACH ROW EXECUTE FUNCTION {schema}.undone()"
        )
    await asyncio.sleep(seconds)
    # One table after the other: a statement that locks two would meet those that write both, and one of them be undone.
    for schema, table in UNDONE:
        await ground.world.change(f"DROP TRIGGER undone ON {schema}.{table}")
    for schema in ("payments", "gateway"):
        await ground.world.change(f"DROP FUNCTION {schema}.undone()")


# Our own processes


def _killed(name: str) -> Inject:
    async def inject(ground: Ground, seconds: float) -> None:
        await ground.system.kill(name)
        await asyncio.sleep(seconds)
        await ground.system.start(name)

    return inject


def _frozen(name: str) -> Inject:
    async def inject(ground: Ground, seconds: float) -> None:
        ground.system.child(name).send(signal.SIGSTOP)
        try:
            await asyncio.sleep(seconds)
        finally:
            ground.system.child(name).send(signal.SIGCONT)

    return inject


def _told_to_stop(name: str) -> Inject:
    async def inject(ground: Ground, seconds: float) -> None:
        await ground.system.stop_one(name)
        await asyncio.sleep(seconds)
        await ground.system.start(name)

    return inject


async def _two_of_payments(ground: Ground, seconds: float) -> None:
    """A second process takes from the same queues and relays from the same outbox, then dies with what it has in hand."""
    await ground.system.start("payments 2")
    await asyncio.sleep(seconds)
    await ground.system.kill("payments 2")


# The provider


def _weather(moods: Mapping[str, float]) -> Inject:
    async def inject(ground: Ground, seconds: float) -> None:
        ground.world.sandbox.weather = dict(moods)
        try:
            await asyncio.sleep(seconds)
        finally:
            ground.world.sandbox.weather = {}

    return inject


async def _hostile_intermediary(ground: Ground, seconds: float) -> None:
    """Something before the provider executes requests or drops them, and answers what it likes."""
    intermediary = ground.world.sandbox.intermediary
    intermediary.meddle(Meddling(rate=0.5, seed=ground.rng.randrange(2**32)))
    try:
        await asyncio.sleep(seconds)
    finally:
        intermediary.meddle(Meddling())


FAULTS: tuple[Fault, ...] = (
    Fault(name="broker stopped and started", touches="broker", inject=_broker_restarted),
    Fault(name="broker killed", touches="broker", inject=_broker_killed),
    Fault(name="broker frozen", touches="broker", inject=_broker_frozen),
    Fault(name="broker out of memory", touches="broker", inject=_memory_alarm),
    Fault(name="connections closed by an administrator", touches="broker", inject=_connections_closed),
    Fault(name="queue deleted", touches="broker", inject=_queue_deleted),
    Fault(name="queue declared otherwise", touches="broker", inject=_queue_declared_otherwise),
    Fault(name="database stopped and started", touches="database", inject=_database_restarted),
    Fault(name="database connections cut", touches="database", inject=_connections_cut),
    Fault(name="database out of connections", touches="database", inject=_out_of_connections),
    Fault(name="deadlocks", touches="database", inject=_deadlocks),
    Fault(name="serialization failures", touches="database", inject=_serialization_failures),
    Fault(name="payments killed", touches="payments", inject=_killed("payments")),
    Fault(name="payments frozen", touches="payments", inject=_frozen("payments")),
    Fault(name="payments told to stop", touches="payments", inject=_told_to_stop("payments")),
    Fault(name="two of payments, one killed", touches="payments", inject=_two_of_payments),
    Fault(name="gateway killed", touches="gateway", inject=_killed("gateway")),
    Fault(name="gateway frozen", touches="gateway", inject=_frozen("gateway")),
    Fault(name="gateway told to stop", touches="gateway", inject=_told_to_stop("gateway")),
    Fault(name="webhooks killed", touches="webhooks", inject=_killed("webhooks")),
    Fault(name="webhooks frozen", touches="webhooks", inject=_frozen("webhooks")),
    Fault(name="webhooks told to stop", touches="webhooks", inject=_told_to_stop("webhooks")),
    Fault(name="provider slow", touches="provider", inject=_weather({"slow": 0.7})),
    Fault(name="provider busy", touches="provider", inject=_weather({"busy": 0.7})),
    Fault(name="provider failing", touches="provider", inject=_weather({"fail": 0.7})),
    Fault(name="provider silent", touches="provider", inject=_weather({"silent": 0.5})),
    Fault(name="provider answering late", touches="provider", inject=_weather({"late": 0.5})),
    Fault(name="provider behind a hostile intermediary", touches="provider", inject=_hostile_intermediary),
)
