"""Operations: what became of a request whose answer was not awaited."""

from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from litestar import Response, get
from litestar.params import FromPath

from services.gateway.domain import Access, Principal
from services.gateway.handlers.commands import SECRET_TYPES, SUCCESS_STATUS
from services.gateway.handlers.gateway import REQUIRES_ACTION
from services.gateway.routes.answers import ANYONE, documented, gateway_of, principal_of
from services.gateway.store import Kept
from shared.errors import NotFound
from shared.received import HttpRequest


class OperationStep(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a composed operation."""

    operation_id: UUID
    type: str
    status: str


class OperationAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer an operation ended with."""

    status: int
    body: Any


class OperationView(msgspec.Struct, frozen=True, kw_only=True):
    """An operation and, once it has ended, its answer."""

    operation_id: UUID
    type: str
    status: str
    created_at: datetime
    correlation_id: str
    response: OperationAnswer | None
    steps: list[OperationStep]


@get(
    "/operations/{operation_id:uuid}",
    before_request=ANYONE,
    tags=["Operations"],
    summary="Ask what became of a request",
    responses=documented(
        200, OperationView, "The operation and, once it has ended or its customer must act (`requires_action`), its answer.", keyed=False
    ),
)
async def get_operation(request: HttpRequest, operation_id: FromPath[UUID]) -> Response[Any]:
    gateway = gateway_of(request)
    found = await gateway.look(operation_id)
    if found is None or not _may_see(principal_of(request), found[0]):
        raise NotFound(f"There is no operation {operation_id}.")
    kept, steps = found
    stored = gateway.idempotency.body_of(kept)
    body = None if stored is None else gateway.revealed(kept.command_type, kept.response_code or 0, stored)
    code, interim = kept.response_code or 0, gateway.interim(kept, steps)
    if interim is not None:
        code, body = SUCCESS_STATUS[kept.command_type], interim
    return Response(
        OperationView(
            operation_id=kept.operation_id,
            type=kept.command_type,
            status=REQUIRES_ACTION if interim is not None else _status(kept),
            created_at=kept.created_at,
            correlation_id=kept.correlation_id,
            response=None if body is None else OperationAnswer(status=code, body=msgspec.Raw(body)),
            steps=[OperationStep(operation_id=s.operation_id, type=s.command_type, status=_status(s)) for s in steps],
        ),
        headers={} if kept.completed or interim is not None else {"Retry-After": "1"},
    )


def _status(kept: Kept) -> str:
    return "completed" if kept.completed else "in_progress"


def _may_see(principal: Principal, kept: Kept) -> bool:
    needed = Access.ADMIN if kept.command_type in SECRET_TYPES else Access.READ
    same = (kept.store_id, kept.environment) == (principal.store_id, principal.environment)
    return kept.scope == principal.scope or (same and principal.may(needed))


ROUTES = [get_operation]
