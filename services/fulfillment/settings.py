"""The settings of fulfillment."""

from typing import Annotated

from shared.credentials import VaultSettings
from shared.messages import Environment
from shared.outbound import OutboundUrl, OutboundUrlInvalid
from shared.settings import HTTP, about, several, url
from shared.topology import TIERS_MILLISECONDS


def _no_hosts(hosts: str) -> str | None:
    for host in hosts.split(","):
        try:
            OutboundUrl.parse(f"https://{host}", hosts=(host,))
        except OutboundUrlInvalid as invalid:
            return f"'{host}' is no host for labels: {invalid}"
    return None


class Settings(VaultSettings, frozen=True, kw_only=True):
    """Read from the environment."""

    sandbox_url: Annotated[str, url("The sandbox carrier; none leaves it out.", *HTTP)] = ""
    sandbox_api_key: Annotated[str, about("The key for the sandbox carrier.", secret=True)] = "sk_sandbox_local"
    easypost_api_key: Annotated[
        str, about("A key of EasyPost; a production key (`EZAK…`) serves production, any other the sandbox environment.", secret=True)
    ] = ""
    easypost_url: Annotated[str, url("EasyPost's API.", *HTTP)] = "https://api.easypost.com"
    shippo_api_key: Annotated[
        str, about("A key of Shippo; a live key (`shippo_live_…`) serves production, any other the sandbox environment.", secret=True)
    ] = ""
    shippo_url: Annotated[str, url("Shippo's API.", *HTTP)] = "https://api.goshippo.com"
    label_hosts: Annotated[
        str,
        about(
            "Further hosts that EasyPost and Shippo may keep printed labels at, separated by commas; theirs of today are known.",
            form="host names",
            check=_no_hosts,
        ),
    ] = ""
    taxjar_api_key: Annotated[str, about("A key of TaxJar.", secret=True)] = ""
    taxjar_url: Annotated[str, url("TaxJar's API.", *HTTP)] = "https://api.taxjar.com"
    taxjar_environment: Annotated[Environment, about("Which environment that TaxJar key serves.")] = Environment.PRODUCTION
    avalara_account_id: Annotated[str, about("The account at AvaTax.")] = ""
    avalara_license_key: Annotated[str, about("The licence key of AvaTax.", secret=True)] = ""
    avalara_company_code: Annotated[str, about("The company in AvaTax.")] = "DEFAULT"
    avalara_url: Annotated[str, url("AvaTax's API.", *HTTP)] = "https://rest.avatax.com"
    avalara_environment: Annotated[Environment, about("Which environment that AvaTax account serves.")] = Environment.PRODUCTION
    rates_timeout_seconds: Annotated[
        float, about("How long a quote waits for each carrier; keep it shorter than PRICING_TIMEOUT_SECONDS of payments.", gt=0)
    ] = 2.5
    tax_timeout_seconds: Annotated[
        float, about("How long a quote waits for the tax engine; keep it shorter than PRICING_TIMEOUT_SECONDS of payments.", gt=0)
    ] = 2.5
    provider_timeout_seconds: Annotated[float, about("How long any other call of a carrier may take.", gt=0)] = 15.0
    rate_lifetime_seconds: Annotated[int, about("How long a rate holds whose carrier does not say.", ge=1)] = 900
    lease_seconds: Annotated[
        float, about("How long a crash while a label is bought costs before another process goes on; renewed while the call is out.", gt=0)
    ] = 5.0
    filing_lease_seconds: Annotated[
        float, about("How long a document may take to be recorded at a tax provider before another process tries.", gt=0)
    ] = 60.0
    file_every_seconds: Annotated[float, about("How often documents are looked for that a tax provider has yet to record.", gt=0)] = 2.0
    resolve_every_seconds: Annotated[float, about("How often labels with an unknown outcome are looked for.", gt=0)] = 1.0
    track_every_seconds: Annotated[float, about("How often a carrier that sends no webhooks is asked for a parcel.", gt=0)] = 3600.0
    look_every_seconds: Annotated[float, about("How often parcels are looked for that are due to be asked for.", gt=0)] = 30.0
    housekeeping_every_seconds: Annotated[float, about("How often old rates and quotes are deleted.", gt=0)] = 60.0
    retry_tiers_bug: Annotated[
        str,
        several("The waits before a message is tried again that failed by an error of ours; then it is a dead letter.", TIERS_MILLISECONDS),
    ] = "1s,30s"
