"""Reconciliation: runs, the differences they found, and what is decided about them."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import FINANCE, PAGE_ROWS, Facts, act, ask, form_of, page, read, signed_in
from services.gateway.routes.reconciliation import ResolveBody, RunBody
from shared.contracts.books import Domain
from shared.contracts.reconciler import DriftPage, ListDrift, ListRuns, ResolveDrift, RunPage, StartRun
from shared.received import HttpRequest

HERE = "/console/reconciliation"
Narrow = Annotated[str, QueryParameter(max_length=40, required=False)]
TYPES = ("missing_locally", "missing_at_provider", "amount", "currency", "status", "duplicate", "unreadable")


@get("/reconciliation", before_request=signed_in)
async def show_reconciliation(
    request: HttpRequest,
    status: Narrow = "open",
    domain: Narrow = "",
    type: Narrow = "",
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    meant = msgspec.convert(domain, Domain) if domain else None

    async def load() -> Facts:
        drift = ListDrift(
            status=None if status == "all" else status or "open", domain=meant, drift_type=type or None, before=before, limit=PAGE_ROWS
        )
        return {
            "drift": await ask(request, drift, DriftPage),
            "runs": await ask(request, ListRuns(domain=meant, limit=10), RunPage),
            "status": status or "open",
            "domains": [each.value for each in Domain],
            "types": TYPES,
        }

    return await page(request, "reconciliation.html", load)


@post("/reconciliation/runs", before_request=FINANCE)
async def start_run(request: HttpRequest) -> Response[Any]:
    form = await form_of(request)
    times = {name: f"{form.get(name, '')}T00:00:00Z" for name in ("since", "until") if form.get(name)}
    body = read(form, RunBody, **times)
    return await act(request, form, StartRun(**msgspec.structs.asdict(body)), done="The run has begun.", back=HERE)


@post("/reconciliation/drift/{drift_id:uuid}/resolve", before_request=FINANCE)
async def resolve(request: HttpRequest, drift_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    body = read(form, ResolveBody)
    command = ResolveDrift(drift_id=drift_id, action=body.action, reason=body.reason)
    return await act(request, form, command, done="The difference is settled.", back=HERE)


ROUTES = [show_reconciliation, start_run, resolve]
