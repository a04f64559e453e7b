"""Printed labels that a carrier keeps at an address of its file store."""

import aiohttp
import msgspec

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


async def fetched(url: str, *, form: str, secure: bool) -> bytes:
    """Read a printed label; raises IndeterminateResponse when it cannot be read whole, is something else, or would come over http from a
    carrier on https.
    """
    if secure and not url.startswith("https://"):
        raise IndeterminateResponse("the label lies at an address that is not https")
    timeout = aiohttp.ClientTimeout(total=DOWNLOAD_TIMEOUT_SECONDS)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, allow_redirects=False) as answer:
            content = await _read(answer.content)
            if answer.status != 200 or len(content) > LABEL_MAX_BYTES or not FORMS[form].fits(content):
                raise IndeterminateResponse(f"the label cannot be read ({answer.status}, {len(content)} bytes)")
            return content
    except (aiohttp.ClientError, TimeoutError, OSError) as silent:
        raise IndeterminateResponse(f"the label cannot be read: {type(silent).__name__}") from silent


async def _read(content: aiohttp.StreamReader) -> bytes:
    """Read to the end, or to where it is too much."""
    read = b""
    while len(read) <= LABEL_MAX_BYTES and (piece := await content.read(LABEL_MAX_BYTES + 1)):
        read += piece
    return read
