"""The keys with which providers' credentials are sealed: made once, and rotated while everything runs."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from shared.contracts.credentials import OWNERS
from shared.errors import Clear
from shared.owner import connect_as_owner, insert_owner_action
from shared.vault import KeySource, PrivateKeys, PublicKeys, new_private_key, public_of, write

PUBLIC = "public.json"
# The tables besides its credentials in which a service keeps what is sealed.
ALSO_SEALED = {"webhooks": ("webhook_endpoints",)}
SERVICES = tuple(sorted(set(OWNERS.values())))
POLL_SECONDS = 0.5
STALLED_AFTER_SECONDS = 120.0


class RotationStalled(Clear):
    """Nothing was sealed anew for a while: a service is not running, or cannot read its keys."""


def private_file(folder: Path, service: str) -> Path:
    """Where a service's own keys lie."""
    return folder / f"{service}.json"


def make(folder: Path) -> bool:
    """Make a key pair for every service that keeps credentials, unless there are some; tells whether any was made."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = False
    for service in SERVICES:
        if not private_file(folder, service).exists():
            write(private_file(folder, service), PrivateKeys(current=1, keys={"1": new_private_key()}))
            made = True
    if made or not (folder / PUBLIC).exists():
        _publish(folder)
    return made


def _publish(folder: Path) -> None:
    write(folder / PUBLIC, {service: public_of(_private(folder, service)) for service in SERVICES})


def _private(folder: Path, service: str) -> PrivateKeys:
    return KeySource(file=str(private_file(folder, service))).private()


def renew(folder: Path, service: str) -> PrivateKeys:
    """Give a service another key for what is sealed from now on; what was sealed before still opens by the one before."""
    keys = _private(folder, service)
    version = keys.current + 1
    before = {name: key for name, key in keys.keys.items() if int(name) >= keys.current}
    renewed = PrivateKeys(current=version, keys={**before, str(version): new_private_key()})
    # The private half first: a seal by a key that nobody can open yet would wait.
    write(private_file(folder, service), renewed)
    _publish(folder)
    return renewed


def public_keys(folder: Path) -> dict[str, PublicKeys]:
    """Read what the gateway seals with."""
    return dict(KeySource(file=str(folder / PUBLIC)).public())


async def by_key_version(database_url: str, service: str) -> dict[int, int]:
    """Count what a service keeps sealed by the version of the key that it is sealed with."""
    connection = await connect_as_owner(database_url)
    sealed = " UNION ALL ".join(
        f"SELECT key_version FROM {service}.{table}" for table in ("provider_credentials", *ALSO_SEALED.get(service, ()))
    )
    try:
        rows = await connection.fetch(f"SELECT key_version, count(*) AS count FROM ({sealed}) AS sealed GROUP BY key_version")
    finally:
        await connection.close()
    return {row["key_version"]: row["count"] for row in rows}


async def rotate(folder: Path, database_url: str, *, say: Callable[[str], None]) -> None:
    """Have every service seal with another key, and wait until nothing is sealed with an older one; what was broken off goes on."""
    for service in SERVICES:
        keys = _private(folder, service)
        left = _older(await by_key_version(database_url, service), keys.current)
        if left:
            say(f"{service}: going on with the rotation to version {keys.current}, {left} left")
        else:
            await insert_owner_action(database_url, service, "vault_key.rotate", f"version={keys.current + 1}")
            keys = renew(folder, service)
            say(f"{service}: version {keys.current} of the key is in use")
        await _sealed_anew(database_url, service, keys.current, say)


async def _sealed_anew(database_url: str, service: str, current: int, say: Callable[[str], None]) -> None:
    loop = asyncio.get_running_loop()
    before, moved_at = -1, loop.time()
    while left := _older(await by_key_version(database_url, service), current):
        if left != before:
            say(f"{service}: {left} still sealed with older keys")
            before, moved_at = left, loop.time()
        elif loop.time() - moved_at > STALLED_AFTER_SECONDS:
            raise RotationStalled(f"{service}: {left} are still sealed with older keys; is the service running? The same command goes on.")
        await asyncio.sleep(POLL_SECONDS)
    say(f"{service}: everything is sealed with version {current}")


def _older(counts: dict[int, int], current: int) -> int:
    return sum(count for version, count in counts.items() if version < current)
