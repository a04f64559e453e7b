"""Leases last as long as the work that they are for, and no longer."""

import asyncio
import logging

import pytest

from shared.errors import Unavailable
from shared.leases import lease_kept
from tests.world import until

LEASE_SECONDS = 0.02
ENDED_WITHIN_SECONDS = 10.0


async def test_a_lease_is_renewed_while_the_work_takes_its_time(caplog: pytest.LogCaptureFixture) -> None:
    """Of leases that are never renewed; a silent database or a bug in between does not end the renewals."""
    renewals = 0

    async def renew() -> None:
        nonlocal renewals
        renewals += 1
        if renewals == 1:
            raise Unavailable("the database is silent")
        if renewals == 2:
            raise ZeroDivisionError("a bug")

    async def several() -> bool:
        return renewals > 3

    with caplog.at_level(logging.ERROR):
        async with lease_kept(renew, lease_seconds=LEASE_SECONDS):
            await until(several)

    assert [record.getMessage() for record in caplog.records] == ["a lease is not renewed"]


async def test_a_renewal_under_way_ends_with_the_work() -> None:
    renewing, ended = asyncio.Event(), asyncio.Event()

    async def renew() -> None:
        renewing.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with lease_kept(renew, lease_seconds=LEASE_SECONDS):
        await renewing.wait()

    await asyncio.wait_for(ended.wait(), ENDED_WITHIN_SECONDS)


async def test_work_that_ends_early_renews_nothing() -> None:
    renewing, later = asyncio.Event(), asyncio.Event()

    async def renew() -> None:
        renewing.set()

    async with lease_kept(renew, lease_seconds=LEASE_SECONDS):
        pass

    # A timer of the same loop, due after the one of a renewal would be.
    asyncio.get_running_loop().call_later(LEASE_SECONDS, later.set)
    await later.wait()
    assert not renewing.is_set()
