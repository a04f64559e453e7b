"""The yardstick of our own shape: the same hops with nothing in them. HTTP, key row, confirmed publish, two transactions, reply, row."""

import asyncio
import json
import os
import sys
import uuid
from typing import Any

import aio_pika
import asyncpg
import uvicorn
import uvloop
from litestar import Litestar, post

QUEUE = "bench.pipeline"
CONNECTIONS = 12
PREFETCH = 64
TABLES = (
    "CREATE TABLE IF NOT EXISTS bench_keys (id uuid PRIMARY KEY, command bytea, answer bytea)",
    "CREATE TABLE IF NOT EXISTS bench_inbox (id uuid PRIMARY KEY, reply bytea)",
    "CREATE TABLE IF NOT EXISTS bench_rows (id uuid PRIMARY KEY, amount bigint NOT NULL, status text NOT NULL)",
)


class _Connection(asyncpg.Connection):
    def get_reset_query(self) -> str:
        """Keep no session state, so that releasing costs nothing."""
        return ""


async def _pool() -> Any:
    return await asyncpg.create_pool(os.environ["DATABASE_URL"], min_size=2, max_size=CONNECTIONS, connection_class=_Connection)


async def _channel(*, confirms: bool) -> Any:
    connection = await aio_pika.connect(os.environ["AMQP_URL"])
    return await connection.channel(publisher_confirms=confirms)


async def work() -> None:
    """Take commands: an inbox row with a pending row, then the row's end with the reply."""
    pool, channel, replies = await _pool(), await _channel(confirms=True), await _channel(confirms=False)
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})

    async def handle(message: Any) -> None:
        command_id = uuid.UUID(message.correlation_id)
        async with pool.acquire() as db, db.transaction():
            await db.execute("INSERT INTO bench_inbox (id) VALUES ($1) ON CONFLICT DO NOTHING", command_id)
            await db.execute("INSERT INTO bench_rows VALUES ($1, $2, 'pending') ON CONFLICT DO NOTHING", command_id, 1250)
        async with pool.acquire() as db, db.transaction():
            await db.execute("UPDATE bench_rows SET status = 'succeeded' WHERE id = $1", command_id)
            await db.execute("UPDATE bench_inbox SET reply = $2 WHERE id = $1", command_id, message.body)
        reply = aio_pika.Message(message.body, correlation_id=message.correlation_id)
        await replies.default_exchange.publish(reply, message.reply_to, mandatory=False)
        await message.ack()

    async def receive(message: Any) -> None:
        tasks.add(task := asyncio.create_task(handle(message)))
        task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()
    await queue.consume(receive)
    await asyncio.Event().wait()


async def serve() -> None:
    """Answer requests: a key row, the command, its reply, the row's answer."""
    pool, channel, replies = await _pool(), await _channel(confirms=True), await _channel(confirms=False)
    await channel.declare_queue(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    async with pool.acquire() as db:
        for table in TABLES:
            await db.execute(table)
    mine = await replies.declare_queue(exclusive=True)
    waiting: dict[str, asyncio.Future[bytes]] = {}

    async def answer(message: Any) -> None:
        waiting.pop(message.correlation_id).set_result(message.body)

    await mine.consume(answer, no_ack=True)

    @post("/pay")
    async def pay(data: dict[str, Any]) -> dict[str, Any]:
        key, body = uuid.uuid4(), json.dumps(data).encode()
        await pool.execute("INSERT INTO bench_keys (id, command) VALUES ($1, $2)", key, body)
        waiting[str(key)] = future = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(body, correlation_id=str(key), reply_to=mine.name, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, QUEUE)
        reply = await future
        await pool.execute("UPDATE bench_keys SET answer = $2, command = NULL WHERE id = $1", key, reply)
        found: dict[str, Any] = json.loads(reply)
        return found

    app = Litestar([pay], openapi_config=None, logging_config=None)
    config = uvicorn.Config(app, port=int(os.environ["HTTP_PORT"]), http="httptools", loop="none", access_log=False, log_level="warning")
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    uvloop.run(serve() if sys.argv[1] == "gateway" else work())
