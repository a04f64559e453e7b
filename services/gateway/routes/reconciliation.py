"""Reconciliation: runs that compare our books with a provider's, what differs, and how an operator settles it."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.gateway.routes.answers import FINANCE, READ, carry_out, documented, show
from shared.contracts.books import Domain
from shared.contracts.fulfillment.shipping import DecideLabel, LabelView, ListUnknownLabels, UnknownLabelPage
from shared.contracts.orders import ShortText
from shared.contracts.payments import DecideOutcome, IntentView, ListUnknown, UnknownPage
from shared.contracts.reconciler import (
    PAGE_ROWS_MAX,
    DriftPage,
    DriftView,
    GetRun,
    ListDrift,
    ListRuns,
    ResolveDrift,
    RunPage,
    RunView,
    StartRun,
)
from shared.contracts.settlements import (
    LINES_MAX,
    SHA256,
    UNSETTLED_ROWS_MAX,
    ImportSettlements,
    ListUnsettled,
    SettlementLine,
    SettlementsView,
    UnsettledPage,
)
from shared.errors import Invalid
from shared.received import HttpRequest

REASON_MAX_CHARACTERS = 2_000
Moment = Annotated[datetime, Meta(tz=True)]


class RunBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which books to compare, from `since` on and before `until`."""

    domain: Domain
    provider: ShortText
    since: Moment
    until: Moment


@post(
    "/admin/reconciliation/runs",
    before_request=FINANCE,
    tags=["Reconciliation"],
    summary="Compare our books of a time with a provider's",
    responses=documented(201, RunView, "The run; it goes on by itself."),
)
async def start_run(request: HttpRequest, data: JSONBody[RunBody]) -> Response[Any]:
    return await carry_out(request, lambda _: StartRun(**msgspec.structs.asdict(data)), data=data)


