"""What the handlers of fulfillment work with, and a store's ground: its settings, rules and registrations as of their revision."""

import logging
from collections.abc import Callable, Iterable
from datetime import date
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax import table_age
from services.fulfillment.domain.tax.rule_book import CountryRules, RuleBook
from services.fulfillment.providers import Carrier, LabelBooks, TaxEngine
from services.fulfillment.providers.tax_books import TaxBooks
from services.fulfillment.settings import Settings
from services.fulfillment.store import registrations, rules
from services.fulfillment.store import settings as settings_rows
from services.fulfillment.store.registrations import Nexus
from services.fulfillment.store.settings import Standing
from shared import telemetry
from shared.contracts.credentials import Use
from shared.credentials import Adapters, Credential, Wallet, tried
from shared.database import Connection
from shared.dependencies import Throttle
from shared.errors import Invalid
from shared.messages import Envelope, Environment
from shared.provider_answers import OUTCOME_UNKNOWN
from shared.work import Desk

logger = logging.getLogger(__name__)

STORES_CACHED_MAX = 1_000
OLD_RATES_WARNING_INTERVAL_SECONDS = 24 * 3600.0
NOTHING = "tender-is-this-key-good"


class ProviderNotConfigured(Invalid):
    """There is no such carrier or tax engine for this store's environment."""

    code = "provider-not-configured"
    title = "This provider is not configured"


class Ground(msgspec.Struct, kw_only=True):
    """A store's registrations and rules, by country as they were needed, as of one revision."""

    revision: int
    nexus: tuple[Nexus, ...]
    by_country: dict[str, CountryRules]
    # When rules were last compared with their sources, by version; only of those that say so.
    checked: dict[str, date]


class Fulfillment:
    """The carriers and tax engines, and what stores decided."""

    def __init__(
        self,
        *,
        desk: Desk,
        settings: Settings,
        wallet: Wallet,
        carriers: Adapters[Carrier],
        engines: Adapters[TaxEngine],
    ) -> None:
        self.desk = desk
        self.settings = settings
        self.wallet = wallet
        self._carriers = carriers
        self._engines = engines
        self._grounds: dict[tuple[UUID, Environment], Ground] = {}
        self._old_rates = Throttle(OLD_RATES_WARNING_INTERVAL_SECONDS)
        self.wake_resolver: Callable[[], None] = lambda: None

    def carrier(self, envelope: Envelope, name: str) -> Carrier:
        """Find a store's carrier; sandbox work never reaches a production account, nor the other way round."""
        found = self._carriers.get(envelope.store_id, envelope.environment, name)
        if found is None:
            raise ProviderNotConfigured(
                f"No carrier {name!r} is configured for {envelope.environment.value}.",
                {"carrier": name, "configured": sorted(self.carrier_names(envelope.store_id, envelope.environment))},
            )
        return found

    def ships_by(self, store_id: UUID, environment: Environment, carrier: Carrier) -> bool:
        """Tell whether a store ships by this very account of a carrier."""
        return self._carriers.get(store_id, environment, carrier.name) is carrier

    def carrier_names(self, store_id: UUID, environment: Environment) -> list[str]:
        """List by whom a store can ship."""
        return self._carriers.names(store_id, environment)

    def carrier_of_numbers(self, store_id: UUID, environment: Environment, numbers: str) -> Carrier | None:
        """Find whose numbers a parcel bears."""
        found = (self._carriers.get(store_id, environment, name) for name in self.carrier_names(store_id, environment))
        return next((each for each in found if each is not None and each.carrier == numbers), None)

    def engine(self, envelope: Envelope, name: str) -> TaxEngine:
        """Find a tax engine, as above."""
        found = self._engines.get(envelope.store_id, envelope.environment, name)
        if found is None:
            known = sorted(self._engines.names(envelope.store_id, envelope.environment))
            raise ProviderNotConfigured(
                f"No tax engine {name!r} is configured for {envelope.environment.value}.", {"tax_provider": name, "configured": known}
            )
        return found

    def label_books(self, store_id: UUID, environment: Environment, name: str) -> LabelBooks | None:
        """Find the books of a carrier that keeps some."""
        found: object = self._carriers.get(store_id, environment, name)
        return found if isinstance(found, LabelBooks) else None

    def tax_books(self, store_id: UUID, environment: Environment, name: str) -> TaxBooks | None:
        """Find the books of a tax provider that keeps some."""
        found: object = self._engines.get(store_id, environment, name)
        return found if isinstance(found, TaxBooks) else None

    async def try_credential(self, credential: Credential) -> tuple[str, str]:
        """Ask for a label or a document that is not there; who is answered that has a key that is good."""
        made = self._carriers.make(credential) if credential.use is Use.SHIPPING else self._engines.make(credential)
        silent = OUTCOME_UNKNOWN
        try:
            if isinstance(made, LabelBooks):
                return await tried(made.get_label(NOTHING), silent=silent)
            assert isinstance(made, TaxBooks), "whoever takes a key keeps books"
            return await tried(made.get_record(NOTHING), silent=silent)
        finally:
            if made is not None:
                await made.close()

    async def standing(self, db: Connection, envelope: Envelope) -> Standing:
        """Read a store's settings."""
        return await settings_rows.standing(db, envelope.store_id, envelope.environment.value)

    async def ground(self, db: Connection, envelope: Envelope, revision: int, countries: set[str]) -> tuple[tuple[Nexus, ...], RuleBook]:
        """Give a store's registrations, and its rules of some countries, as of a revision."""
        key, where = (envelope.store_id, envelope.environment), (envelope.store_id, envelope.environment.value)
        known = self._grounds.get(key)
        if known is None or known.revision != revision:
            if len(self._grounds) >= STORES_CACHED_MAX:
                self._grounds.clear()
            known = Ground(revision=revision, nexus=tuple(await registrations.nexus_of(db, *where)), by_country={}, checked={})
            self._grounds[key] = known
        if unknown := countries - known.by_country.keys():
            found = await rules.of_countries(db, *where, sorted(unknown))
            known.checked.update((rule.version, rule.checked_on) for rule in found if rule.checked_on is not None)
            for country in unknown:
                known.by_country[country] = CountryRules([rule for rule in found if rule.country == country])
        return known.nexus, RuleBook({country: known.by_country[country] for country in sorted(countries)})

    def old_rates(self, envelope: Envelope, rule_versions: Iterable[str], today: date) -> str:
        """Say that some of a quote's rules are of an old table of rates, in the log too; nothing where none are. Asked after `ground`."""
        ground = self._grounds.get((envelope.store_id, envelope.environment))
        checked = () if ground is None else (ground.checked.get(version) for version in rule_versions)
        oldest = table_age.oldest_check(checked, today)
        if oldest is not None and self._old_rates.due():
            facts = {"store_id": str(envelope.store_id), "checked_on": oldest.isoformat()}
            telemetry.say(logger, logging.WARNING, "tax rates are old", facts)
        return "" if oldest is None else table_age.said_of(oldest)
