"""What every page has in common: who may see it, how it is answered, how it stays live, and how what it does is done once."""

import asyncio
import gzip
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException
from litestar.response import Redirect, ServerSentEvent, ServerSentEventMessage
from litestar.types import ExceptionHandlersMap

from services.gateway.console.assets import takes_gzip
from services.gateway.console.rendering import render, render_live
from services.gateway.console.signing import SIGN_IN, Visitor, cookie, cookie_name, csrf_of, mac_of, visitor_in, visitor_of
from services.gateway.domain import ROLES, Access, Forbidden, refuse_unstorable, request_hash
from services.gateway.routes import answers
from services.gateway.routes.answers import correlation_of, execute, gateway_of, principal_of
from shared.errors import Problem, Refusal, Unavailable
from shared.messages import Message, Query
from shared.reason_phrases import REASON_PHRASES, detail_of
from shared.received import HttpRequest

PAGE_ROWS = 50
# After which a browser comes again by itself.
LIVE_MAX_SECONDS = 600.0
PACKED_FROM_BYTES = 1_000
FLASH = "tender_flash"
FLASH_MAX_SECONDS = 60
FLASH_MAX_CHARACTERS = 1_000

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Referrer-Policy": "same-origin",
    "Vary": "Accept, Accept-Encoding, Cookie",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

Facts = Mapping[str, Any]
Load = Callable[[], Awaitable[Facts]]
T = TypeVar("T")


class Flash(msgspec.Struct, frozen=True, kw_only=True):
    """What the next page says of what was just done."""

    good: bool
    text: str


# Showing


async def page(request: HttpRequest, template: str, load: Load) -> Response[Any]:
    """Show a page, or tell an open one of changes when its browser asks for that."""
    if request.headers.get("accept") == "text/event-stream":
        return _live(request, template, load)
    return html(request, template, await load())


def html(request: HttpRequest, template: str, facts: Facts, *, status: int = 200) -> Response[Any]:
    """Answer a rendered page."""
    flash = request.cookies.get(cookie_name(request, FLASH))
    text = render(template, {**_common(request), "flash": _read_flash(request, flash), **facts})
    answer = _packed(request, text, status)
    if flash:
        answer.set_cookie(cookie(request, FLASH, "", lifetime_seconds=0))
    return answer


def _packed(request: HttpRequest, text: str, status: int) -> Response[Any]:
    body, headers = text.encode(), dict(HEADERS)
    if takes_gzip(request) and len(body) > PACKED_FROM_BYTES:
        body, headers["Content-Encoding"] = gzip.compress(body, 5, mtime=0), "gzip"
    return Response(body, status_code=status, media_type="text/html; charset=utf-8", headers=headers)


def _common(request: HttpRequest) -> dict[str, Any]:
    visitor = visitor_in(request)
    return {
        "visitor": visitor,
        "csrf": "" if visitor is None else csrf_of(gateway_of(request), visitor),
        "may": frozenset() if visitor is None else {access.value for access in ROLES if visitor.principal.may(access)},
        "path": request.url.path,
        "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        "given": dict(request.query_params.items()),
        "correlation_id": correlation_of(request),
    }


def _live(request: HttpRequest, template: str, load: Load) -> Response[Any]:
    if gateway_of(request).live_pages.full(principal_of(request)):
        # Tells browsers not to come again by themselves; the page stays as it is.
        return Response(b"", status_code=204)
    return ServerSentEvent(_changes(request, template, load), headers={**HEADERS, "X-Accel-Buffering": "no"})


async def _changes(request: HttpRequest, template: str, load: Load) -> AsyncIterator[ServerSentEventMessage]:
    gateway, loop = gateway_of(request), asyncio.get_running_loop()
    ends, said = loop.time() + LIVE_MAX_SECONDS, b""
    with gateway.live_pages.open(principal_of(request)):
        while loop.time() < ends and not gateway.closing.is_set():
            # A session that was ended, is idle, or whose key was revoked gets no changes. An open page is not a use of it.
            if await visitor_of(request, used=False) is None:
                yield ServerSentEventMessage(event="gone", data="")
                return
            with suppress(Refusal, Unavailable):
                facts = await load()
                now = msgspec.json.encode(facts)
                if now != said:
                    said = now
                    yield ServerSentEventMessage(event="changed", data=render_live(template, {**_common(request), **facts}))
            with suppress(TimeoutError):
                await asyncio.wait_for(gateway.closing.wait(), gateway.settings.console_live_seconds)


async def ask(request: HttpRequest, query: Query, kind: type[T]) -> T:
    """Ask a service for what a page shows; raises what its rules refuse."""
    return msgspec.json.decode(await answers.ask(request, query), type=kind)


async def asked_for(request: HttpRequest, query: Query, kind: type[T]) -> T | None:
    """Ask a service for a part of a page that can do without; nothing when it does not answer."""
    try:
        return await ask(request, query, kind)
    except Unavailable:
        return None


# Doing


async def form_of(request: HttpRequest) -> dict[str, str]:
    """Read a form that was sent from one of our own pages; raises Forbidden for any other."""
    visitor = visitor_in(request)
    form = {key: str(value) for key, value in (await request.form()).items()}
    if visitor is None or not same_origin(request) or form.pop("csrf", "") != csrf_of(gateway_of(request), visitor):
        raise Forbidden("This form is not from a page of yours, or you have signed in anew since; go back and send it again.")
    refuse_unstorable(form)
    return form


