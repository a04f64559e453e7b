"""Stopping under load: nothing new is taken, nothing connects again, nothing is lost, whenever it comes."""

import asyncio
import contextlib
import gc
import random
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from shared import topology
from shared.bus import Consumer, Letter, Publisher, Received, connections, consumer
from tests.shared.probe import NAME, Probe, a_probe, waiting
from tests.world import Place, until

STOPS = 1000
# Stopping is waiting for the broker's answers, so several go on beside each other.
AT_ONCE = 10
MOMENT_MAX_SECONDS = 0.06
GRACE_SECONDS = 5.0
STOP_TIMEOUT_SECONDS = 20.0
WORK_MAX_SECONDS = 0.01
# Some have work in hand that takes longer than the consumer's pause before it would connect again.
LONG_WORKS, LONG_WORK_SECONDS = 0.1, 0.5
BACKLOG_MAX = 400
LOSSES = 0.2


class Load:
    """Messages that keep coming, and which of them were handled."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.sent: set[str] = set()
        self.handled: set[str] = set()

    async def keep_coming(self) -> None:
        async with Publisher(self.place.amqp_url, name="load") as publisher:
            while True:
                for _ in range(50):
                    number = str(len(self.sent))
                    self.sent.add(number)
                    await publisher.publish(
                        Letter(exchange=topology.COMMANDS, routing_key=f"{NAME}.do.v1", body=number.encode(), headers={}, type="do")
                    )
                await until(self._room, timeout_seconds=120)

    async def _room(self) -> bool:
        return len(self.sent) - len(self.handled) < BACKLOG_MAX


@contextlib.asynccontextmanager
async def a_load(place: Place) -> AsyncIterator[Load]:
    await topology.declare(place.amqp_url, [NAME])
    load = Load(place)
    sending = asyncio.create_task(load.keep_coming())
    yield load
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending


class Stop:
    """One consumer that is stopped, and what it must not do from then on."""

    def __init__(self, load: Load, number: int) -> None:
        self.name = f"stopping {number}"
        self.transports: list[asyncio.Transport] = []
        self.draining = False
        self.stopped = False
        # What it did although it was stopping; raised where it happens it would only end one more attempt.
        self.wrong: list[str] = []
        self._load = load
        self._work_seconds = LONG_WORK_SECONDS if random.random() < LONG_WORKS else WORK_MAX_SECONDS

    async def handle(self, received: Received) -> None:
        if self.stopped:
            self.wrong.append("it took something new after it had stopped")
        await asyncio.sleep(random.random() * self._work_seconds)
        self._load.handled.add(received.body.decode())
        await received.ack()

    async def run(self) -> None:
        lane = topology.lane(NAME)
        async with Consumer(self._load.place.amqp_url, [lane], self.handle, name=self.name, prefetch=8) as stopping:
            await asyncio.sleep(random.random() * MOMENT_MAX_SECONDS)
            if random.random() < LOSSES:
                for transport in self.transports:
                    transport.abort()
            self.draining = True
            async with asyncio.timeout(STOP_TIMEOUT_SECONDS):
                await stopping.drain(GRACE_SECONDS)
            self.stopped = True


class _Recorded(connections._Gathered):
    """Opens sockets as always, and notes them for the stop that opens them."""

    async def create(self, url: Any, **how: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        stop = opening.get()
        if stop is not None and stop.draining:
            stop.wrong.append("it connected again while it was stopping")
        reader, writer = await super().create(url, **how)
        if stop is not None:
            stop.transports.append(cast(asyncio.Transport, writer.transport))
        return reader, writer


opening: ContextVar[Stop | None] = ContextVar("opening", default=None)


async def test_stops_at_a_thousand_moments_under_load(bare_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A watch of the consumer that ran while it was being drained once took it for lost, and consumed again."""
    # So often that many a stop falls into the middle of it.
    monkeypatch.setattr(consumer, "WATCH_INTERVAL_SECONDS", 0.002)
    monkeypatch.setattr(connections, "_Gathered", _Recorded)
    async with a_load(bare_place) as load:
        stops, room = [Stop(load, number) for number in range(STOPS)], asyncio.Semaphore(AT_ONCE)
        await asyncio.gather(*(_stop_once(stop, room) for stop in stops))

    assert [wrong for stop in stops for wrong in stop.wrong] == []
    # What was left open would be warned of here, and warnings are errors.
    gc.collect()
    await _take_the_rest(load)
    assert load.handled == load.sent


async def _stop_once(stop: Stop, room: asyncio.Semaphore) -> None:
    # Gathered as a task of its own, so in a context of its own.
    opening.set(stop)
    async with room:
        await stop.run()


async def _take_the_rest(load: Load) -> None:
    async def handle(received: Received) -> None:
        load.handled.add(received.body.decode())
        await received.ack()

    # Stopped so often, some have used up their deliveries, which a dead letter ends: not lost.
    queues = [topology.lane(NAME), topology.dead_queue(NAME)]
    async with Consumer(load.place.amqp_url, queues, handle, name="rest", prefetch=64) as rest:
        await until(lambda: _all(load), timeout_seconds=60)
        await rest.drain(5.0)


async def _all(load: Load) -> bool:
    return load.handled >= load.sent


async def test_a_stopping_service_is_not_ready_and_takes_nothing_new(bare_place: Place, tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack, httpx.AsyncClient() as http:
        probe = await stack.enter_async_context(a_probe(bare_place, tmp_path, shutdown_grace_seconds=20.0))
        ready = f"{probe.parts.monitoring_url}/health/ready"
        await until(lambda: _says(http, ready, 200))
        slow = await probe.send("slow")
        await until(lambda: _handles(probe))

        leaving = asyncio.create_task(stack.aclose())
        await until(lambda: _says(http, ready, 503))
        assert (await http.get(ready)).json()["checks"]["process"] == "stopping"
        async with Publisher(bare_place.amqp_url, name="tests") as publisher:
            probe.publisher = publisher
            late = await probe.send()
            await until(lambda: _waits(bare_place))
        probe.counted.gate.set()
        await leaving

        assert (await probe.done(slow), await probe.done(late)) == (1, 0)


async def _says(http: httpx.AsyncClient, url: str, status: int) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return (await http.get(url)).status_code == status
    return False


async def _handles(probe: Probe) -> bool:
    return probe.counted.handling == 1


async def _waits(place: Place) -> bool:
    return await waiting(place, topology.lane(NAME)) == 1
