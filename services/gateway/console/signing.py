"""Who is signed in: a random token in a cookie, its hash in the database, and a word in every form that only its page could know."""

import base64
import hashlib
import hmac
import secrets
from uuid import UUID

import msgspec

from services.gateway.domain import Principal
from services.gateway.handlers.gateway import Gateway
from services.gateway.routes.answers import gateway_of
from services.gateway.store import sessions as store
from shared.received import HttpRequest

COOKIE = "tender_session"
SIGN_IN = "/console/sign-in"
TOKEN_BYTES = 32


class Visitor(msgspec.Struct, frozen=True, kw_only=True):
    """Who looks at a page, by the key of which name, in which session."""

    principal: Principal
    key_name: str
    token_hash: bytes


async def visitor_of(request: HttpRequest) -> Visitor | None:
    """Tell who is signed in, or that nobody is."""
    token = request.cookies.get(COOKIE)
    if not token:
        return None
    token_hash = hashlib.sha256(token.encode()).digest()
    session = await store.session(gateway_of(request).pool, token_hash)
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
    mac = hmac.digest(gateway.settings.token_secret.encode(), b"console form:" + visitor.token_hash, "sha256")
    return base64.urlsafe_b64encode(mac).decode().rstrip("=")