def same_origin(request: HttpRequest) -> bool:
    """Tell whether a request comes from a page of ours, as far as its browser says."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        # Told by the browser itself, whatever names stand between it and us (Fetch Metadata, W3C).
        return site in ("same-origin", "none")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def read(form: Mapping[str, str], kind: type[T], **more: Any) -> T:
    """Read a form's fields as the body that the API takes; fields that were left empty are absent."""
    names = {field.encode_name for field in msgspec.structs.fields(kind)}  # type: ignore[arg-type]
    given = {key: value for key, value in form.items() if key in names and value != ""}
    return msgspec.convert({**given, **more}, kind, strict=False)


Said = Callable[[bytes], Flash]


async def act(
    request: HttpRequest, form: Mapping[str, str], command: Message, *, done: str | Said, back: str, made: str = ""
) -> Response[Any]:
    """Carry out what a form asks for, once however often it is sent, and go back, or to what was made, whose id stands for `{id}`."""
    key = form.get("key", "")
    if not key:
        raise Forbidden("This form has lost its key; go back and send it again.")
    digest = request_hash(request.method, request.url.path, dict(form))
    answer = await execute(request, key, command, digest, wait_seconds=gateway_of(request).settings.wait_seconds)
    if answer.body is None:
        said = Flash(good=False, text="Accepted, and still under way: this page will show what comes of it.")
    elif answer.status >= 400:
        said = Flash(good=False, text=_refused(answer.body))
    else:
        said = Flash(good=True, text=done) if isinstance(done, str) else done(answer.body)
        if made:
            back = made.format(id=msgspec.json.decode(answer.body, type=_Named).id)
    return onwards(request, back, said, visitor=visitor_in(request))


class _Named(msgspec.Struct):
    id: str


class _Said(msgspec.Struct):
    title: str
    detail: str = ""


def _refused(body: bytes) -> str:
    said = msgspec.json.decode(body, type=_Said)
    return f"{said.title}. {said.detail}"


def onwards(request: HttpRequest, to: str, said: Flash | None = None, *, visitor: Visitor | None = None) -> Response[Any]:
    """Send a browser to another page, which says what was done; signed for the session it is shown in, if any."""
    answer = Redirect(to, status_code=303, headers=HEADERS)
    if said is not None:
        short = msgspec.structs.replace(said, text=said.text[:FLASH_MAX_CHARACTERS])
        value = urlsafe_b64encode(msgspec.json.encode(short)).decode()
        signed = f"{value}.{_flash_mac(request, value, visitor)}"
        answer.set_cookie(cookie(request, FLASH, signed, lifetime_seconds=FLASH_MAX_SECONDS))
    return answer


def _flash_mac(request: HttpRequest, value: str, visitor: Visitor | None) -> str:
    session = b"" if visitor is None else visitor.token_hash
    return mac_of(gateway_of(request), b"console flash", session + value.encode())


def _read_flash(request: HttpRequest, signed: str | None) -> Flash | None:
    value, _, mac = (signed or "").rpartition(".")
    if not hmac.compare_digest(mac.encode(), _flash_mac(request, value, visitor_in(request)).encode()):
        return None
    with suppress(ValueError, msgspec.MsgspecError):
        return msgspec.json.decode(urlsafe_b64decode(value), type=Flash)
    return None


# Refusing


def problem_handlers() -> ExceptionHandlersMap:
    """Write every error as a page."""
    return {
        Refusal: lambda request, refusal: _refusal(request, refusal.problem()),
        Unavailable: _unavailable,
        msgspec.ValidationError: lambda request, wrong: _problem(request, 422, "This does not fit", str(wrong)),
        msgspec.DecodeError: lambda request, wrong: _problem(request, 422, "This cannot be read", str(wrong)),
        HTTPException: _http,
        Exception: _bug,
    }


def _refusal(request: HttpRequest, problem: Problem) -> Response[Any]:
    answer = _problem(request, problem.status, problem.title, problem.detail)
    if problem.retry_after_seconds is not None:
        answer.headers["Retry-After"] = str(problem.retry_after_seconds)
    return answer


def _http(request: HttpRequest, error: HTTPException) -> Response[Any]:
    status = error.status_code
    return _problem(request, status, REASON_PHRASES[status], detail_of(status, error.detail))


def _unavailable(request: HttpRequest, silent: Unavailable) -> Response[Any]:
    return _problem(request, 503, "This cannot be shown right now", "A part of the system does not answer; the overview says which.")


def _bug(request: HttpRequest, bug: Exception) -> Response[Any]:
    answers.logger.error("a page failed", exc_info=bug)
    return _problem(request, 500, "This is a bug on our side", "The log tells more, under the id below.")


def _problem(request: HttpRequest, status: int, title: str, detail: str) -> Response[Any]:
    return html(request, "problem.html", {"status": status, "title": title, "detail": detail}, status=status)


class SignedIn:
    """Lets only those in who have signed in with a key whose role has an access."""

    def __init__(self, access: Access) -> None:
        self.access = access

    async def __call__(self, request: HttpRequest) -> Response[Any] | None:
        """Find out who is signed in, refuse who may not, and send everybody else to sign in."""
        answers.refuse_nul(request)
        live = request.headers.get("accept") == "text/event-stream"
        visitor = await visitor_of(request, used=not live)
        if visitor is not None:
            gateway_of(request).count(visitor.principal)
            request.scope["state"]["visitor"] = visitor
            request.scope["state"]["principal"] = visitor.principal
            visitor.principal.require(self.access)
            return None
        if live:
            return Response(b"", status_code=204)
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query and request.method == "GET" else "")
        return onwards(request, f"{SIGN_IN}?next={wanted}" if request.method == "GET" and wanted != "/console" else SIGN_IN)


signed_in = SignedIn(Access.READ)
RETRY = SignedIn(Access.RETRY)
FINANCE = SignedIn(Access.FINANCE)
REPAIR = SignedIn(Access.REPAIR)
ADMIN = SignedIn(Access.ADMIN)
