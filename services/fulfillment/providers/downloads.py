"""Printed labels that a carrier keeps at an address of its file store."""

import aiohttp

from services.fulfillment.providers import CarrierUnclear

LABEL_MAX_BYTES = 180 * 1024
DOWNLOAD_TIMEOUT_SECONDS = 10.0


async def fetched(url: str, *, secure: bool) -> bytes:
    """Read a printed label; raises CarrierUnclear when it cannot be read, is too large, or would come over http from a carrier on https."""
    if secure and not url.startswith("https://"):
        raise CarrierUnclear("the label lies at an address that is not https")
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, allow_redirects=False) as answer:
            content = await answer.content.read(LABEL_MAX_BYTES + 1)
            if answer.status != 200 or len(content) > LABEL_MAX_BYTES:
                raise CarrierUnclear(f"the label cannot be read ({answer.status}, {len(content)} bytes)")
            return content
    except (aiohttp.ClientError, TimeoutError, OSError) as silent:
        raise CarrierUnclear(f"the label cannot be read: {type(silent).__name__}") from silent
