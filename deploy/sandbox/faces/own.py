"""The sandbox's own API: payments as plain as can be."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from litestar import Response, Router, get, post
from litestar.params import FromPath, FromQuery

from deploy.sandbox.books import Books, Payment, Refused
from deploy.sandbox.server import PAGE_ROWS_MAX, Fields, HttpRequest, json_response, sandbox_of
from deploy.sandbox.tokens import behaviour_at


class Own:
    """JSON in and out."""

    remembers_failures = False

    def read(self, raw: bytes) -> Fields:
        """Read an object."""
        try:
            value = msgspec.json.decode(raw) if raw else {}
        except msgspec.DecodeError:
            raise Refused(400, "invalid_json", "The body is not JSON") from None
        if not isinstance(value, dict):
            raise Refused(400, "invalid_json", "The body is not a JSON object")
        return value

    def error(self, refused: Refused) -> bytes:
        """Write an error."""
        return msgspec.json.encode({"error": {"code": refused.code, "message": str(refused)}})


OWN = Own()


@post("/v1/payments")
async def authorize(request: HttpRequest) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(
        request,
        OWN,
        "authorize",
        lambda body: behaviour_at(body.get("payment_method"), "authorize"),
        lambda body: sandbox.books.authorize(body, sandbox.base_url),
    )


@post("/v1/payments/{payment_id:str}/confirm")
async def confirm(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "confirm", lambda books, payment, _: books.confirm(payment))


@post("/v1/payments/{payment_id:str}/capture")
async def capture(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "capture", lambda books, payment, body: books.capture(payment, body))


@post("/v1/payments/{payment_id:str}/void")
async def void(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "void", lambda books, payment, body: books.void(payment, body))


@post("/v1/payments/{payment_id:str}/refund")
async def refund(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return await _change(request, payment_id, "refund", lambda books, payment, body: books.refund(payment, body))


async def _change(
    request: HttpRequest, payment_id: FromPath[str], kind: str, do: Callable[[Books, Payment, dict[str, Any]], Payment]
) -> Response[bytes]:
    sandbox = sandbox_of(request)
    return await sandbox.keyed(
        request,
        OWN,
        kind,
        lambda _: behaviour_at(sandbox.books.get(payment_id).payment_method, kind),
        lambda body: do(sandbox.books, sandbox.books.get(payment_id), body),
    )


@get("/v1/payments/{payment_id:str}")
async def read_payment(request: HttpRequest, payment_id: FromPath[str]) -> Response[bytes]:
    return shown(sandbox_of(request).read(request).get(payment_id))


@get("/v1/payments")
async def read_payments(
    request: HttpRequest,
    reference: FromQuery[str | None] = None,
    since: FromQuery[str | None] = None,
    until: FromQuery[str | None] = None,
    cursor: FromQuery[str] = "",
    limit: FromQuery[int] = PAGE_ROWS_MAX,
) -> Response[bytes]:
    books = sandbox_of(request).read(request)
    if reference is not None:
        found = books.find(reference)
        return _page([] if found is None else [found], None)
    page, following = books.page(after=cursor, since=_moment(since), until=_moment(until), limit=min(limit, PAGE_ROWS_MAX))
    return _page(page, following)


def _moment(text: str | None) -> datetime | None:
    return None if not text else datetime.fromisoformat(text.replace(" ", "+"))


def shown(payment: Payment) -> Response[bytes]:
    """Show a payment."""
    return json_response(msgspec.json.encode(payment))


def _page(payments: list[Payment], cursor: str | None) -> Response[bytes]:
    return json_response(msgspec.json.encode({"data": payments, "next_cursor": cursor}))


router = Router(
    path="/",
    route_handlers=[authorize, confirm, capture, void, refund, read_payment, read_payments],
    exception_handlers={Refused: lambda _, refused: json_response(OWN.error(refused), refused.status)},
)
