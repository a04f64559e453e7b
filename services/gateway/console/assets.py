"""What pages are made with besides themselves: a little CSS and script of our own, and htmx; nothing from elsewhere."""

import gzip
import hashlib
from pathlib import Path
from typing import Any

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from services.gateway.routes.answers import open_to_all
from shared.errors import NotFound
from shared.received import HttpRequest

FOLDER = Path(__file__).parent / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
# Its address changes when it does.
CACHED = "public, max-age=31536000, immutable"


class Asset(msgspec.Struct, frozen=True):
    """A file as it is served."""

    plain: bytes
    packed: bytes
    media_type: str
    version: str


def _read(file: Path) -> Asset:
    plain = file.read_bytes()
    return Asset(plain, gzip.compress(plain, mtime=0), TYPES[file.suffix], hashlib.sha256(plain).hexdigest()[:12])


ASSETS = {file.name: _read(file) for file in sorted(FOLDER.iterdir()) if file.suffix in TYPES}


def address(name: str) -> str:
    """Tell where a file is served; another content has another address."""
    return f"/console/static/{name}?v={ASSETS[name].version}"


def takes_gzip(request: HttpRequest) -> bool:
    """Tell whether a browser takes packed answers."""
    return "gzip" in request.headers.get("accept-encoding", "")


@get("/static/{name:str}", before_request=open_to_all)
async def asset(request: HttpRequest, name: FromPath[str]) -> Response[Any]:
    found = ASSETS.get(name)
    if found is None:
        raise NotFound(f"There is no file {name!r}.")
    headers = {"Cache-Control": CACHED, "X-Content-Type-Options": "nosniff", "Vary": "Accept-Encoding"}
    if takes_gzip(request):
        return Response(found.packed, media_type=found.media_type, headers={**headers, "Content-Encoding": "gzip"})
    return Response(found.plain, media_type=found.media_type, headers=headers)
