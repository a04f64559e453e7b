"""Dead letters: grouped by what went wrong, one understood, mended and sent once more, many retried at a rate."""

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath, QueryParameter

from services.gateway.console.pages import PAGE_ROWS, REPAIR, RETRY, Facts, Flash, act, ask, form_of, html, page, read, signed_in
from services.gateway.console.rendering import pretty, query
from services.gateway.domain import Role, parsed
from services.gateway.routes.answers import principal_of
from services.gateway.routes.dead_letters import DiscardBody, EditBody, RedriveBody, RetryBody, check_redrive
from shared.contracts.dead_letters import (
    RATE_MAX_PER_SECOND,
    Change,
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
    ListLetters,
    ListRedrives,
    RedrivePage,
    RedriveView,
    RetryLetter,
    StartRedrive,
    StopRedrive,
)
from shared.differing import changes
from shared.errors import Invalid, Refusal
from shared.received import HttpRequest

HERE = "/console/dead-letters"
REDRIVES_SHOWN = 5
Narrow = Annotated[str, QueryParameter(max_length=500, required=False)]
Unreadable = Annotated[bool, QueryParameter(name="unreadable", required=False)]


def _unreadable(request: HttpRequest, wanted: bool) -> bool:
    # Letters that do not say whose they are are an operator's business.
    return wanted and principal_of(request).role is Role.OPERATOR


@get("/dead-letters", before_request=signed_in)
async def show_groups(request: HttpRequest, unreadable: Unreadable = False) -> Response[Any]:
    async def load() -> Facts:
        asked = GroupLetters(unreadable=_unreadable(request, unreadable))
        return {
            "groups": await ask(request, asked, Groups),
            "redrives": await ask(request, ListRedrives(limit=REDRIVES_SHOWN), RedrivePage),
            "unreadable": asked.unreadable,
            "operator": principal_of(request).role is Role.OPERATOR,
            "rate_max": RATE_MAX_PER_SECOND,
        }

    return await page(request, "letters_groups.html", load)


@get("/dead-letters/list", before_request=signed_in)
async def list_letters(
    request: HttpRequest,
    status: Narrow = "waiting",
    service: Narrow = "",
    type: Narrow = "",
    fingerprint: Narrow = "",
    text: Narrow = "",
    order_id: Annotated[UUID | None, QueryParameter(name="order_id", required=False)] = None,
    unreadable: Unreadable = False,
    before: Annotated[UUID | None, QueryParameter(name="before", required=False)] = None,
) -> Response[Any]:
    meant = None if status == "all" else msgspec.convert(status or "waiting", LetterStatus)
    chosen = Filter(
        service=service or None, message_type=type or None, fingerprint=fingerprint or None, order_id=order_id, text=text.strip() or None
    )

    async def load() -> Facts:
        asked = ListLetters(status=meant, chosen=chosen, unreadable=_unreadable(request, unreadable), before=before, limit=PAGE_ROWS)
        return {
            "found": await ask(request, asked, LetterPage),
            "status": status or "waiting",
            "statuses": [each.value for each in LetterStatus],
            "rate_max": RATE_MAX_PER_SECOND,
            "narrowed": chosen != Filter(),
        }

    return await page(request, "letters_list.html", load)


@get("/dead-letters/{letter_id:uuid}", before_request=signed_in)
async def show_letter(request: HttpRequest, letter_id: FromPath[UUID]) -> Response[Any]:
    async def load() -> Facts:
        return {"detail": await ask(request, GetLetter(letter_id=letter_id), LetterDetail)}

    return await page(request, "letter.html", load)


