"""Failover of Postgres: the primary dies, its synchronous standby takes over. python -m tests.platforms.failover."""

import asyncio
import signal
import time
from pathlib import Path

import asyncpg

from deploy.processes import Failed
from tests.platforms.installed import ADDRESS, Postgres, a_shop, main, pay, say
from tests.world import World, until

PAYMENTS = 10
WRITABLE = "target_session_attrs=read-write"


async def script(folder: Path) -> None:
    """Pay before and after a failover; nothing that was acknowledged may be missing."""
    primary, standby = Postgres(folder, "primary"), Postgres(folder, "standby")
    primary.initialise()
    # The standby comes first, so that it has to be passed over as long as it is one; where the database is made, it would not be there yet.
    url = primary.url(WRITABLE, host=f"{ADDRESS}:{standby.port},{ADDRESS}")
    owner_url = standby.url(WRITABLE, host=f"{ADDRESS}:{primary.port},{ADDRESS}")
    try:
        primary.start()
        standby.copy(primary)
        standby.start()
        await _synchronous(primary)
        async with a_shop(folder, owner_url=owner_url, services_url=url) as world:
            for _ in range(PAYMENTS):
                await pay(world)
            assert primary.process is not None, "it was started above"
            primary.process.send_group(signal.SIGKILL)
            await until(lambda: _ready(world, 503))
            standby.promote()
            began = time.monotonic()
            await until(lambda: _ready(world, 200))
            say("ready after the promotion", f"{time.monotonic() - began:.1f} s, without a restart")
            await pay(world)
            [row] = await world.rows("SELECT count(*) FROM payments.payment_intents WHERE status = 'captured'")
            if row["count"] != PAYMENTS + 1:
                raise Failed(f"{PAYMENTS + 1} payments were acknowledged, {row['count']} are there")
            say("payments acknowledged and there", f"{row['count']} of {PAYMENTS + 1}")
    finally:
        primary.stop()
        standby.stop()


async def _synchronous(primary: Postgres) -> None:
    connection = await asyncpg.connect(primary.url(database="postgres"))
    await connection.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    await connection.execute("SELECT pg_reload_conf()")
    while await connection.fetchval("SELECT sync_state FROM pg_stat_replication") != "sync":
        await asyncio.sleep(0.1)
    await connection.close()


async def _ready(world: World, status: int) -> bool:
    return (await world.http.get(f"{world.monitoring['gateway']}/health/ready")).status_code == status


if __name__ == "__main__":
    main(script)
