"""How much statements read, by what Postgres counts of each index and table.

Rows alone do not show an index that is walked from one end to the other: what its own columns rule out is not counted, its pages are.
"""

import asyncio

from tests.world import World, until

# How long statistics must stay as they are to be complete; a backend tells its own about once a second.
STILL_SECONDS = 2.5


async def counted(world: World) -> dict[str, int]:
    """Count what was read of every index, rows and pages, and of every table as a whole."""
    rows = await world.rows(
        """
        SELECT schemaname || '.' || indexrelname AS name, idx_tup_read AS read FROM pg_stat_user_indexes
         UNION ALL
        SELECT schemaname || '.' || indexrelname || ' (pages)', idx_blks_read + idx_blks_hit FROM pg_statio_user_indexes
         UNION ALL
        SELECT schemaname || '.' || relname || ' (read whole)', seq_tup_read FROM pg_stat_user_tables
        """
    )
    return {row["name"]: row["read"] or 0 for row in rows}


async def still(world: World, *, within: int) -> dict[str, int]:
    """Wait until the counts stand still, but for what jobs read, and give them."""
    loop = asyncio.get_running_loop()
    before, since = await counted(world), loop.time()

    async def unchanged() -> bool:
        nonlocal before, since
        now = await counted(world)
        if any(now[name] - before.get(name, 0) > within for name in now):
            before, since = now, loop.time()
        return loop.time() - since > STILL_SECONDS

    await until(unchanged)
    return await counted(world)
