"""Printed labels that a carrier keeps at an address of its file store."""

from collections.abc import Collection

import msgspec

from shared.outbound import OutboundCallFailed, OutboundClient, OutboundUrl, OutboundUrlInvalid
from shared.provider_answers import IndeterminateResponse

LABEL_MAX_BYTES = 180 * 1024
DOWNLOAD_TIMEOUT_SECONDS = 10.0
# So far from its edges a file may have a little more (PDF 1.7, Adobe's implementation notes 13 and 18; printers' settings in ZPL).
EDGE_BYTES = 1024


class Form(msgspec.Struct, frozen=True):
    """A form that labels are printed in, and what such a file begins and ends with."""

    media_type: str
    begins: bytes
    ends: bytes

    def fits(self, content: bytes) -> bool:
        """Tell whether a file is of this form and whole."""
        return self.begins in content[:EDGE_BYTES] and self.ends in content[-EDGE_BYTES:]


FORMS = {"pdf": Form("application/pdf", b"%PDF-", b"%%EOF"), "zpl": Form("application/zpl", b"^XA", b"^XZ")}


async def fetched(url: str, *, form: str, hosts: Collection[str], carrier_url: str) -> bytes:
    """Read a printed label from a carrier's file store, or from the carrier's own API; raises IndeterminateResponse when it cannot be read
    whole, is something else, or lies elsewhere.
    """
    try:
        address = OutboundUrl.parse(url, hosts=hosts, trusted=carrier_url)
    except OutboundUrlInvalid as invalid:
        raise IndeterminateResponse(f"the label's address: {invalid}") from invalid
    try:
        async with OutboundClient(timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS) as client:
            status, content = await client.get(address, bytes_max=LABEL_MAX_BYTES)
    except OutboundCallFailed as failed:
        raise IndeterminateResponse(f"the label cannot be read: {failed.failure.value}") from failed
    if status != 200 or not FORMS[form].fits(content):
        raise IndeterminateResponse(f"the label cannot be read ({status}, {len(content)} bytes)")
    return content
