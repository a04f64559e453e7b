"""Dead letters: what could not be handled, why, and what operators do with it."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, JSONBody, QueryParameter
from msgspec import Meta

from services.gateway.domain import Access, Principal
from services.gateway.routes.answers import READ, REPAIR, RETRY, carry_out, documented, principal_of, show
from shared.contracts.dead_letters import (
    CHOSEN_MAX,
    PAGE_ROWS_MAX,
    RATE_MAX_PER_SECOND,
    Action,
    DiscardLetter,
    EditLetter,
    Filter,
    GetLetter,
    GetRedrive,
    GroupLetters,
    Groups,
    LetterDetail,
    LetterPage,
    LetterStatus,
    LetterView,
    ListLetters,
    ListRedrives,
    RedrivePage,
    RedriveView,
    RetryLetter,
    StartRedrive,
    StopRedrive,
)
from shared.received import HttpRequest

REASON_MAX_CHARACTERS = 2_000
Reason = Annotated[str, Meta(min_length=1, max_length=REASON_MAX_CHARACTERS)]


@get(
    "/admin/dead-letters",
    before_request=READ,
    tags=["Dead letters"],
    summary="List dead letters, the newest first",
    responses=documented(200, LetterPage, "A page; ask for the next one with before=next.", 400, 422, keyed=False),
)
async def list_letters(
    request: HttpRequest,
    status: Annotated[LetterStatus | None, QueryParameter(name="status", required=False)] = None,
    service: Annotated[str | None, QueryParameter(name="service", max_length=50, required=False)] = None,
    type: Annotated[str | None, QueryParameter(name="type", max_length=200, required=False)] = None,
    fingerprint: Annotated[str | None, QueryParameter(name="fingerprint", max_length=64, required=False)] = None,
    order_id: Annotated[UUID | None, QueryParameter(name="order_id", required=False)] = None,
    correlation_id: Annotated[str | None, QueryParameter(name="correlation_id", max_length=200, required=False)] = None,
    message_id: Annotated[UUID | None, QueryParameter(name="message_id", required=False)] = None,
    text: Annotated[str | None, QueryParameter(name="text", max_length=500, required=False)] = None,
    unreadable: Annotated[bool, QueryParameter(name="unreadable", required=False)] = False,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = 50,
) -> Response[Any]:
    chosen = Filter(
        service=service,
        message_type=type,
        fingerprint=fingerprint,
        order_id=order_id,
        correlation_id=correlation_id,
        message_id=message_id,
        text=text,
    )
    return await show(request, ListLetters(status=status, chosen=chosen, unreadable=unreadable, before=before, limit=limit))


@get(
    "/admin/dead-letters/groups",
    before_request=READ,
    tags=["Dead letters"],
    summary="Count dead letters by what went wrong, the largest group first",
    responses=documented(200, Groups, "Letters that failed alike, together.", 400, 422, keyed=False),
)
async def group_letters(
    request: HttpRequest,
    status: Annotated[LetterStatus, QueryParameter(name="status", required=False)] = LetterStatus.WAITING,
    unreadable: Annotated[bool, QueryParameter(name="unreadable", required=False)] = False,
) -> Response[Any]:
    return await show(request, GroupLetters(status=status, unreadable=unreadable))


@get(
    "/admin/dead-letters/{letter_id:uuid}",
    before_request=READ,
    tags=["Dead letters"],
    summary="Read a dead letter with its history, and what its service says of it",
    responses=documented(200, LetterDetail, "What is sealed or secret is shown only as such.", keyed=False),
)
async def read_letter(request: HttpRequest, letter_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetLetter(letter_id=letter_id))


class RetryBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why it should go well this time, if anybody wants to know."""

    reason: Annotated[str, Meta(max_length=REASON_MAX_CHARACTERS)] = ""


@post(
    "/admin/dead-letters/{letter_id:uuid}/retry",
    before_request=RETRY,
    status_code=200,
    tags=["Dead letters"],
    summary="Send a dead letter once more with its own id",
    responses=documented(200, LetterView, "It is on its way; what of it has happened does not happen twice."),
)
async def retry_letter(request: HttpRequest, letter_id: FromPath[UUID], data: JSONBody[RetryBody]) -> Response[Any]:
    return await carry_out(request, lambda _: RetryLetter(letter_id=letter_id, reason=data.reason), data=data)


class EditBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The whole body as it should have been, and why; what is shown as sealed stays what it was."""

    body: dict[str, Any]
    reason: Reason


@post(
    "/admin/dead-letters/{letter_id:uuid}/edit",
    before_request=REPAIR,
    status_code=200,
    tags=["Dead letters"],
    summary="Send a changed message in a dead letter's place",
    responses=documented(
        200, LetterView, "The letter is put away; the other bears a new id. Refused when a provider may have been called."
    ),
)
async def edit_letter(request: HttpRequest, letter_id: FromPath[UUID], data: JSONBody[EditBody]) -> Response[Any]:
    return await carry_out(request, lambda _: EditLetter(letter_id=letter_id, body=data.body, reason=data.reason), data=data)


class DiscardBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why it is put away."""

    reason: Reason


@post(
    "/admin/dead-letters/{letter_id:uuid}/discard",
    before_request=REPAIR,
    status_code=200,
    tags=["Dead letters"],
    summary="Put a dead letter away for ever",
    responses=documented(200, LetterView, "Whoever waits for it is told; no copy of it is carried out any more."),
)
async def discard_letter(request: HttpRequest, letter_id: FromPath[UUID], data: JSONBody[DiscardBody]) -> Response[Any]:
    return await carry_out(request, lambda _: DiscardLetter(letter_id=letter_id, reason=data.reason), data=data)


class RedriveBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is done with which letters: some that are named, or all that fit a filter; a dry run only counts them."""

    action: Action
    ids: Annotated[list[UUID], Meta(min_length=1, max_length=CHOSEN_MAX)] | None = None
    filter: Filter | None = None
    rate_per_second: Annotated[float, Meta(gt=0, le=RATE_MAX_PER_SECOND)] = 10.0
    dry_run: bool = False
    reason: Annotated[str, Meta(max_length=REASON_MAX_CHARACTERS)] = ""


def check_redrive(principal: Principal, body: RedriveBody) -> None:
    """Refuse to discard many dead letters for a caller who may not discard one."""
    if body.action is Action.DISCARD:
        principal.require(Access.REPAIR)


@post(
    "/admin/dead-letters/redrives",
    before_request=RETRY,
    tags=["Dead letters"],
    summary="Retry or discard many dead letters at a rate",
    responses=documented(201, RedriveView, "It goes on by itself until it is done or stopped."),
)
async def start_redrive(request: HttpRequest, data: JSONBody[RedriveBody]) -> Response[Any]:
    check_redrive(principal_of(request), data)
    command = StartRedrive(
        action=data.action,
        ids=None if data.ids is None else tuple(data.ids),
        chosen=data.filter,
        rate_per_second=data.rate_per_second,
        dry_run=data.dry_run,
        reason=data.reason,
    )
    return await carry_out(request, lambda _: command, data=data)


@get(
    "/admin/dead-letters/redrives",
    before_request=READ,
    tags=["Dead letters"],
    summary="List the latest redrives",
    responses=documented(200, RedrivePage, "The newest first.", 400, 422, keyed=False),
)
async def list_redrives(
    request: HttpRequest,
    limit: Annotated[int, QueryParameter(name="limit", ge=1, le=PAGE_ROWS_MAX, required=False)] = 50,
) -> Response[Any]:
    return await show(request, ListRedrives(limit=limit))


@get(
    "/admin/dead-letters/redrives/{redrive_id:uuid}",
    before_request=READ,
    tags=["Dead letters"],
    summary="Read how far a redrive is",
    responses=documented(200, RedriveView, "How many there were, and what came of them so far.", keyed=False),
)
async def read_redrive(request: HttpRequest, redrive_id: FromPath[UUID]) -> Response[Any]:
    return await show(request, GetRedrive(redrive_id=redrive_id))


class StopBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why it is stopped, if anybody wants to know."""

    reason: Annotated[str, Meta(max_length=REASON_MAX_CHARACTERS)] = ""


@post(
    "/admin/dead-letters/redrives/{redrive_id:uuid}/stop",
    before_request=RETRY,
    status_code=200,
    tags=["Dead letters"],
    summary="Stop a redrive where it is",
    responses=documented(200, RedriveView, "What was sent is sent; the rest waits on."),
)
async def stop_redrive(request: HttpRequest, redrive_id: FromPath[UUID], data: JSONBody[StopBody]) -> Response[Any]:
    return await carry_out(request, lambda _: StopRedrive(redrive_id=redrive_id, reason=data.reason), data=data)


ROUTES = [
    list_letters,
    group_letters,
    list_redrives,
    read_redrive,
    start_redrive,
    stop_redrive,
    read_letter,
    retry_letter,
    edit_letter,
    discard_letter,
]
