"""What every service that uses credentials does when it is told of one; the same in all of them."""

import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Protocol
from uuid import UUID

import msgspec

from shared.contracts.credentials import (
    KINDS,
    CredentialsView,
    CredentialView,
    Kind,
    ListCredentials,
    PutCredential,
    RetireCredential,
    Use,
    VerifiedView,
    VerifyCredential,
    place_of,
)
from shared.credentials.wallet import Credential, CredentialUnfit, Wallet, revision_of
from shared.database import Connection, Record, Statement, connected
from shared.errors import NotFound, Outcome, Refusal, Unavailable
from shared.ids import new_id
from shared.messages import Envelope, Environment, done
from shared.vault import BrokenSeal, UnknownKey, of_text
from shared.work import Work

# The new one, and the one that it replaces.
ACTIVE_MAX = 2
FIELD_MAX_CHARACTERS = 4096
# What adapters say of a provider that does not know the key, or not for this.
REJECTED = re.compile(r"answered 40[13]\b")


class WrongEnvironment(Refusal):
    """A key of one world was given for the other."""

    code = "wrong-environment"
    title = "This key belongs to the other environment"
    status = 422
    outcome = Outcome.NOT_ATTEMPTED


class Context(Protocol):
    """What the handlers need of a service."""

    wallet: Wallet

    async def try_credential(self, credential: Credential) -> tuple[str, str]:
        """Make a call that changes nothing; gives accepted, rejected or unanswered, and why."""
        ...


async def put(work: Work, command: PutCredential, context: Context) -> None:
    """Keep a credential; the one before stays active beside it, and what came before that is retired."""
    kind = _kind(context.wallet, command.use, command.provider)
    fields = await _opened(work.envelope, command, context.wallet)
    _check(kind, fields, work.envelope.environment)
    context.wallet.check(command.provider, fields)

    async with connected(context.wallet.pool) as db:
        revision = await revision_of(db)
        known = await _rows(db, work.envelope, command.provider, command.use)
    version = 1 + max((row["version"] for row in known), default=0)
    place = place_of(work.envelope.store_id, work.envelope.environment.value, command.provider, command.use.value)
    plain = msgspec.json.encode(dict(sorted(fields.items())))
    sealed = context.wallet.vault.seal(plain, info=place)
    fingerprint = context.wallet.vault.fingerprint(plain, info=place)
    keep = [row["version"] for row in known if row["retired_at"] is None][: ACTIVE_MAX - 1]

    batch = work.batch()
    batch.add(
        _moved_on(revision),
        Statement(
            """
            INSERT INTO provider_credentials (id, store_id, environment, provider, use, version, sealed, key_version, fingerprint, actor)
            VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
            """,
            (
                new_id(),
                *_where(work.envelope, command.provider, command.use),
                version,
                sealed.blob,
                sealed.key_version,
                fingerprint,
                work.envelope.actor,
            ),
        ),
        _retired(work.envelope, command.provider, command.use, [row["version"] for row in known if row["version"] not in keep]),
    )
    batch.audit(
        "credential.put",
        f"{command.use.value}/{command.provider}",
        before=_brief(known),
        after={"version": version, "fingerprint": fingerprint, "fields": sorted(fields)},
    )
    view = CredentialView(
        provider=command.provider,
        use=command.use,
        version=version,
        fingerprint=fingerprint,
        key_version=sealed.key_version,
        active=True,
        created_at=await context.wallet.now(),
        retired_at=None,
        actor=work.envelope.actor,
    )
    batch.conclude(done(view))
    await batch.commit()
    await context.wallet.refresh()


def _kind(wallet: Wallet, use: Use, provider: str) -> Kind:
    kind = KINDS.get((use, provider)) if use in wallet.uses else None
    if kind is None:
        raise CredentialUnfit(f"{provider} has no credentials for {use.value} here.", {"field": "use"})
    return kind


async def _opened(envelope: Envelope, command: PutCredential, wallet: Wallet) -> dict[str, str]:
    sealed = of_text(command.sealed)
    if sealed is None:
        raise CredentialUnfit("The credential is not sealed.")
    place = place_of(envelope.store_id, envelope.environment.value, command.provider, command.use.value)
    try:
        try:
            plain = wallet.vault.open(sealed, info=place)
        except UnknownKey:
            await wallet.refresh()
            plain = wallet.vault.open(sealed, info=place)
        return msgspec.json.decode(plain, type=dict[str, str])
    except UnknownKey as early:
        # The keys are being rotated, and the new one has not come to this process yet.
        raise Unavailable(str(early)) from early
    except (BrokenSeal, msgspec.DecodeError) as broken:
        raise CredentialUnfit("The credential was sealed for another place.") from broken


