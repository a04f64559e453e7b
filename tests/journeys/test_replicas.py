"""Two of everything: what is shown of a service is the sum over its replicas, each named, and a revoked key opens none of them."""

import asyncio
import contextlib
import math
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import pytest
from click.testing import CliRunner

from deploy.cli import cli
from services.gateway.app import build as build_gateway
from services.gateway.domain import Role
from services.gateway.handlers.gateway import KEY_CACHE_SECONDS
from services.payments.app import build as build_payments
from shared.ids import new_id
from shared.replicas import LIVE_SECONDS, PURGE_AFTER_SECONDS, purge_replicas, total
from shared.vitals import HANDLED_MAX, Pulse
from tests.faults.nursery import Nursery
from tests.faults.system import a_system
from tests.world import Answer, Place, World, a_key, a_world, gateway_settings, payments_settings, until

SAMPLES = {"sample_every_seconds": 0.2, "part_timeout_seconds": 1.0}
# The most that may lie between a key's revocation at one gateway and the last request that another lets in.
REVOKED_KEY_OPENS_FOR_SECONDS = 1.0


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, gateway=SAMPLES) as made:
        yield made


@contextlib.asynccontextmanager
async def another_gateway(world: World) -> AsyncIterator[World]:
    """A second gateway over the same database and broker, and the world called through it."""
    async with build_gateway(gateway_settings(world.place, SAMPLES)).running() as parts:
        through = World(
            world.place,
            gateway_url=parts.url,
            monitoring={**world.monitoring, "gateway": parts.monitoring_url},
            sandbox=world.sandbox,
            keys=world.keys,
            store_id=world.store_id,
        )
        yield through
        await through.http.aclose()


async def service(world: World, name: str) -> Any:
    answer = await world.send("GET", "/api/v1/admin/overview", role=Role.OPERATOR)
    assert answer.status == 200, answer
    return next(each for each in answer.json["services"] if each["service"] == name)


async def replicas(world: World, name: str) -> dict[str, Any]:
    vitals = (await service(world, name))["vitals"]
    return {} if vitals is None else {each["name"]: each for each in vitals["replicas"]}


async def with_replicas(world: World, name: str, count: int) -> Any:
    """Wait until the overview names so many replicas of a service, each of which has handled something, and give the service."""

    async def shown() -> Any:
        found = await service(world, name)
        ours = found["vitals"]["replicas"] if found["vitals"] else []
        return found if len(ours) == count and all(each["handled_per_second"] > 0 for each in ours) else None

    return await until(shown)


class TestTheOverview:
    async def test_of_two_replicas_is_their_sum_and_names_both(self, world: World) -> None:
        settings = payments_settings(world.place, world.sandbox.base_url)
        alone = await replicas(world, "payments")
        async with build_payments(settings).running():
            # The lane gives each of two consumers its turn.
            await asyncio.gather(*(world.an_order() for _ in range(8)))

            shown = await with_replicas(world, "payments", 2)

            vitals, both = shown["vitals"], shown["vitals"]["replicas"]
            assert (shown["consumers"], len({each["name"] for each in both})) == (2, 2)
            assert set(alone) < {each["name"] for each in both}
            assert [each["started_at"] for each in both] == sorted(each["started_at"] for each in both)
            for figure in ("in_flight", "handled_per_second", "failed_per_second"):
                assert math.isclose(vitals[figure], sum(each[figure] for each in both)), figure
            assert vitals["p95_seconds"] == max(each["p95_seconds"] for each in both)
        # One that stops takes itself off the list.
        rows = await world.rows("SELECT name FROM payments.service_replicas")
        assert [row["name"] for row in rows] == list(alone)

    async def test_is_the_same_at_two_gateways_and_has_both(self, world: World) -> None:
        async with another_gateway(world) as other:
            assert await until(lambda: _named(other, "gateway", 2))
            here, there = await with_replicas(world, "gateway", 2), await with_replicas(other, "gateway", 2)

            names = [{each["name"] for each in shown["vitals"]["replicas"]} for shown in (here, there)]
            assert (len(names[0]), names[0]) == (2, names[1])
            env = {"TENDER_URL": other.gateway_url, "TENDER_KEY": other.keys[Role.OPERATOR]}
            shown = await asyncio.to_thread(CliRunner().invoke, cli, ["overview"], env=env)
            assert [name for name in names[0] if name not in shown.output] == []
        rows = await world.rows("SELECT name FROM gateway.service_replicas")
        assert [row["name"] for row in rows] == list(await replicas(world, "gateway"))

    async def test_keeps_one_sample_a_round_of_both(self, world: World) -> None:
        async with another_gateway(world) as other:
            await with_replicas(other, "gateway", 2)
            started = (await world.rows("SELECT max(taken_at) AS at FROM gateway.samples"))[0]["at"]

            async def sampled() -> Any:
                rows = await world.rows("SELECT taken_at FROM gateway.samples WHERE service = 'gateway' AND taken_at > $1", started)
                return [row["taken_at"] for row in rows] if len(rows) >= 5 else None

            moments = await until(sampled)

        assert len(set(moments)) == len(moments)
        steps = {(moment.timestamp() / SAMPLES["sample_every_seconds"]) % 1 for moment in moments}
        assert {min(step, 1 - step) < 0.01 for step in steps} == {True}

    async def test_forgets_one_that_was_killed(self, own_place: Place, nursery: Nursery, tmp_path: Path) -> None:
        async with a_system(nursery, own_place, tmp_path) as (system, world):
            await system.start("payments 2")
            both = await until(lambda: _named(world, "payments", 2))
            await system.kill("payments 2")

            left = await until(lambda: _named(world, "payments", 1))

            assert set(left) < set(both)
            killed = (set(both) - set(left)).pop()
            # Its row is what it left, and is older than a live replica's may be.
            [row] = await world.rows(
                "SELECT extract(epoch FROM now() - seen_at)::float8 AS age FROM payments.service_replicas WHERE name = $1", killed
            )
            assert row["age"] > LIVE_SECONDS
            await world.change(
                "UPDATE payments.service_replicas SET seen_at = now() - make_interval(secs => $1) WHERE name = $2",
                PURGE_AFTER_SECONDS + 1,
                killed,
            )

            async with build_payments(payments_settings(own_place, world.sandbox.base_url)).running() as parts:
                await purge_replicas(parts.desk.pool)

            names = {row["name"] for row in await world.rows("SELECT name FROM payments.service_replicas")}
            assert names == set(left)


