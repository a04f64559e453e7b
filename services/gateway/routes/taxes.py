"""Tax: rules, registrations and certificates; recording a snapshot's tax, and exporting what is recorded."""

import hashlib
from collections.abc import AsyncIterator
from datetime import date
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, delete, get, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, JSONBody, QueryParameter
from litestar.response import Stream
from msgspec import Meta

from services.gateway.routes.answers import ADMIN, CHECKOUT, FINANCE, READ, ask, carry_out, documented, show
from shared.contracts.fulfillment.tax import (
    PAGE_ROWS_MAX,
    DeleteExemption,
    DeleteNexus,
    DeleteRule,
    ExemptionBody,
    ExemptionPage,
    ExemptionView,
    ExportDone,
    ExportPage,
    ExportPiece,
    ExportsView,
    FinalizeTax,
    GetTax,
    GoneView,
    ListExemptions,
    ListExports,
    ListNexus,
    ListRules,
    NexusBody,
    NexusesView,
    NexusView,
    PutExemption,
    PutNexus,
    PutRule,
    RuleBody,
    RulePage,
    RuleView,
    TaxDocumentView,
    TaxView,
)
from shared.errors import Unavailable
from shared.ids import new_id
from shared.messages import Query
from shared.received import HttpRequest

CSV_TYPE = "text/csv"
# A piece that nobody answers for is asked for again; then the download breaks off, and its reader sees that it did.
PIECE_ATTEMPTS_MAX = 3

ExportFormat = Literal["itemized", "oss", "bzst", "us_states"]
TaxHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]

# Rules


@post(
    "/admin/tax/rules",
    before_request=ADMIN,
    status_code=200,
    tags=["Tax"],
    summary="Add a tax rule",
    responses=documented(200, RuleView, "The rule and its version."),
)
async def make_rule(request: HttpRequest, data: JSONBody[RuleBody]) -> Response[Any]:
    rule_id = new_id()
    return await carry_out(request, lambda _: PutRule(rule_id=rule_id, rule=data), data=data)


@put(
    "/admin/tax/rules/{rule_id:uuid}",
    before_request=ADMIN,
    tags=["Tax"],
    summary="Change a tax rule: what the old version led to stays as it is",
    responses=documented(200, RuleView, "The rule and its new version."),
)
async def change_rule(request: HttpRequest, rule_id: FromPath[UUID], data: JSONBody[RuleBody]) -> Response[Any]:
    return await carry_out(request, lambda _: PutRule(rule_id=rule_id, rule=data, change=True), data=data)


@delete(
    "/admin/tax/rules/{rule_id:uuid}",
    before_request=ADMIN,
    status_code=200,
    tags=["Tax"],
    summary="Take a tax rule out of use",
    responses=documented(200, GoneView, "It is out of use."),
)
async def delete_rule(request: HttpRequest, rule_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: DeleteRule(rule_id=rule_id))


