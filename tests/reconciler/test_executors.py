"""Two reconcilers at one run or one redrive: the one that lost the lease, or was stopped, changes nothing."""

from collections.abc import AsyncIterator
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from shared.ids import new_id
from tests.locks import changed_meanwhile, table_held
from tests.reconciler.books import a_run, completed
from tests.reconciler.letters import an_envelope, park, show, the_letter
from tests.world import Place, World, a_world, until

RUN = "SELECT * FROM reconciler.reconciliation_runs WHERE id = $1"
REDRIVE = "SELECT * FROM reconciler.redrives WHERE id = $1"
TAKEN_OVER = "UPDATE reconciler.{} SET lease_token = lease_token + 1, lease_expires_at = now() + interval '1 hour' WHERE id = $1"
LEASE_ENDS = "UPDATE reconciler.{} SET lease_expires_at = now(), next_try_at = now() WHERE id = $1"
STOPPED = "UPDATE reconciler.redrives SET status = 'stopped', finished_at = now() WHERE id = $1"
RUN_BEGUN_AGAIN = """
    UPDATE reconciler.reconciliation_runs
       SET status = 'queued', finished_at = NULL, position = since, phase = 'theirs', cursor = NULL, pages = 0, compared = 0,
           next_try_at = now() + interval '1 hour'
     WHERE id = $1
"""
REDRIVE_BEGUN_AGAIN = """
    UPDATE reconciler.redrives
       SET ids = $2, status = 'running', finished_at = NULL, position = '00000000-0000-0000-0000-000000000000', until = now(),
           next_try_at = now() + interval '1 hour'
     WHERE id = $1
"""


@pytest.fixture(scope="module")
async def world(place: Place) -> AsyncIterator[World]:
    async with a_world(place, reconciler={}) as made:
        yield made


async def the_row(world: World, sql: str, row_id: UUID) -> Any:
    [row] = await world.rows(sql, row_id)
    return row


async def test_run_is_renewed_and_written_by_its_owner_alone(world: World) -> None:
    """For a page that is written by the process that lost the run, which counts it twice, and for leases that are never renewed."""
    await world.a_captured_payment()
    run_id = UUID((await a_run(world))["id"])
    await world.change(RUN_BEGUN_AGAIN, run_id)
    before = await the_row(world, RUN, run_id)
    async with table_held(world, "payments.payment_intents") as let_go:
        await world.change(LEASE_ENDS.format("reconciliation_runs"), run_id)
        taken = await until(partial(_taken, world, RUN, before))
        await until(partial(_renewed, world, run_id, taken["lease_expires_at"]))
        async with changed_meanwhile(world, (TAKEN_OVER.format("reconciliation_runs"), [run_id])):
            await let_go()

    lost = await the_row(world, RUN, run_id)
    await world.change(LEASE_ENDS.format("reconciliation_runs"), run_id)

    assert (lost["lease_token"], lost["pages"], lost["compared"], lost["status"]) == (before["lease_token"] + 2, 0, 0, "running")
    assert (await until(lambda: completed(world, str(run_id))))["compared"] == 1


async def _taken(world: World, sql: str, before: Any) -> Any:
    row = await the_row(world, sql, before["id"])
    return row if row["lease_token"] == before["lease_token"] + 1 else None


async def _renewed(world: World, run_id: UUID, before: datetime) -> bool:
    return bool((await the_row(world, RUN, run_id))["lease_expires_at"] > before)


@pytest.mark.parametrize("change", [TAKEN_OVER.format("redrives"), STOPPED], ids=["taken over", "stopped"])
async def test_redrive_of_another_or_of_none_sends_nothing(world: World, change: str) -> None:
    """For a redrive that goes on although another process has it, or although an operator stopped it."""
    envelope = an_envelope(world)
    await park(world, "payments", "payments.capture.v1", {"amount": 1}, envelope)
    letter = await the_letter(world, envelope.id)
    body = {"action": "retry", "ids": [str(new_id())], "reason": "a test"}
    redrive_id = UUID((await world.send("POST", "/api/v1/admin/dead-letters/redrives", body)).json["id"])
    await until(partial(_is, world, redrive_id, "completed"))
    await world.change(REDRIVE_BEGUN_AGAIN, redrive_id, [UUID(letter["id"])])
    before = await the_row(world, REDRIVE, redrive_id)

    async with table_held(world, "reconciler.dead_letters") as let_go:
        await world.change(LEASE_ENDS.format("redrives"), redrive_id)
        await until(partial(_taken, world, REDRIVE, before))
        async with changed_meanwhile(world, (change, [redrive_id])):
            await let_go()

    row = await the_row(world, REDRIVE, redrive_id)
    seen = (await show(world, letter["id"]))["letter"]
    assert (row["done"], seen["status"], seen["retries"]) == (0, "waiting", 0)


async def _is(world: World, redrive_id: UUID, status: str) -> bool:
    return bool((await the_row(world, REDRIVE, redrive_id))["status"] == status)