@post("/dead-letters/{letter_id:uuid}/retry", before_request=RETRY)
async def retry(request: HttpRequest, letter_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    command = RetryLetter(letter_id=letter_id, reason=read(form, RetryBody).reason)
    return await act(request, form, command, done="It is on its way once more, with its own id.", back=f"{HERE}/{letter_id}")


@post("/dead-letters/{letter_id:uuid}/discard", before_request=REPAIR)
async def discard(request: HttpRequest, letter_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    command = DiscardLetter(letter_id=letter_id, reason=read(form, DiscardBody).reason)
    return await act(request, form, command, done="It is put away for ever.", back=f"{HERE}/{letter_id}")


@get("/dead-letters/{letter_id:uuid}/edit", before_request=REPAIR)
async def begin_editing(request: HttpRequest, letter_id: FromPath[UUID]) -> Response[Any]:
    detail = await ask(request, GetLetter(letter_id=letter_id), LetterDetail)
    if detail.body is None:
        raise Invalid("What is no JSON cannot be edited here; discard it, and have whoever sent it send it anew.", {})
    return _editor(request, detail, body=pretty(detail.body), reason="", difference=None, wrong="")


@post("/dead-letters/{letter_id:uuid}/edit", before_request=REPAIR)
async def edit(request: HttpRequest, letter_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    detail = await ask(request, GetLetter(letter_id=letter_id), LetterDetail)
    text, reason = form.get("body", ""), form.get("reason", "")
    try:
        body = parsed(text.encode())
    except Refusal as refusal:
        return _editor(request, detail, body=text, reason=reason, difference=None, wrong=refusal.detail)
    except (ValueError, RecursionError) as wrong:
        return _editor(request, detail, body=text, reason=reason, difference=None, wrong=f"This is no JSON: {wrong}")
    difference = list(changes(detail.body, body))
    if form.get("step") != "send":
        return _editor(request, detail, body=text, reason=reason, difference=difference, wrong="")
    checked = msgspec.convert({"body": body, "reason": reason}, EditBody)
    command = EditLetter(letter_id=letter_id, body=checked.body, reason=checked.reason)
    return await act(request, form, command, done="The changed message is on its way, in its place.", back=f"{HERE}/{letter_id}")


def _editor(
    request: HttpRequest, detail: LetterDetail, *, body: str, reason: str, difference: list[Change] | None, wrong: str
) -> Response[Any]:
    facts = {"detail": detail, "body": body, "reason": reason, "difference": difference, "wrong": wrong}
    return html(request, "letter_edit.html", facts, status=422 if wrong else 200)


@post("/dead-letters/redrives", before_request=RETRY)
async def start_redrive(request: HttpRequest) -> Response[Any]:
    sent = await request.form()
    form = await form_of(request)
    ids = [UUID(str(each)) for each in sent.getall("ids", [])]
    narrowed = {name: form[name] for name in Filter.__struct_fields__ if form.get(name)}
    more: dict[str, Any] = {"ids": ids} if ids else {"filter": narrowed} if narrowed else {}
    if not more:
        raise Invalid("Choose letters, or narrow the list first.", {})
    body = read(form, RedriveBody, dry_run=form.get("dry_run") == "true", **more)
    check_redrive(principal_of(request), body)
    command = StartRedrive(
        action=body.action,
        ids=None if body.ids is None else tuple(body.ids),
        chosen=body.filter,
        rate_per_second=body.rate_per_second,
        dry_run=body.dry_run,
        reason=body.reason,
    )
    # Several letters that are chosen are told apart by their ids, of which a form's fields keep one.
    form = {**form, "ids": " ".join(str(each) for each in ids)}
    back = query(f"{HERE}/list", {"type" if name == "message_type" else name: value for name, value in narrowed.items()})
    if body.dry_run:
        return await act(request, form, command, done=_counted, back=back)
    return await act(request, form, command, done="It has begun.", back=back, made=f"{HERE}/redrives/{{id}}")


def _counted(answer: bytes) -> Flash:
    meant = msgspec.json.decode(answer, type=RedriveView)
    return Flash(good=True, text=f"{meant.letters} letters are meant; nothing was sent.")


@get("/dead-letters/redrives/{redrive_id:uuid}", before_request=signed_in)
async def show_redrive(request: HttpRequest, redrive_id: FromPath[UUID]) -> Response[Any]:
    async def load() -> Facts:
        return {"redrive": await ask(request, GetRedrive(redrive_id=redrive_id), RedriveView)}

    return await page(request, "redrive.html", load)


@post("/dead-letters/redrives/{redrive_id:uuid}/stop", before_request=RETRY)
async def stop_redrive(request: HttpRequest, redrive_id: FromPath[UUID]) -> Response[Any]:
    form = await form_of(request)
    back = f"{HERE}/redrives/{redrive_id}"
    return await act(request, form, StopRedrive(redrive_id=redrive_id, reason=form.get("reason", "")), done="It is stopped.", back=back)


ROUTES = [
    show_groups,
    list_letters,
    show_letter,
    retry,
    discard,
    begin_editing,
    edit,
    start_redrive,
    show_redrive,
    stop_redrive,
]