@get(
    "/admin/tax/rules",
    before_request=READ,
    tags=["Tax"],
    summary="List tax rules in use",
    responses=documented(200, RulePage, "A page; ask for the next one with after=next.", 400, 422, keyed=False),
)
async def list_rules(
    request: HttpRequest,
    country: Annotated[str | None, QueryParameter(name="country", pattern="^[A-Z]{2}$", required=False)] = None,
    tax_code: Annotated[str | None, QueryParameter(name="tax_code", max_length=60, required=False)] = None,
    on: Annotated[date | None, QueryParameter(name="on", required=False)] = None,
    after: Annotated[UUID | None, QueryParameter(name="after", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListRules(country=country, tax_code=tax_code, on=on, after=after, limit=limit))


# Registrations


@post(
    "/admin/tax/nexus",
    before_request=ADMIN,
    status_code=200,
    tags=["Tax"],
    summary="Say where the store collects tax, or watch where it may have to",
    responses=documented(200, NexusView, "The registration or watch."),
)
async def make_nexus(request: HttpRequest, data: JSONBody[NexusBody]) -> Response[Any]:
    nexus_id = new_id()
    return await carry_out(request, lambda _: PutNexus(nexus_id=nexus_id, nexus=data), data=data)


@put(
    "/admin/tax/nexus/{nexus_id:uuid}",
    before_request=ADMIN,
    tags=["Tax"],
    summary="Change a registration or watch",
    responses=documented(200, NexusView, "The registration or watch as it is now."),
)
async def change_nexus(request: HttpRequest, nexus_id: FromPath[UUID], data: JSONBody[NexusBody]) -> Response[Any]:
    return await carry_out(request, lambda _: PutNexus(nexus_id=nexus_id, nexus=data, change=True), data=data)


@delete(
    "/admin/tax/nexus/{nexus_id:uuid}",
    before_request=ADMIN,
    status_code=200,
    tags=["Tax"],
    summary="Take a registration or watch back",
    responses=documented(200, GoneView, "It is out of use."),
)
async def delete_nexus(request: HttpRequest, nexus_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: DeleteNexus(nexus_id=nexus_id))


@get(
    "/admin/tax/nexus",
    before_request=READ,
    tags=["Tax"],
    summary="List where the store collects tax, and how near it is to where it must",
    responses=documented(200, NexusesView, "All of them.", keyed=False),
)
async def list_nexus(request: HttpRequest) -> Response[Any]:
    return await show(request, ListNexus())


# Certificates


@post(
    "/admin/tax/exemptions",
    before_request=ADMIN,
    status_code=200,
    tags=["Tax"],
    summary="Keep a customer's exemption certificate",
    responses=documented(200, ExemptionView, "The certificate."),
)
async def make_exemption(request: HttpRequest, data: JSONBody[ExemptionBody]) -> Response[Any]:
    exemption_id = new_id()
    return await carry_out(request, lambda _: PutExemption(exemption_id=exemption_id, exemption=data), data=data)


@put(
    "/admin/tax/exemptions/{exemption_id:uuid}",
    before_request=ADMIN,
    tags=["Tax"],
    summary="Change an exemption certificate",
    responses=documented(200, ExemptionView, "The certificate as it is now."),
)
async def change_exemption(request: HttpRequest, exemption_id: FromPath[UUID], data: JSONBody[ExemptionBody]) -> Response[Any]:
    return await carry_out(request, lambda _: PutExemption(exemption_id=exemption_id, exemption=data, change=True), data=data)


@delete(
    "/admin/tax/exemptions/{exemption_id:uuid}",
    before_request=ADMIN,
    status_code=200,
    tags=["Tax"],
    summary="Take an exemption certificate out of use",
    responses=documented(200, GoneView, "It is out of use."),
)
async def delete_exemption(request: HttpRequest, exemption_id: FromPath[UUID]) -> Response[Any]:
    return await carry_out(request, lambda _: DeleteExemption(exemption_id=exemption_id))


@get(
    "/admin/tax/exemptions",
    before_request=READ,
    tags=["Tax"],
    summary="List exemption certificates",
    responses=documented(200, ExemptionPage, "A page; ask for the next one with after=next.", 400, 422, keyed=False),
)
async def list_exemptions(
    request: HttpRequest,
    customer_id: Annotated[UUID | None, QueryParameter(name="customer_id", required=False)] = None,
    after: Annotated[UUID | None, QueryParameter(name="after", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListExemptions(customer_id=customer_id, after=after, limit=limit))


# Recorded


class FinalizeBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which snapshot's tax to record; the hash, if sent, must be the quoted one."""

    snapshot_id: UUID
    tax_hash: TaxHash | None = None


@post(
    "/checkout/orders/{order_id:uuid}/tax/finalize",
    before_request=CHECKOUT,
    status_code=200,
    tags=["Tax"],
    summary="Record a snapshot's tax for good",
    responses=documented(
        200, TaxDocumentView, "What is recorded, or will be once the snapshot is paid (`recorded`: false); again it is the same."
    ),
)
async def finalize(request: HttpRequest, order_id: FromPath[UUID], data: JSONBody[FinalizeBody]) -> Response[Any]:
    return await carry_out(
        request, lambda _: FinalizeTax(order_id=order_id, snapshot_id=data.snapshot_id, tax_hash=data.tax_hash), data=data
    )


@get(
    "/admin/orders/{order_id:uuid}/tax",
    before_request=READ,
    tags=["Tax"],
    summary="Read what is recorded of an order's tax",
    responses=documented(200, TaxView, "The sale, and what reversed or reinstated it.", keyed=False),
)
async def get_tax(request: HttpRequest, order_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetTax(order_id=order_id))


# Exported

_csv = ResponseSpec(str, description="The export, streamed.", media_type=CSV_TYPE, generate_examples=False)


@get(
    "/admin/tax/reports/export",
    before_request=FINANCE,
    tags=["Tax"],
    summary="Export what is recorded of a period",
    media_type=CSV_TYPE,
    responses={**documented(200, str, "The export.", 400, 409, 422, keyed=False), 200: _csv},
)
async def export(
    request: HttpRequest,
    first_day: Annotated[date, QueryParameter(name="from")],
    last_day: Annotated[date, QueryParameter(name="to")],
    format: Annotated[ExportFormat, QueryParameter(name="format", required=False)] = "itemized",
) -> Stream:
    return await exported(request, first_day, last_day, format)


async def exported(request: HttpRequest, first_day: date, last_day: date, format: ExportFormat) -> Stream:
    """Stream what is recorded of a period."""
    page = ExportPage(first_day=first_day, last_day=last_day, format=format)
    first = await _piece(request, page)
    name = f"tax-{format}-{first_day}-{last_day}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Tender-Period": "closed" if first.closed else "open"}
    return Stream(_pieces(request, page, first), media_type=CSV_TYPE, headers=headers)


async def _pieces(request: HttpRequest, page: ExportPage, piece: ExportPiece) -> AsyncIterator[bytes]:
    digest, rows = hashlib.sha256(), 0
    while True:
        text = piece.text.encode()
        digest.update(text)
        rows += piece.rows
        if piece.next is None:
            done = ExportDone(first_day=page.first_day, last_day=page.last_day, format=page.format, rows=rows, sha256=digest.hexdigest())
            # Before the last piece goes out: an export that is not what it was before breaks off.
            await _asked(request, done)
            yield text
            return
        yield text
        piece = await _piece(request, msgspec.structs.replace(page, cursor=piece.next))


async def _piece(request: HttpRequest, page: ExportPage) -> ExportPiece:
    return msgspec.json.decode(await _asked(request, page), type=ExportPiece)


async def _asked(request: HttpRequest, query: Query) -> bytes:
    for attempt in range(PIECE_ATTEMPTS_MAX):
        try:
            return await ask(request, query)
        except Unavailable:
            if attempt + 1 == PIECE_ATTEMPTS_MAX:
                raise
    raise AssertionError("the last attempt returns or raises")


@get(
    "/admin/tax/exports",
    before_request=READ,
    tags=["Tax"],
    summary="List the exports that were made, with their checksums",
    responses=documented(200, ExportsView, "The latest first.", keyed=False),
)
async def list_exports(request: HttpRequest) -> Response[Any]:
    return await show(request, ListExports())


ROUTES = [
    make_rule,
    change_rule,
    delete_rule,
    list_rules,
    make_nexus,
    change_nexus,
    delete_nexus,
    list_nexus,
    make_exemption,
    change_exemption,
    delete_exemption,
    list_exemptions,
    finalize,
    get_tax,
    export,
    list_exports,
]
