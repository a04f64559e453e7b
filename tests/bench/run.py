"""Measuring: authorize and replay over the whole system, beside the framework's bare echo in interleaved rounds."""

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec

from deploy.processes import Process, start, wait_until
from deploy.servers import Choice
from deploy.stack import ROOT, Options, Running, running
from deploy.state import Instance, free_port, listening
from shared.ids import new_id
from tests.bench.client import Connection, Sample, Work, closed_loop

ROUNDS = 3
WARM_UP_REQUESTS = 200
ECHO_REQUESTS = 4_000
START_TIMEOUT_SECONDS = 20.0
ITEM = {"product_variant_id": "0192f0c1-7e00-7000-8000-000000000001", "name": "Mug", "quantity": 1, "unit_price": 1250}
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


def run(what: str, *, clients: int, seconds: float, home: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure one path and give the figures."""
    with ExitStack() as stack:
        up = stack.enter_context(running(Instance(home, "bench"), Options(choice=Choice(), log_level="WARNING"), say))
        port = free_port()
        environment = {**os.environ, "HTTP_PORT": str(port), "PYTHONPATH": str(ROOT)}
        echo = start("echo", [sys.executable, "-m", "tests.bench.echo"], log=home / "bench" / "logs" / "echo.log", env=environment)
        stack.callback(echo.stop)
        wait_until(lambda: listening(port), process=echo, timeout_seconds=START_TIMEOUT_SECONDS, what="the echo server")
        return asyncio.run(_measure(what, up, f"http://127.0.0.1:{port}", clients=clients, seconds=seconds, say=say))


async def _measure(what: str, up: Running, echo_url: str, *, clients: int, seconds: float, say: Callable[[str], None]) -> dict[str, Any]:
    shop = _Shop(up)
    make = shop.authorizing if what == "authorize" else shop.replaying
    await closed_loop(up.state.gateway_url, await make(WARM_UP_REQUESTS, clients), clients=clients, count=WARM_UP_REQUESTS)
    rate = float(WARM_UP_REQUESTS)
    rounds: list[dict[str, Any]] = []
    for number in range(ROUNDS):
        count = max(100, round(rate * seconds / ROUNDS))
        work = await make(count, clients)
        before, started = _cpu_seconds(up), time.perf_counter()
        samples = await closed_loop(up.state.gateway_url, work, clients=clients, count=count)
        elapsed, cpu = time.perf_counter() - started, {name: used - before[name] for name, used in _cpu_seconds(up).items()}
        rate = count / elapsed
        yardstick = await _echoes_per_second(echo_url, clients)
        rounds.append({**_figures(samples, elapsed, cpu), "echo_per_second": yardstick, "ratio_to_echo": rate / yardstick})
        say(f"round {number + 1} of {ROUNDS}: {rate:.0f}/s, bare echo {yardstick:.0f}/s")
    return {"what": what, "clients": clients, "rounds": rounds, "median": _median(rounds)}


def _median(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    plain = {key: statistics.median(r[key] for r in rounds) for key in rounds[0] if isinstance(rounds[0][key], float)}
    cpu = {name: statistics.median(r["cpu_ms"][name] for r in rounds) for name in rounds[0]["cpu_ms"]}
    return {**plain, "cpu_ms": cpu, "errors": sum(r["errors"] for r in rounds)}


def _figures(samples: list[Sample], elapsed: float, cpu: dict[str, float]) -> dict[str, Any]:
    times = sorted(s.seconds * 1000 for s in samples)
    return {
        "per_second": len(samples) / elapsed,
        "p50_ms": times[len(times) // 2],
        "p95_ms": times[int(len(times) * 0.95)],
        "p99_ms": times[int(len(times) * 0.99)],
        "errors": sum(1 for s in samples if s.status >= 400),
        "cpu_ms": {name: used * 1000 / len(samples) for name, used in cpu.items()},
    }


async def _echoes_per_second(url: str, clients: int) -> float:
    body = msgspec.json.encode({"snapshot_id": new_id(), "payment_method": "tok_success"})

    async def work(connection: Connection, _: int) -> tuple[int, bytes]:
        return await connection.request("POST", "/echo", body, {"content-type": "application/json"})

    started = time.perf_counter()
    await closed_loop(url, work, clients=clients, count=ECHO_REQUESTS)
    return ECHO_REQUESTS / (time.perf_counter() - started)


class _Shop:
    """Prepares the work, so that only the measured request is measured."""

    def __init__(self, up: Running) -> None:
        self._url = up.state.gateway_url
        self._headers = {"content-type": "application/json", "authorization": f"Bearer {up.state.api_key}"}
        self._run = new_id().hex

    async def authorizing(self, count: int, clients: int) -> Work:
        """Quote fresh orders; the work is to authorize each."""
        quoted = await self._quoted(count, clients)

        async def work(connection: Connection, number: int) -> tuple[int, bytes]:
            order_id, snapshot_id = quoted[number]
            return await self._authorize(connection, order_id, snapshot_id, f"pay-{order_id}")

        return work

    async def replaying(self, count: int, clients: int) -> Work:
        """Authorize one order; the work is to ask again with the same key."""
        ((order_id, snapshot_id),) = (await self._quoted(1, 1)).values()

        async def work(connection: Connection, _: int) -> tuple[int, bytes]:
            return await self._authorize(connection, order_id, snapshot_id, f"replay-{order_id}")

        await closed_loop(self._url, work, clients=1, count=1)
        return work

    async def _authorize(self, connection: Connection, order_id: UUID, snapshot_id: str, key: str) -> tuple[int, bytes]:
        body = msgspec.json.encode({"snapshot_id": snapshot_id, "payment_method": "tok_success"})
        path = f"/api/v1/checkout/orders/{order_id}/payments/authorize"
        return await connection.request("POST", path, body, {**self._headers, "idempotency-key": key})

    async def _quoted(self, count: int, clients: int) -> dict[int, tuple[UUID, str]]:
        quoted: dict[int, tuple[UUID, str]] = {}
        order = msgspec.json.encode({"currency": "EUR", "items": [ITEM]})

        async def prepare(connection: Connection, number: int) -> tuple[int, bytes]:
            order_id = new_id()
            headers = {**self._headers, "idempotency-key": f"order-{order_id}"}
            await connection.request("PUT", f"/api/v1/admin/orders/{order_id}", order, headers)
            body = msgspec.json.encode({"order_id": order_id})
            headers = {**self._headers, "idempotency-key": f"quote-{order_id}"}
            status, answer = await connection.request("POST", "/api/v1/checkout/quote", body, headers)
            quoted[number] = (order_id, msgspec.json.decode(answer)["snapshot_id"])
            return status, answer

        await closed_loop(self._url, prepare, clients=clients, count=count)
        return quoted


def _cpu_seconds(up: Running) -> dict[str, float]:
    used = {name: _of_tree(process) for name, process in up.processes.items()}
    children = _children_of(os.getpid())
    for name, marker in (("postgres", "postgres"), ("rabbitmq", "beam")):
        used[name] = sum(_of_pid(pid) for pid in children if marker in _command(pid))
    return used


def _of_tree(process: Process) -> float:
    return _of_pid(process.pid)


def _of_pid(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def _children_of(parent: int) -> set[int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parents[int(entry.name)] = int((entry / "stat").read_text().rsplit(")", 1)[1].split()[1])
            except OSError:
                continue
    found, grown = {parent}, True
    while grown:
        more = {pid for pid, above in parents.items() if above in found} - found
        found, grown = found | more, bool(more)
    return found - {parent}


def table(figures: dict[str, Any]) -> str:
    """Write the figures for people."""
    m = figures["median"]
    total = sum(v for name, v in m["cpu_ms"].items() if name != "sandbox")
    cpu = ", ".join(f"{name} {value:.2f}" for name, value in m["cpu_ms"].items())
    return (
        f"{figures['what']} at {figures['clients']} clients, median of {len(figures['rounds'])} rounds\n"
        f"  {m['per_second']:.0f}/s   p50 {m['p50_ms']:.1f} ms   p95 {m['p95_ms']:.1f} ms   p99 {m['p99_ms']:.1f} ms"
        f"   errors {m['errors']}\n"
        f"  CPU ms each: {cpu}; together without the sandbox {total:.2f}\n"
        f"  yardstick: bare echo {m['echo_per_second']:.0f}/s; ratio {m['ratio_to_echo']:.3f}"
    )
