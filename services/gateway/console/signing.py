"""Who is signed in: a random token in a cookie, its hash in the database, and a word in every form that only its page could know."""

import base64
import hashlib
import hmac
import secrets
from uuid import UUID

import msgspec
from litestar.datastructures import Cookie

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.routes.answers import gateway_of
from services.gateway.store import sessions as store
from shared.received import HttpRequest

COOKIE = "tender_session"
# Browsers take a cookie of such a name over HTTPS alone, for this host alone and every path of it (RFC 6265bis 4.1.3.2).
HOST_PREFIX = "__Host-"
SIGN_IN = "/console/sign-in"
TOKEN_BYTES = 32


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks at a page, by the key of which name, in which session."""

    principal: Principal
    key_name: str
    token_hash: bytes


def cookie_name(request: HttpRequest, name: str) -> str:
    """Say how a cookie of the console is called, which depends on whether it travels over HTTPS alone."""
    return f"{HOST_PREFIX}{name}" if gateway_of(request).settings.console_secure_cookie else name


def cookie(request: HttpRequest, name: str, value: str, *, lifetime_seconds: int) -> Cookie:
    """Make a cookie of the console; one without a lifetime ends the one that is there."""
    return Cookie(
        key=cookie_name(request, name),
        value=value,
        path="/",
        max_age=lifetime_seconds,
        httponly=True,
        samesite="strict",
        secure=gateway_of(request).settings.console_secure_cookie,
    )


async def visitor_of(request: HttpRequest, *, used: bool) -> Visitor | None:
    """Find the session of a request, if it has one; `used` says that the request is a use, so that the session is not idle."""
    token = request.cookies.get(cookie_name(request, COOKIE))
    if not token:
        return None
    token_hash = hashlib.sha256(token.encode()).digest()
    gateway = gateway_of(request)
    session = await store.session(gateway.pool, token_hash, idle_seconds=gateway.settings.console_idle_seconds, used=used)
    if session is None:
        return None
    return Visitor(principal=session.principal, key_name=session.key_name, token_hash=token_hash)


def visitor_in(request: HttpRequest) -> Visitor | None:
    """Tell who was let in to this page."""
    visitor: Visitor | None = request.scope["state"].get("visitor")
    return visitor


async def begin(gateway: Gateway, principal: Principal, *, correlation_id: str) -> str:
    """Sign somebody in; returns the token for their cookie, which is kept nowhere."""
    token = secrets.token_urlsafe(TOKEN_BYTES)
    token_hash = hashlib.sha256(token.encode()).digest()
    envelope = gateway.envelope_for(principal, correlation_id=correlation_id)
    await store.begin(gateway.pool, envelope, token_hash, UUID(principal.id), lifetime_seconds=gateway.settings.console_session_seconds)
    return token


def csrf_of(gateway: Gateway, visitor: Visitor) -> str:
    """Say the word that forms of this session bear."""
    return mac_of(gateway, b"console form", visitor.token_hash)


def mac_of(gateway: Gateway, purpose: bytes, what: bytes) -> str:
    """Sign something of the console's for one purpose."""
    mac = hmac.digest(gateway.settings.token_secret.encode(), purpose + b":" + what, "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")
