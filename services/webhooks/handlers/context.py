"""What the handlers of webhooks work with."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

import msgspec

from services.webhooks.domain import DELIVERIES_OUT_MAX, DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX, Account, accounts_of
from services.webhooks.handlers.errands import Errands
from services.webhooks.handlers.posting import Messenger
from services.webhooks.handlers.signing_secrets import SigningSecrets
from services.webhooks.providers import Scheme, SecretUnfit
from services.webhooks.settings import Settings
from services.webhooks.store import events as store
from services.webhooks.store.events import Arrival
from shared import telemetry
from shared.contracts.credentials import Use
from shared.credentials import Credential, CredentialUnfit, Wallet
from shared.database import GroupCommit
from shared.replies import Replies
from shared.settings import SettingsRefused
from shared.work import Desk


def checking(schemes: Mapping[str, Scheme]) -> Callable[[str, Mapping[str, str]], None]:
    """Make the check of a secret that a store gives; it raises CredentialUnfit for one that its provider cannot sign with."""

    def check(provider: str, fields: Mapping[str, str]) -> None:
        try:
            schemes[provider].check_secret(fields["secret"])
        except SecretUnfit as unfit:
            raise CredentialUnfit(f"This is no secret of {provider}: {unfit}.", {"field": "fields.secret"}) from None

    return check


def check_accounts(accounts: Sequence[Account], schemes: Mapping[str, Scheme]) -> None:
    """Raise SettingsRefused if the installation's own accounts hold what is no provider's, or no provider's secret."""
    for account in accounts:
        if account.provider not in schemes:
            raise SettingsRefused(f"WEBHOOK_ACCOUNTS: {account.provider} is no provider whose webhooks are taken")
        for secret in account.secrets:
            try:
                schemes[account.provider].check_secret(secret)
            except SecretUnfit as unfit:
                raise SettingsRefused(
                    f"WEBHOOK_ACCOUNTS: a secret of {account.account} is no secret of {account.provider}: {unfit}"
                ) from None


class Webhooks:
    """The accounts whose webhooks are taken, how each provider signs, and where events are kept."""

    def __init__(
        self,
        *,
        desk: Desk,
        settings: Settings,
        replies: Replies,
        wallet: Wallet,
        accounts: Sequence[Account],
        schemes: Mapping[str, Scheme],
        messenger: Messenger,
    ) -> None:
        self.desk = desk
        self.settings = settings
        self.replies = replies
        self.schemes = schemes
        self.keeping: GroupCommit[Arrival, bool] = GroupCommit(self._keep)
        # By this process's monotonic clock: when the last refused request was kept as a sample.
        self.sampled_at_seconds = 0.0
        self.messenger = messenger
        self.wake_deliveries: Callable[[], None] = lambda: None
        self.deliveries_out = Errands(
            out_max=DELIVERIES_OUT_MAX, per_store_max=DELIVERIES_OUT_PER_STORE_TIMING_OUT_MAX, back=lambda: self.wake_deliveries()
        )
        self.wallet = wallet
        self.signing_secrets = SigningSecrets(wallet)
        self._accounts = accounts

    def accounts_of(self, provider: str, scheme: Scheme, store_id: UUID | None) -> list[Account]:
        """List the accounts that a request to this address may belong to, with their usable secrets.

        At the address that names no store these are the installation's alone: what anybody may have tried does not grow with the stores.
        """
        known = self.wallet.of_provider(provider, Use.WEBHOOKS)
        own = accounts_of([credential for credential in known if credential.store_id == store_id])
        here = [a for a in (*self._accounts, *own) if a.provider == provider and store_id in (None, a.store_id)]
        usable = [msgspec.structs.replace(a, secrets=tuple(s for s in a.secrets if self._usable(scheme, a, s))) for a in here]
        return [account for account in usable if account.secrets]

    def _usable(self, scheme: Scheme, account: Account, secret: str) -> bool:
        # One that was given before it was looked at costs its own account's webhooks, and nobody else's.
        try:
            scheme.check_secret(secret)
        except SecretUnfit:
            telemetry.webhook_secrets_unfit.labels(account.provider).inc()
            return False
        return True

    async def try_credential(self, credential: Credential) -> tuple[str, str]:
        """A secret that webhooks are signed with is tried by the next webhook alone."""
        return "unanswered", "A webhook's secret can only be tried by a webhook; have the provider send one."

    async def _keep(self, arrivals: list[Arrival]) -> list[bool]:
        relay = self.desk.relay
        new = await store.keep(self.desk.pool, arrivals, head_start_seconds=relay.head_start_seconds)
        relay.send_soon([arrival.process for arrival, is_new in zip(arrivals, new, strict=True) if is_new])
        return new
