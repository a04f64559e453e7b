"""A store to begin with: in Berlin, shipping with the sandbox's carrier and by a table of its own, collecting VAT all over the EU."""

from datetime import date
from uuid import UUID

from deploy import taxes
from services.fulfillment.store import registrations, settings
from shared.contracts.fulfillment.pricing import BandBody, FallbackRate, StoreSettings, TableBody, TariffBody, ZoneBody
from shared.contracts.fulfillment.tax import NexusBody
from shared.contracts.orders import Address
from shared.ids import new_id
from shared.messages import Envelope, Environment
from shared.owner import acting_as_owner

COLLECTED_SINCE = date(2021, 7, 1)

SETTINGS = StoreSettings(
    home_country="DE",
    ship_from=Address(name="Tender", street_address="Karl-Marx-Allee 1", city="Berlin", postal_code="10178", country_code="DE"),
    carriers=["sandbox", "table_rate"],
    shipping_prices_include_tax=True,
    fallback_rates=[FallbackRate(service="flat", amount=690, currency="EUR")],
    table=TableBody(
        zones=[ZoneBody(name="city", country="DE", postal_codes=["10*", "12*", "13*"])],
        tariffs=[
            TariffBody(service="bicycle", zone="city", currency="EUR", bands=[BandBody(up_to_grams=5_000, amount=450)], transit_days=0)
        ],
    ),
)


async def furnish(database_url: str, store_id: UUID) -> bool:
    """Give a store settings, a registration and the starter rules, unless it has settings; tells whether it did. Takes the owner's URL."""
    action = "store.furnish"
    async with acting_as_owner(database_url, "fulfillment", action, store_id=store_id, environment=Environment.SANDBOX) as connection:
        if (await settings.standing(connection, store_id, Environment.SANDBOX.value)).settings is not None:
            return False
        envelope = Envelope(
            id=new_id(), store_id=store_id, environment=Environment.SANDBOX, source="setup", actor="setup", correlation_id="setup"
        )
        oss = NexusBody(oss=True, valid_from=COLLECTED_SINCE)
        for statement in (settings.kept(envelope, SETTINGS), registrations.nexus_kept(envelope, new_id(), oss)):
            await connection.execute(statement.sql, *statement.arguments)
    await taxes.bring_in(
        database_url, taxes.read(taxes.STARTER), store_id=store_id, environment=Environment.SANDBOX, replace=False, dry_run=False
    )
    return True
