"""What the machine does with nothing of ours in the way, measured in the same minute."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aio_pika
import asyncpg
import msgspec

from deploy.processes import Process, start, wait_until
from deploy.state import ROOT, free_port, listening
from shared.ids import new_id
from tests.bench.client import Connection, closed_loop

ECHOES = 3_000
PIPELINED = 400
INSERTS = 2_000
MESSAGES = 2_000
PREFETCH = 64
START_TIMEOUT_SECONDS = 20.0
BODY = msgspec.json.encode({"snapshot_id": "0192f0c1-7e00-7000-8000-000000000001", "payment_method": "tok_success"})
NAMES = {
    "echo": "the framework's bare echo",
    "pipeline": "a bare pipeline of the same shape",
    "insert": "one committed INSERT",
    "consume": "bare aio-pika: consume, insert, ack",
}


class Yardsticks:
    """The bare processes and the ways to measure them."""

    def __init__(self, stack: ExitStack, folder: Path, *, database_url: str, amqp_url: str) -> None:
        self._database_url, self._amqp_url = database_url, amqp_url
        self._urls: dict[str, str] = {}
        self.processes: dict[str, Process] = {}
        for name, module in (("echo", "echo"), ("pipeline gateway", "pipeline gateway"), ("pipeline worker", "pipeline worker")):
            port = free_port()
            environment = {
                **os.environ,
                "HTTP_PORT": str(port),
                "PYTHONPATH": str(ROOT),
                "DATABASE_URL": database_url,
                "AMQP_URL": amqp_url,
            }
            command = [sys.executable, "-m", *f"tests.bench.{module}".split()]
            process = start(name, command, log=folder / f"{name}.log", env=environment)
            stack.callback(process.stop)
            self.processes[name] = process
            self._urls[name] = f"http://127.0.0.1:{port}"
            if not name.endswith("worker"):
                wait_until(lambda port=port: listening(port), process=process, timeout_seconds=START_TIMEOUT_SECONDS, what=name)  # type: ignore[misc]

    async def measure(self, clients: int) -> dict[str, float]:
        """Measure every yardstick once, so many a second."""
        return {
            "echo": await self._requests("echo", "/echo", clients, ECHOES),
            "pipeline": await self._requests("pipeline gateway", "/pay", clients, PIPELINED),
            "insert": await self._inserts(clients),
            "consume": await self._consumed(),
        }

    async def _requests(self, name: str, path: str, clients: int, count: int) -> float:
        async def work(connection: Connection, _: int) -> tuple[int, bytes]:
            return await connection.request("POST", path, BODY, {"content-type": "application/json"})

        started = time.perf_counter()
        samples = await closed_loop(self._urls[name], work, clients=clients, count=count)
        assert all(s.status == 201 for s in samples), f"{name} failed"
        return count / (time.perf_counter() - started)

    async def _inserts(self, clients: int) -> float:
        async with self._table() as pool:
            numbers = iter(range(INSERTS))

            async def client() -> None:
                for _ in numbers:
                    await pool.execute("INSERT INTO bench_inserts VALUES ($1, $2)", new_id(), BODY)

            started = time.perf_counter()
            await asyncio.gather(*(client() for _ in range(clients)))
            return INSERTS / (time.perf_counter() - started)

    async def _consumed(self) -> float:
        async with self._table() as pool, await aio_pika.connect(self._amqp_url) as connection:
            channel = await connection.channel()
            await channel.set_qos(prefetch_count=PREFETCH)
            queue = await channel.declare_queue("bench.consume", durable=True, arguments={"x-queue-type": "quorum"})
            message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            for _ in range(0, MESSAGES, 100):
                await asyncio.gather(*(channel.default_exchange.publish(message, queue.name) for _ in range(100)))
            done, left = asyncio.Event(), MESSAGES
            tasks: set[asyncio.Task[None]] = set()

            async def handle(received: Any) -> None:
                nonlocal left
                await pool.execute("INSERT INTO bench_inserts VALUES ($1, $2)", new_id(), received.body)
                await received.ack()
                left -= 1
                if left == 0:
                    done.set()

            async def receive(received: Any) -> None:
                tasks.add(task := asyncio.create_task(handle(received)))
                task.add_done_callback(tasks.discard)

            started = time.perf_counter()
            await queue.consume(receive)
            await done.wait()
            elapsed = time.perf_counter() - started
            await asyncio.gather(*tasks)
            return MESSAGES / elapsed

    @contextlib.asynccontextmanager
    async def _table(self) -> AsyncIterator[Any]:
        async with asyncpg.create_pool(self._database_url, min_size=2, max_size=12) as pool:
            await pool.execute("CREATE TABLE IF NOT EXISTS bench_inserts (id uuid PRIMARY KEY, body bytea)")
            await pool.execute("TRUNCATE bench_inserts")
            yield pool
