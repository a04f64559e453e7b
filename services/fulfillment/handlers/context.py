"""What the handlers of fulfillment work with, and a store's ground: its settings, rules and registrations as of their revision."""

from collections.abc import Callable, Mapping
from uuid import UUID

import msgspec

from services.fulfillment.domain.tax.rules import Rule
from services.fulfillment.providers import Carrier, LabelBooks, TaxEngine
from services.fulfillment.providers.tax_books import TaxBooks
from services.fulfillment.settings import Settings
from services.fulfillment.store import registrations, rules
from services.fulfillment.store import settings as settings_rows
from services.fulfillment.store.registrations import Nexus
from services.fulfillment.store.settings import Standing
from shared.database import Connection
from shared.errors import Invalid
from shared.messages import Envelope, Environment
from shared.work import Desk

STORES_CACHED_MAX = 1_000


class ProviderNotConfigured(Invalid):
    """There is no such carrier or tax engine for this store's environment."""

    code = "provider-not-configured"
    title = "This provider is not configured"


class Ground(msgspec.Struct, kw_only=True):
    """A store's registrations and rules, by country as they were needed, as of one revision."""

    revision: int
    nexus: tuple[Nexus, ...]
    by_country: dict[str, tuple[Rule, ...]]


class Fulfillment:
    """The carriers and tax engines, and what stores decided."""

    def __init__(
        self,
        *,
        desk: Desk,
        settings: Settings,
        carriers: Mapping[tuple[Environment, str], Carrier],
        engines: Mapping[tuple[Environment, str], TaxEngine],
        label_books: Mapping[tuple[str, str], LabelBooks],
        tax_books: Mapping[tuple[str, str], TaxBooks],
    ) -> None:
        self.desk = desk
        self.settings = settings
        self.carriers = carriers
        # Of those that keep some, by environment and name.
        self.label_books = label_books
        self.tax_books = tax_books
        self._engines = engines
        self._grounds: dict[tuple[UUID, Environment], Ground] = {}
        self.wake_resolver: Callable[[], None] = lambda: None

    def carrier(self, environment: Environment, name: str) -> Carrier:
        """Find a carrier; sandbox work never reaches a production account, nor the other way round."""
        found = self.carriers.get((environment, name))
        if found is None:
            known = sorted(each for where, each in self.carriers if where is environment)
            raise ProviderNotConfigured(
                f"No carrier {name!r} is configured for {environment.value}.", {"carrier": name, "configured": known}
            )
        return found

    def engine(self, environment: Environment, name: str) -> TaxEngine:
        """Find a tax engine, as above."""
        found = self._engines.get((environment, name))
        if found is None:
            known = sorted(each for where, each in self._engines if where is environment)
            raise ProviderNotConfigured(
                f"No tax engine {name!r} is configured for {environment.value}.", {"tax_provider": name, "configured": known}
            )
        return found

    async def standing(self, db: Connection, envelope: Envelope) -> Standing:
        """Read a store's settings."""
        return await settings_rows.standing(db, envelope.store_id, envelope.environment.value)

    async def ground(
        self, db: Connection, envelope: Envelope, revision: int, countries: set[str]
    ) -> tuple[tuple[Nexus, ...], tuple[Rule, ...]]:
        """Give a store's registrations, and its rules of some countries, as of a revision."""
        key, where = (envelope.store_id, envelope.environment), (envelope.store_id, envelope.environment.value)
        known = self._grounds.get(key)
        if known is None or known.revision != revision:
            if len(self._grounds) >= STORES_CACHED_MAX:
                self._grounds.clear()
            known = Ground(revision=revision, nexus=tuple(await registrations.nexus_of(db, *where)), by_country={})
            self._grounds[key] = known
        if unknown := countries - known.by_country.keys():
            found = await rules.of_countries(db, *where, sorted(unknown))
            for country in unknown:
                known.by_country[country] = tuple(rule for rule in found if rule.country == country)
        return known.nexus, tuple(rule for country in sorted(countries) for rule in known.by_country[country])