@get(
    "/admin/reconciliation/runs",
    before_request=READ,
    tags=["Reconciliation"],
    summary="List runs, the newest first",
    responses=documented(200, RunPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_runs(
    request: HttpRequest,
    domain: Annotated[Domain | None, QueryParameter(name="domain", required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListRuns(domain=domain, before=before, limit=limit))


@get(
    "/admin/reconciliation/runs/{run_id:uuid}",
    before_request=READ,
    tags=["Reconciliation"],
    summary="Read a run",
    responses=documented(200, RunView, "How far it is and what it found.", keyed=False),
)
async def read_run(request: HttpRequest, run_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetRun(run_id=run_id))


@get(
    "/admin/reconciliation/drift",
    before_request=READ,
    tags=["Reconciliation"],
    summary="List differences between our books and a provider's, the newest first",
    responses=documented(200, DriftPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_drift(
    request: HttpRequest,
    status: Annotated[Literal["open", "healed", "resolved"] | None, QueryParameter(name="status", required=False)] = None,
    domain: Annotated[Domain | None, QueryParameter(name="domain", required=False)] = None,
    type: Annotated[
        Literal["missing_locally", "missing_at_provider", "amount", "currency", "status", "duplicate", "unreadable"] | None,
        QueryParameter(name="type", required=False),
    ] = None,
    run_id: Annotated[UUID | None, QueryParameter(name="run_id", required=False)] = None,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListDrift(status=status, domain=domain, drift_type=type, run_id=run_id, before=before, limit=limit))


class ResolveBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is decided, and why: accepted as it is, or the provider is right and our books learn what it says."""

    action: Literal["accepted", "provider_is_right"]
    reason: Annotated[str, Meta(min_length=1, max_length=REASON_MAX_CHARACTERS)]


@post(
    "/admin/reconciliation/drift/{drift_id:uuid}/resolve",
    before_request=FINANCE,
    status_code=200,
    tags=["Reconciliation"],
    summary="Settle a difference, with the reason",
    responses=documented(200, DriftView, "The difference, settled."),
)
async def resolve_drift(request: HttpRequest, drift_id: FromPath[UUID], data: JSONBody[ResolveBody]) -> Response[Any]:
    return await carry_out(request, lambda _: ResolveDrift(drift_id=drift_id, action=data.action, reason=data.reason), data=data)


class SettlementsBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A piece of a provider's payout report: whose, of which file, and its lines about payments."""

    provider: ShortText
    file_sha256: SHA256
    lines: Annotated[list[SettlementLine], Meta(min_length=1, max_length=LINES_MAX)]


@post(
    "/admin/reconciliation/settlements",
    before_request=FINANCE,
    status_code=200,
    tags=["Reconciliation"],
    summary="Match a piece of a provider's payout report with the ledger",
    responses=documented(200, SettlementsView, "What fits, and what does not; that is a difference now."),
)
async def import_settlements(request: HttpRequest, data: JSONBody[SettlementsBody]) -> Response[Any]:
    piece = ImportSettlements(provider=data.provider, file_sha256=data.file_sha256, lines=tuple(data.lines))
    return await carry_out(request, lambda _: piece, data=data)


@get(
    "/admin/reconciliation/unsettled",
    before_request=READ,
    tags=["Reconciliation"],
    summary="List captures and refunds of a time that no payout report has mentioned, the oldest first",
    responses=documented(200, UnsettledPage, "A page; ask for the next one with after=next.", 400, 422, keyed=False),
)
async def list_unsettled(
    request: HttpRequest,
    provider: Annotated[str, QueryParameter(name="provider", max_length=200)],
    since: Annotated[datetime, QueryParameter(name="since")],
    until: Annotated[datetime, QueryParameter(name="until")],
    after: Annotated[UUID | None, QueryParameter(name="after", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=UNSETTLED_ROWS_MAX, required=False)] = UNSETTLED_ROWS_MAX,
) -> Response[Any]:
    if since.tzinfo is None or until.tzinfo is None:
        raise Invalid("Both times need their offset from UTC.", {"field": "since"})
    return await show(request, ListUnsettled(provider=provider, since=since, until=until, after=after, limit=limit))


@get(
    "/admin/unknown-outcomes",
    before_request=READ,
    tags=["Reconciliation"],
    summary="List payment operations whose outcome is not known, the oldest first, with what was tried",
    responses=documented(200, UnknownPage, "A page; ask for the next one with after=next.", 400, 422, keyed=False),
)
async def list_unknown(
    request: HttpRequest,
    provider: Annotated[str | None, QueryParameter(name="provider", max_length=60, required=False)] = None,
    after: Annotated[UUID | None, QueryParameter(name="after", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListUnknown(provider=provider, after=after, limit=limit))


class DecisionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of the operation, and how that is known; the provider's name for the payment where it was never heard."""

    outcome: Literal["succeeded", "failed"]
    evidence: Annotated[str, Meta(min_length=1, max_length=REASON_MAX_CHARACTERS)]
    provider_payment_id: ShortText | None = None


@post(
    "/admin/unknown-outcomes/{transaction_id:uuid}/decide",
    before_request=FINANCE,
    status_code=200,
    tags=["Reconciliation"],
    summary="Settle an operation whose outcome nobody learnt",
    responses=documented(200, IntentView, "The payment after it; the key that waited has its answer."),
)
async def decide_outcome(request: HttpRequest, transaction_id: FromPath[UUID], data: JSONBody[DecisionBody]) -> Response[Any]:
    decided = DecideOutcome(transaction_id=transaction_id, **msgspec.structs.asdict(data))
    return await carry_out(request, lambda _: decided, data=data)


@get(
    "/admin/unknown-outcomes/labels",
    before_request=READ,
    tags=["Reconciliation"],
    summary="List labels of which nobody knows whether they were bought, the oldest first, with what was tried",
    responses=documented(200, UnknownLabelPage, "A page; ask for the next one with after=next.", 400, 422, keyed=False),
)
async def list_unknown_labels(
    request: HttpRequest,
    after: Annotated[UUID | None, QueryParameter(name="after", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = PAGE_ROWS_MAX,
) -> Response[Any]:
    return await show(request, ListUnknownLabels(after=after, limit=limit))


class LabelDecisionBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """That the label was not bought, and how that is known; one that was is found by its carrier."""

    outcome: Literal["failed"]
    evidence: Annotated[str, Meta(min_length=1, max_length=REASON_MAX_CHARACTERS)]


@post(
    "/admin/unknown-outcomes/labels/{label_id:uuid}/decide",
    before_request=FINANCE,
    status_code=200,
    tags=["Reconciliation"],
    summary="Say of a label that it was not bought",
    responses=documented(200, LabelView, "The label; the key that waited has its answer, and another can be bought."),
)
async def decide_label(request: HttpRequest, label_id: FromPath[UUID], data: JSONBody[LabelDecisionBody]) -> Response[Any]:
    return await carry_out(request, lambda _: DecideLabel(label_id=label_id, evidence=data.evidence), data=data)


ROUTES = [
    start_run,
    list_runs,
    read_run,
    list_drift,
    resolve_drift,
    import_settlements,
    list_unsettled,
    list_unknown,
    decide_outcome,
    list_unknown_labels,
    decide_label,
]
