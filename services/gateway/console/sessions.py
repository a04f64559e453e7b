"""Signing in with a key of the staff's, and out."""

from typing import Annotated, Any

from litestar import Response, get, post
from litestar.params import QueryParameter

from services.gateway.console.pages import Flash, form_of, html, onwards, same_origin, signed_in
from services.gateway.console.signing import COOKIE, SIGN_IN, begin, cookie, visitor_in
from services.gateway.domain import STAFF, Forbidden, Unauthenticated
from services.gateway.handlers.auditing import sign_in_failed
from services.gateway.routes.answers import correlation_of, gateway_of, open_to_all
from services.gateway.store import sessions as store
from shared.received import HttpRequest

HOME = "/console"
# A key and where to go next, read for anybody.
FORM_MAX_BYTES = 8 * 1024
Next = Annotated[str, QueryParameter(name="next", max_length=2000, required=False)]


def _inside(wanted: str) -> str:
    """Keep to our own pages, whatever a link says."""
    return wanted if wanted.startswith(HOME) and not wanted.startswith(SIGN_IN) and "\\" not in wanted else HOME


@get("/sign-in", before_request=open_to_all)
async def ask_who(request: HttpRequest, wanted: Next = HOME) -> Response[Any]:
    return html(request, "sign_in.html", {"wanted": _inside(wanted), "wrong": ""})


@post("/sign-in", before_request=open_to_all, request_max_body_size=FORM_MAX_BYTES)
async def sign_in(request: HttpRequest) -> Response[Any]:
    form = await request.form()
    wanted, gateway = _inside(str(form.get("next", HOME))), gateway_of(request)
    if not same_origin(request):
        raise Forbidden("Sign in on the console's own page.")
    credential = str(form.get("access_key", "")).strip()
    address = "" if request.client is None else request.client.host
    facts = {"address": address, "correlation_id": correlation_of(request)}
    gateway.sign_ins.attempt(address)
    try:
        principal = await gateway.authenticate(f"Bearer {credential}")
    except Unauthenticated:
        await sign_in_failed(gateway, credential, "unauthenticated", **facts)
        return html(request, "sign_in.html", {"wanted": wanted, "wrong": "This key is not valid, or no longer."}, status=401)
    if principal.role not in STAFF:
        await sign_in_failed(gateway, credential, "forbidden", **facts)
        wrong = f"This needs a key of one of the roles {', '.join(sorted(STAFF))}."
        return html(request, "sign_in.html", {"wanted": wanted, "wrong": wrong}, status=403)
    gateway.sign_ins.succeeded(address)
    answer = onwards(request, wanted)
    lifetime_seconds = int(gateway.settings.console_session_seconds)
    token = await begin(gateway, principal, correlation_id=correlation_of(request))
    answer.set_cookie(cookie(request, COOKIE, token, lifetime_seconds=lifetime_seconds))
    return answer


@post("/sign-out", before_request=signed_in)
async def sign_out(request: HttpRequest) -> Response[Any]:
    await form_of(request)
    visitor = visitor_in(request)
    assert visitor is not None, "nobody else is let in"
    gateway = gateway_of(request)
    await store.end(gateway.pool, gateway.envelope_for(visitor.principal, correlation_id=correlation_of(request)), visitor.token_hash)
    answer = onwards(request, SIGN_IN, Flash(good=True, text="You have signed out."))
    answer.set_cookie(cookie(request, COOKIE, "", lifetime_seconds=0))
    return answer


ROUTES = [ask_who, sign_in, sign_out]
