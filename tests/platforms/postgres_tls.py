"""TLS to Postgres with client certificates: python -m tests.platforms.postgres_tls."""

import ssl
from pathlib import Path
from urllib.parse import urlencode

import asyncpg

from deploy.processes import Failed
from tests.certificates import Authority, Pair
from tests.platforms.installed import ADDRESS, Postgres, a_shop, main, pay, say

# Besides the password, a certificate of our authority.
ACCESS = f"hostssl all all {ADDRESS}/32 scram-sha-256 clientcert=verify-ca"


async def script(folder: Path) -> None:
    """Pay over TLS, and have everything refused that is not proved."""
    authority, unknown = Authority(folder, "authority"), Authority(folder, "unknown")
    certificate, client = authority.issue("server", ADDRESS), authority.issue("client")
    tls = {"ssl": "on", "ssl_ca_file": authority.file, "ssl_cert_file": certificate.certificate, "ssl_key_file": certificate.key}
    settings = {name: str(value) for name, value in tls.items()}
    server = Postgres(folder, "tls", settings=settings, access=ACCESS)
    server.initialise()
    url = server.url(_query(authority, client))
    try:
        server.start()
        async with a_shop(folder, owner_url=url, services_url=url) as world:
            await pay(world)
            rows = await world.rows(
                "SELECT ssl, client_dn FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename LIKE 'tender_%'"
            )
            if not rows or not all(row["ssl"] and row["client_dn"] == "/CN=client" for row in rows):
                raise Failed(f"some connections are in the clear: {rows}")
            say("verify-full with a client certificate", f"a payment is captured over {len(rows)} connections, all TLS")
        await _refused("an unknown authority", server.url(_query(unknown, client)))
        await _refused("another host name", server.url(_query(authority, client), host="localhost"))
        await _refused("no client certificate", server.url(_query(authority, None)))
        await _refused("a client of another authority", server.url(_query(authority, unknown.issue("stranger"))))
        await _refused("no TLS", server.url("sslmode=disable"))
    finally:
        server.stop()


def _query(authority: Authority, client: Pair | None) -> str:
    own = {"sslcert": client.certificate, "sslkey": client.key} if client else {}
    return urlencode({"sslmode": "verify-full", "sslrootcert": authority.file, **own})


async def _refused(what: str, url: str) -> None:
    try:
        connection = await asyncpg.connect(url)
    except (asyncpg.PostgresError, ssl.SSLError, OSError) as refused:
        say(what, f"refused: {type(refused).__name__}: {refused}")
    else:
        await connection.close()
        raise Failed(f"{what} was let in")


if __name__ == "__main__":
    main(script)
