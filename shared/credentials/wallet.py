"""The wallet: every credential of a service, opened, as of the last change that was seen; and what is sealed with old keys."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID

import msgspec

from shared import telemetry
from shared.contracts.credentials import Use, place_of
from shared.database import Connection, Pool, Record, connected
from shared.errors import Invalid, Outcome, Refusal, Unavailable
from shared.messages import Environment
from shared.schedule import Job
from shared.settings import BusSettings, about
from shared.vault import WRAPPED, BrokenSeal, KeySource, Sealed, UnknownKey, Unwrapper, Vault, Wrapper

logger = logging.getLogger(__name__)

REFRESH_EVERY_SECONDS = 1.0
RESEAL_ROWS_MAX = 50
RESEAL_EVERY_SECONDS = 2.0


class VaultSettings(BusSettings, frozen=True, kw_only=True):
    """Where a service's private keys come from; without any it serves nothing but the sandbox environment, and only when told so."""

    vault_keys_file: Annotated[
        str, about("The file of the keys that this service opens credentials with; it is read again when it changes.", form="file name")
    ] = ""
    vault_keys: Annotated[str, about("Those keys themselves, as JSON.", secret=True, form="JSON")] = ""
    vault_keys_command: Annotated[str, about("A command that prints those keys, such as a KMS's.", form="command")] = ""
    sandbox_only: Annotated[bool, about("Serve nothing but the sandbox environment; then no keys are needed.")] = False

    @property
    def key_source(self) -> KeySource:
        """Where the service's keys come from."""
        return KeySource(file=self.vault_keys_file, text=self.vault_keys, command=self.vault_keys_command)

    def problems(self) -> Iterator[str]:
        """Say whether there are keys to open credentials with."""
        yield from self.key_source.problems(KeySource.private, sandbox_only=self.sandbox_only)


class NoVault(Refusal):
    """This installation has no key material, so it can keep no secrets."""

    code = "vault-not-configured"
    title = "No key material is configured"
    status = 422
    outcome = Outcome.NOT_ATTEMPTED


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """A credential, opened; it never leaves memory."""

    store_id: UUID
    environment: Environment
    provider: str
    use: Use
    version: int
    fields: Mapping[str, str]
    fingerprint: str

    def __repr__(self) -> str:
        return f"<credential of {self.provider} for {self.use.value}, version {self.version}, {self.fingerprint}>"

    @property
    def account(self) -> str:
        """How the provider's account is called in our books: a store has one a provider and environment."""
        return f"{self.provider}:{self.environment.value}:{self.store_id}"


class CredentialUnfit(Invalid):
    """A credential is not what its provider's consists of."""

    code = "credential-unfit"
    title = "This is not a credential of this provider"


def any_fields(provider: str, fields: Mapping[str, str]) -> None:
    """Take any credential, for the provider alone can tell."""


