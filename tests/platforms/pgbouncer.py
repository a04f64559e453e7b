"""PgBouncer in transaction mode between the services and Postgres: python -m tests.platforms.pgbouncer."""

import os
import re
import shutil
import subprocess
from pathlib import Path

from deploy import setup
from deploy.processes import Failed, private_folder, start, wait_until
from deploy.state import Instance, free_port, listening
from shared.migrations import role_of
from tests.platforms.installed import ADDRESS, DATABASE, Postgres, a_shop, main, pay, say
from tests.world import PASSWORD

START_TIMEOUT_SECONDS = 30.0
POOL_SIZE = 6


async def script(folder: Path) -> None:
    """Pay through PgBouncer with a pool that is smaller than the services' own."""
    program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
    if program is None:
        raise Failed("PgBouncer is not installed; on Debian: apt-get install pgbouncer")
    server, port = Postgres(folder, "postgres"), free_port()
    server.initialise()
    configuration = _configured(folder, server, port)
    pooler = None
    try:
        server.start()
        log = folder / "pgbouncer.log"
        pooler = start("pgbouncer", [program, str(configuration)], log=log, env={"PATH": os.environ["PATH"]}, never_root=True)
        wait_until(lambda: listening(port), process=pooler, timeout_seconds=START_TIMEOUT_SECONDS, what="PgBouncer")
        owner = server.url()
        through = owner.replace(f":{server.port}/", f":{port}/")
        async with a_shop(folder, owner_url=owner, services_url=through) as world:
            for _ in range(POOL_SIZE):
                await pay(world)
            rows = await world.rows("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'tender_%'")
        say(f"PgBouncer {_version(program)}, transaction mode", f"{POOL_SIZE} payments captured with default settings")
        say("connections to Postgres for five services", str(rows[0]["count"]))
    finally:
        if pooler is not None:
            pooler.stop()
        server.stop()


def _version(program: str) -> str:
    shown = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    return str(re.findall(r"PgBouncer ([\d.]+)", shown)[0])


def _configured(folder: Path, server: Postgres, port: int) -> Path:
    where = private_folder(Instance(folder, "pgbouncer"))
    users, file = where / "users.txt", where / "pgbouncer.ini"
    names = ["tender", *(role_of(service.name) for service in setup.SERVICES)]
    users.write_text("".join(f'"{name}" "{PASSWORD}"\n' for name in names))
    file.write_text(
        f"[databases]\n{DATABASE} = host={ADDRESS} port={server.port}\n"
        f"[pgbouncer]\nlisten_addr = {ADDRESS}\nlisten_port = {port}\nunix_socket_dir =\npool_mode = transaction\n"
        f"default_pool_size = {POOL_SIZE}\nauth_type = scram-sha-256\nauth_file = {users}\n"
    )
    return file


if __name__ == "__main__":
    main(script)
