"""The carriers behind Shippo, by the tokens that its tracking addresses have (docs.goshippo.com/docs/tracking/trackingcarriers)."""

from collections.abc import Mapping
from typing import Any

CARRIER_TOKENS = frozenset(
    {
        *("airterra", "apc_postal", "apg", "aramex", "asendia_us", "australia_post", "axlehire", "better_trucks", "borderguru"),
        *("boxberry", "bring", "canada_post", "cdl", "chronopost", "colissimo", "collect_plus", "correios_br", "correos_espana"),
        *("couriersplease", "deutsche_post", "dhl_benelux", "dhl_ecommerce", "dhl_express", "dhl_germany", "dhl_germany_c2c"),
        *("dpd_de", "dpd_uk", "estafeta", "fastway_australia", "fedex", "globegistics", "gls_us", "gophr", "gso"),
        *("hermes_germany_b2c", "hermes_uk", "hongkong_post", "lasership", "lso", "mondial_relay", "new_zealand_post"),
        *("nippon_express", "ontrac", "orangeds", "parcelforce", "passport", "pcf", "poste_italiane", "posti", "purolator"),
        *("royal_mail", "rr_donnelley", "russian_post", "sendle", "skypostal", "stuart", "swyft", "uds", "ups", "usps", "veho"),
    }
)
# Names that are not their tokens in capitals (shippo-python-sdk 3.9.0, docs/models/components/carriersenum.md and rate.md).
NAMES = {
    "Australia Post (also used for Startrack)": "australia_post",
    "BetterTrucks": "better_trucks",
    "Bring (also used for Posten Norge)": "bring",
    "CollectPlus": "collect_plus",
    "CorreiosBR": "correios_br",
    "Correos España": "correos_espana",
    "Deutsche Post DHL": "deutsche_post",
    "DPD GERMANY": "dpd_de",
    "Evri UK": "hermes_uk",
    "Globegistics (now Asendia)": "globegistics",
    "Jitsu": "axlehire",
    "New Zealand Post (also used for Pace and CourierPost)": "new_zealand_post",
    "UDS (United Delivery Service)": "uds",
    "ePost Global": "rr_donnelley",
}


def carrier_token(rate: Mapping[str, Any]) -> str:
    """Read from a rate which carrier's parcels its tracking address names.

    A service's token begins with its carrier's, but for a few services; for those the carrier's name decides.
    """
    service = str((rate.get("servicelevel") or {}).get("token") or rate.get("servicelevel_token") or "")
    named = [token for token in CARRIER_TOKENS if service.startswith(f"{token}_")]
    if named:
        return max(named, key=len)
    provider = str(rate["provider"])
    return NAMES.get(provider) or provider.lower().replace(" ", "_")