class Wallet:
    """Every credential of a service, opened, as of the last change that was seen; `check` raises CredentialUnfit for one that is none."""

    def __init__(
        self, pool: Pool, source: KeySource, uses: Sequence[Use], check: Callable[[str, Mapping[str, str]], None] = any_fields
    ) -> None:
        self.uses = frozenset(uses)
        self.check = check
        self.pool = pool
        self._source = source
        self._keys_changed_at = -1.0
        self._vault: Vault | None = None
        self._unwrapper: Unwrapper | None = None
        # Wraps for ourselves, where there are keys.
        self.wrapper: Wrapper | None = None
        self._revision = 0
        self._closed: set[UUID] = set()
        self._known: dict[tuple[UUID, Environment, str, Use], list[Credential]] = {}
        self._by_provider: dict[tuple[str, Use], list[Credential]] = {}

    @property
    def vault(self) -> Vault:
        """The keys; refuses where there are none."""
        if self._vault is None:
            raise NoVault("This installation keeps no credentials: it has no key material.")
        return self._vault

    @property
    def unwrapper(self) -> Unwrapper:
        """Opens what was wrapped for us; refuses where there are no keys."""
        if self._unwrapper is None:
            raise NoVault("This installation opens nothing that was sealed: it has no key material.")
        return self._unwrapper

    def hidden(self, text: str, *, info: str) -> str:
        """Wrap something for ourselves, so that it does not lie about as it is; without keys it stays as it is."""
        return text if self.wrapper is None else self.wrapper.wrap(text.encode(), info=info)

    def unhidden(self, text: str, *, info: str) -> str:
        """Open what was wrapped for us; what never was is as it is. Raises Unavailable for a key that is not here yet."""
        if not text.startswith(f"{WRAPPED}:"):
            return text
        try:
            return self.unwrapper.unwrap(text, info=info).decode()
        except UnknownKey as early:
            raise Unavailable(str(early)) from early

    async def refresh(self) -> None:
        """Take in keys that have changed, and credentials that have."""
        if self._source.given and self._source.changed_at() != self._keys_changed_at:
            # Looked at before it is read: what changes in between is read again.
            self._keys_changed_at = self._source.changed_at()
            self._vault = Vault(self._source.private())
            self._unwrapper, self.wrapper = Unwrapper(self._vault), Wrapper(self._vault.sealer)
            self._revision = 0
        async with connected(self.pool) as db:
            revision = await revision_of(db)
            if revision == self._revision:
                return
            rows = await db.fetch("SELECT * FROM provider_credentials WHERE retired_at IS NULL ORDER BY version DESC")
        known: dict[tuple[UUID, Environment, str, Use], list[Credential]] = {}
        for row in rows:
            credential = self._opened(row)
            if credential is not None:
                key = (credential.store_id, credential.environment, credential.provider, credential.use)
                known.setdefault(key, []).append(credential)
        by_provider: dict[tuple[str, Use], list[Credential]] = {}
        for credentials in known.values():
            by_provider.setdefault((credentials[0].provider, credentials[0].use), []).extend(credentials)
        self._known, self._by_provider, self._revision = known, by_provider, revision

    def _opened(self, row: Record) -> Credential | None:
        facts = {"provider": row["provider"], "use": row["use"], "store_id": str(row["store_id"]), "version": row["version"]}
        if self._vault is None:
            telemetry.say(logger, logging.ERROR, "a credential cannot be opened", {**facts, "reason": "there are no keys"})
            return None
        place = place_of(row["store_id"], row["environment"], row["provider"], row["use"])
        try:
            plain = self._vault.open(Sealed(row["key_version"], row["sealed"]), info=place)
        except (UnknownKey, BrokenSeal) as closed:
            telemetry.say(logger, logging.ERROR, "a credential cannot be opened", {**facts, "reason": str(closed)})
            return None
        return Credential(
            store_id=row["store_id"],
            environment=Environment(row["environment"]),
            provider=row["provider"],
            use=Use(row["use"]),
            version=row["version"],
            fields=msgspec.json.decode(plain, type=dict[str, str]),
            fingerprint=row["fingerprint"],
        )

    def active(self, store_id: UUID, environment: Environment, provider: str, use: Use) -> list[Credential]:
        """List what is active, the newest first: two while one replaces the other."""
        return self._known.get((store_id, environment, provider, use), [])

    def of_provider(self, provider: str, use: Use) -> list[Credential]:
        """List what is active of a provider, whosever it is."""
        return self._by_provider.get((provider, use), [])

    def every(self) -> list[Credential]:
        """List everything that is active."""
        return [credential for credentials in self._known.values() for credential in credentials]

    async def now(self) -> datetime:
        """Read the database's clock."""
        async with connected(self.pool) as db:
            now: datetime = await db.fetchval("SELECT now()")
        return now

    async def reseal(self) -> None:
        """Seal whatever is sealed with older keys with the present one; what does not open is left, and said once."""
        if self._vault is None:
            return
        after = UUID(int=0)
        while rows := await self._old(self._vault.current, after):
            for row in rows:
                await self._reseal(self._vault, row)
            after = rows[-1]["id"]

    async def _old(self, current: int, after: UUID) -> list[Record]:
        async with connected(self.pool) as db:
            return await db.fetch(
                "SELECT * FROM provider_credentials WHERE key_version < $1 AND id > $2 ORDER BY id LIMIT $3",
                current,
                after,
                RESEAL_ROWS_MAX,
            )

    async def _reseal(self, vault: Vault, row: Record) -> None:
        place = place_of(row["store_id"], row["environment"], row["provider"], row["use"])
        try:
            sealed = vault.seal(vault.open(Sealed(row["key_version"], row["sealed"]), info=place), info=place)
        except (UnknownKey, BrokenSeal) as closed:
            if row["id"] not in self._closed:
                self._closed.add(row["id"])
                telemetry.say(logger, logging.ERROR, "a credential cannot be sealed anew", {"id": str(row["id"]), "reason": str(closed)})
            return
        async with connected(self.pool) as db:
            # Only what is still as it was read: another process may be at it too, and one result is as good as the other.
            await db.execute(
                "UPDATE provider_credentials SET sealed = $3, key_version = $4 WHERE id = $1 AND key_version = $2",
                row["id"],
                row["key_version"],
                sealed.blob,
                sealed.key_version,
            )


def jobs(wallet: Wallet) -> list[Job]:
    """Give the jobs that a wallet needs: to see what changed, and to seal anew what is sealed with old keys."""

    return [
        Job("credentials", wallet.refresh, every_seconds=REFRESH_EVERY_SECONDS),
        Job("sealing anew", wallet.reseal, every_seconds=RESEAL_EVERY_SECONDS),
    ]


async def revision_of(db: Connection) -> int:
    """Read the number that moves with every change."""
    return int(await db.fetchval("SELECT revision FROM credentials_revision"))