async def _named(world: World, name: str, count: int) -> dict[str, Any] | None:
    found = await replicas(world, name)
    return found if len(found) == count else None


class TestTheFigures:
    def test_of_a_process_are_right_however_much_it_handles(self) -> None:
        pulse, chance = Pulse("payments"), random.Random(0)
        for number in range(HANDLED_MAX + 5_000):
            pulse.handled(chance.random(), "failed" if number % 10 == 0 else "done")

        vitals = pulse.vitals()

        assert math.isclose(vitals.failed_per_second / vitals.handled_per_second, 0.1, rel_tol=0.01)
        # Of times that are as often short as long, up to a second.
        assert math.isclose(vitals.p95_seconds, 0.95, abs_tol=0.03)


class TestTheSum:
    def test_counts_what_every_replica_counts_as_a_whole_once(self) -> None:
        # One has just started, and has counted nothing yet.
        new = msgspec.structs.replace(Pulse("reconciler").vitals(), unknown_outcomes=0, drift_open=0, dead_letters={})
        old = msgspec.structs.replace(new, unknown_outcomes=2, drift_open=3, dead_letters={"payments": 4})

        summed = total([new, old, old])

        assert (summed.unknown_outcomes, summed.drift_open, summed.dead_letters) == (2, 3, {"payments": 4})
        assert len(summed.replicas) == 3


class TestARevokedKey:
    async def test_opens_no_other_gateway_for_more_than_a_second(self, world: World) -> None:
        loop = asyncio.get_running_loop()
        key = await a_key(world.place, world.store_id, Role.CHECKOUT)
        async with another_gateway(world) as other:
            assert (await self._try(other, key)).status == 404
            revoked = await world.send("POST", f"/api/v1/admin/api-keys/{UUID(key.split('_')[2])}/revoke")
            last_let_in_at = revoked_at = loop.time()
            assert revoked.status == 200

            async def refused() -> bool:
                nonlocal last_let_in_at
                sent_at = loop.time()
                status = (await self._try(other, key)).status
                last_let_in_at = sent_at if status == 404 else last_let_in_at
                return status == 401

            await until(refused)

        # By when they were sent: what was read before the revocation is not used after this, however slow this machine is.
        assert last_let_in_at - revoked_at <= REVOKED_KEY_OPENS_FOR_SECONDS
        assert KEY_CACHE_SECONDS <= REVOKED_KEY_OPENS_FOR_SECONDS

    async def _try(self, world: World, key: str) -> Answer:
        return await world.send("GET", f"/api/v1/operations/{new_id()}", token=key)