def _check(kind: Kind, fields: Mapping[str, str], environment: Environment) -> None:
    missing = [name for name in kind.needed if not fields.get(name)]
    if missing:
        raise CredentialUnfit(f"{', '.join(missing)} is missing.", {"field": f"fields.{missing[0]}", "needed": list(kind.needed)})
    unknown = sorted(fields.keys() - {*kind.needed, *kind.optional})
    if unknown:
        raise CredentialUnfit(
            f"{', '.join(unknown)} is not known.", {"field": f"fields.{unknown[0]}", "known": [*kind.needed, *kind.optional]}
        )
    if any(len(value) > FIELD_MAX_CHARACTERS for value in fields.values()):
        raise CredentialUnfit(f"A field is longer than {FIELD_MAX_CHARACTERS} characters.")
    key, production = fields[kind.needed[0]], environment is Environment.PRODUCTION
    live = key.startswith(kind.production) if kind.production else None
    if production and (kind.sandbox_only or live is False):
        raise WrongEnvironment("A key for trying things out cannot serve production.", {"environment": environment.value})
    if not production and live:
        raise WrongEnvironment("A production key cannot serve the sandbox environment.", {"environment": environment.value})


async def retire(work: Work, command: RetireCredential, context: Context) -> None:
    """Use a credential no more."""
    async with connected(context.wallet.pool) as db:
        revision = await revision_of(db)
        known = await _rows(db, work.envelope, command.provider, command.use)
    going = [row["version"] for row in known if row["retired_at"] is None and command.version in (None, row["version"])]
    if not going:
        raise NotFound(f"{command.provider} has no such active credential for {command.use.value}.")
    batch = work.batch()
    batch.add(
        _moved_on(revision),
        _retired(work.envelope, command.provider, command.use, going),
    )
    batch.audit(
        "credential.retire",
        f"{command.use.value}/{command.provider}",
        before=_brief(known),
        after=_brief([row for row in known if row["version"] not in going]),
    )
    views = [_view(row) for row in known]
    now = await context.wallet.now()
    gone = [msgspec.structs.replace(v, active=False, retired_at=now) if v.version in going else v for v in views]
    batch.conclude(done(CredentialsView(credentials=gone)))
    await batch.commit()
    await context.wallet.refresh()


async def verify(work: Work, command: VerifyCredential, context: Context) -> None:
    """Try the newest credential by a call that changes nothing, and say what came of it."""
    await context.wallet.refresh()
    active = context.wallet.active(work.envelope.store_id, work.envelope.environment, command.provider, command.use)
    if not active:
        raise NotFound(f"{command.provider} has no active credential for {command.use.value}.")
    newest = active[0]
    result, detail = await context.try_credential(newest)
    view = VerifiedView(
        provider=command.provider, use=command.use, version=newest.version, fingerprint=newest.fingerprint, result=result, detail=detail
    )
    batch = work.batch()
    batch.audit("credential.verify", f"{command.use.value}/{command.provider}", after=view)
    batch.conclude(done(view))
    await batch.commit()


async def listed(envelope: Envelope, query: ListCredentials, context: Context) -> CredentialsView:
    """Say which credentials of a provider there are."""
    async with connected(context.wallet.pool) as db:
        rows = [row for use in sorted(context.wallet.uses) for row in await _rows(db, envelope, query.provider, use)]
    return CredentialsView(credentials=[_view(row) for row in rows])


async def tried(call: Awaitable[object], *, silent: tuple[type[Exception], ...]) -> tuple[str, str]:
    """Await a call that tries a credential; says accepted, rejected or unanswered, and why."""
    try:
        await call
    except silent as trouble:
        return ("rejected" if REJECTED.search(str(trouble)) else "unanswered"), f"{type(trouble).__name__}: {trouble}"
    return "accepted", ""


def _where(envelope: Envelope, provider: str, use: Use) -> tuple[UUID, str, str, str]:
    return envelope.store_id, envelope.environment.value, provider, use.value


async def _rows(db: Connection, envelope: Envelope, provider: str, use: Use) -> list[Record]:
    return await db.fetch(
        """
        SELECT id, provider, use, version, key_version, fingerprint, actor, created_at, retired_at
          FROM provider_credentials
         WHERE store_id = $1 AND environment = $2 AND provider = $3 AND use = $4
         ORDER BY version DESC
        """,
        *_where(envelope, provider, use),
    )


def _moved_on(revision: int) -> Statement:
    sql = "UPDATE credentials_revision SET revision = revision + 1 WHERE revision = $1 RETURNING revision"
    return Statement(sql, (revision,), must=True)


def _retired(envelope: Envelope, provider: str, use: Use, versions: Sequence[int]) -> Statement:
    return Statement(
        """
        UPDATE provider_credentials
           SET retired_at = now()
         WHERE store_id = $1 AND environment = $2 AND provider = $3 AND use = $4 AND version = ANY($5::integer[]) AND retired_at IS NULL
        """,
        (*_where(envelope, provider, use), list(versions)),
    )


def _brief(rows: Sequence[Record]) -> list[dict[str, object]]:
    return [{"version": row["version"], "fingerprint": row["fingerprint"]} for row in rows if row["retired_at"] is None]


def _view(row: Record) -> CredentialView:
    return CredentialView(
        provider=row["provider"],
        use=Use(row["use"]),
        version=row["version"],
        fingerprint=row["fingerprint"],
        key_version=row["key_version"],
        active=row["retired_at"] is None,
        created_at=row["created_at"],
        retired_at=row["retired_at"],
        actor=row["actor"],
    )
