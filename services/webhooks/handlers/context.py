"""What the handlers of webhooks work with."""

from collections.abc import Callable, Mapping, Sequence
from uuid import UUID

from services.webhooks.domain import DELIVERIES_OUT_MAX, DELIVERIES_OUT_PER_ENDPOINT_MAX, Account, accounts_of
from services.webhooks.handlers.errands import Errands
from services.webhooks.handlers.posting import Messenger
from services.webhooks.providers import Scheme
from services.webhooks.settings import Settings
from services.webhooks.store import events as store
from services.webhooks.store.events import Arrival
from shared.contracts.credentials import Use
from shared.credentials import Credential, Wallet
from shared.database import GroupCommit
from shared.replies import Replies
from shared.work import Desk


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
            out_max=DELIVERIES_OUT_MAX, per_endpoint_max=DELIVERIES_OUT_PER_ENDPOINT_MAX, back=lambda: self.wake_deliveries()
        )
        self.wallet = wallet
        self._accounts = accounts

    def accounts_of(self, provider: str, store_id: UUID | None) -> list[Account]:
        """List the accounts that a request to this address may belong to: the installation's, and those that stores gave a secret for."""
        known = self.wallet.of_provider(provider, Use.WEBHOOKS)
        own = accounts_of([credential for credential in known if store_id in (None, credential.store_id)])
        return [a for a in (*self._accounts, *own) if a.provider == provider and store_id in (None, a.store_id)]

    async def try_credential(self, credential: Credential) -> tuple[str, str]:
        """A secret that webhooks are signed with is tried by the next webhook alone."""
        return "unanswered", "A webhook's secret can only be tried by a webhook; have the provider send one."

    async def _keep(self, arrivals: list[Arrival]) -> list[bool]:
        relay = self.desk.relay
        new = await store.keep(self.desk.pool, arrivals, head_start_seconds=relay.head_start_seconds)
        relay.send_soon([arrival.process for arrival, is_new in zip(arrivals, new, strict=True) if is_new])
        return new
