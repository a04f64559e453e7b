"""The sandbox provider: our own simulator over HTTP, which hangs, lies and repeats itself on request."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Observation, Operation, TransactionStatus
from services.payments.providers import (
    AuthorizeRequest,
    Capabilities,
    CaptureRequest,
    ConfirmRequest,
    Observed,
    Prepared,
    ProviderTransaction,
    RefundRequest,
    Request,
    TransactionPage,
    TransactionUnreadable,
    Unreadable,
    UnreadableTransaction,
    VoidRequest,
)
from shared.contracts.payments import NextAction
from shared.http_client import Answer, ProviderClient, told_back
from shared.provider_answers import AnswerFormat, IndeterminateResponse, ProviderError, text_of
from shared.provider_values import why

REPLAY_WINDOW_SECONDS = 24 * 3600
PAGE_ROWS = 100
# Codes of the sandbox's errors that say that a request was not executed.
MISSING = "resource_missing"
NOT_EXECUTED = frozenset(
    {MISSING, *("amount_invalid", "amount_too_large", "invalid_json", "nothing_to_void", "parameter_missing", "payment_method_unknown")}
)

# What the audit may keep; everything else in a request or an answer is left out.
AUDITED = frozenset(
    {
        *("id", "object", "kind", "type", "reference", "order_id", "created_at", "operations", "data", "next_cursor", "next_action"),
        *("amount", "processed_amount", "currency", "status", "final", "authorization_expires_at"),
        *("error", "code", "message", "decline_code"),
    }
)


class SandboxPayments:
    """Speaks the sandbox's payment API."""

    name = "sandbox"
    capabilities = Capabilities(
        partial_capture=True,
        multiple_captures=True,
        final_capture=True,
        partial_refund=True,
        multiple_refunds=True,
        void_after_capture=True,
        currencies=None,
        replay_window_seconds=REPLAY_WINDOW_SECONDS,
        absence_is_proof_after_seconds=0,
    )

    def __init__(self, *, base_url: str, api_key: str, timeout_seconds: float, account: str = "sandbox:default") -> None:
        self.account = account
        self._base_url = base_url
        self._client = ProviderClient(
            service="payments",
            provider=self.name,
            base_url=base_url,
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
            timeout_seconds=timeout_seconds,
            audited=AUDITED,
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def browser(self) -> dict[str, str]:
        """Say where the browser finds the sandbox's pages."""
        return {"base_url": self._base_url, "tokens": "tok_success and the other magic tokens of the README"}

    def prepare(self, request: Request) -> Prepared:
        """Write the exact call for a request."""
        operation, path = _where(request)
        left_out = ("provider_payment_id", "earlier", "undone")
        body = {key: value for key, value in msgspec.to_builtins(request).items() if key not in left_out and value is not None}
        return Prepared(operation=operation, method="POST", path=path, body=msgspec.json.encode(body))

    async def send(self, prepared: Prepared, *, idempotency_key: str, reference: UUID) -> tuple[Observation, ...]:
        """Make a call and say what it shows of the payment."""
        answer = await self._client.call(
            prepared.operation, prepared.method, prepared.path, body=prepared.body, headers={"Idempotency-Key": idempotency_key}
        )
        error = ANSWERS.refusal(answer)
        # A refused confirm does not say what became of the payment: the authorization began earlier.
        if error is not None and prepared.operation != "confirm":
            return (_refused(prepared, answer.status, error, reference),)
        found = _shown(answer)
        made = found.reference == reference if prepared.operation == "authorize" else f"/{found.provider_payment_id}/" in prepared.path
        return _meant(found, ours=made).observations

    async def get_transaction(self, provider_payment_id: str) -> ProviderTransaction | None:
        """Read a payment from the sandbox's books."""
        answer = await self._client.call("get_transaction", "GET", f"/v1/payments/{provider_payment_id}")
        if ANSWERS.says_absent(answer):
            return None
        found = _shown(answer)
        return _meant(found, ours=found.provider_payment_id == provider_payment_id)

    async def find_by_reference(
        self, reference: UUID, *, operation: Operation, provider_payment_id: str | None, provider_txn_id: str | None = None
    ) -> ProviderTransaction | None:
        """Find the payment that one of our transactions made or changed."""
        if provider_payment_id is not None and provider_txn_id is not None:
            known = await self.get_transaction(provider_payment_id)
            return known if known is not None and known.shows(operation, reference, provider_txn_id) else None
        found = _page(await self._client.call("find_by_reference", "GET", "/v1/payments", query={"reference": str(reference)}))
        if not found:
            return None
        return _meant(found[0], ours=any(each.reference == reference for each in found[0].observations))

    async def list_transactions(self, *, since: datetime, until: datetime, cursor: str | None) -> TransactionPage:
        """Page through the sandbox's books by time of creation."""
        query = {"since": since.isoformat(), "until": until.isoformat(), "limit": str(PAGE_ROWS), "cursor": cursor or ""}
        answer = await self._client.call("list_transactions", "GET", "/v1/payments", query=query)
        read: list[ProviderTransaction] = []
        unreadable: list[UnreadableTransaction] = []
        for each in _rows(answer):
            try:
                read.append(_readable(each))
            except TransactionUnreadable as unfit:
                # A stranger's need not be readable.
                if _uuid(each.get("reference")) is not None:
                    unreadable.append(UnreadableTransaction(provider_payment_id=each["id"], reason=str(unfit)))
        return TransactionPage(transactions=tuple(read), next=answer.body["next_cursor"], unreadable=tuple(unreadable))

    async def is_strangers(self, provider_payment_id: str) -> bool:
        """Tell whether a payment is in the sandbox's books and bears no reference of ours."""
        found = await self.get_transaction(provider_payment_id)
        return found is not None and found.reference is None

    def observe(self, event_type: str, payload: bytes) -> Observed | None:
        """Read an event: the payment as it was when the event was made."""
        if not event_type.startswith("payment."):
            return None
        try:
            data = msgspec.json.decode(payload, type=_Event).data
            about = _about(data)
        except (msgspec.MsgspecError, ValueError) as unfit:
            raise Unreadable(why(unfit)) from unfit
        try:
            found = _payment(data)
        except (msgspec.MsgspecError, ValueError) as unfit:
            return msgspec.structs.replace(about, unreadable=why(unfit))
        return msgspec.structs.replace(about, observations=found.observations)


def _where(request: Request) -> tuple[str, str]:
    match request:
        case AuthorizeRequest():
            return "authorize", "/v1/payments"
        case ConfirmRequest():
            return "confirm", f"/v1/payments/{request.provider_payment_id}/confirm"
        case CaptureRequest():
            return "capture", f"/v1/payments/{request.provider_payment_id}/capture"
        case VoidRequest():
            return "void", f"/v1/payments/{request.provider_payment_id}/void"
        case RefundRequest():
            return "refund", f"/v1/payments/{request.provider_payment_id}/refund"


def _error(answer: Answer) -> ProviderError | None:
    error = answer.body["error"]
    return ProviderError(code=error["code"], message=text_of(error["message"])) if error["code"] in NOT_EXECUTED else None


ANSWERS = AnswerFormat(provider="sandbox", read_error=_error, refusing_statuses=frozenset({400, 404}), absence_codes=frozenset({MISSING}))


def _shown(answer: Answer) -> ProviderTransaction:
    with ANSWERS.reading():
        return _readable(ANSWERS.shown(answer))


def _meant(found: ProviderTransaction, *, ours: bool) -> ProviderTransaction:
    """Insist that an answer shows what was asked about; one that somebody kept for another request does not."""
    if not ours:
        raise IndeterminateResponse(f"sandbox shows another payment: {found.provider_payment_id}")
    return found


def _page(answer: Answer) -> tuple[ProviderTransaction, ...]:
    return tuple(_readable(each) for each in _rows(answer))


def _rows(answer: Answer) -> list[Mapping[str, Any]]:
    with ANSWERS.reading():
        # Without a cursor, or of things without names, it is some other list.
        _ = ANSWERS.shown(answer)["next_cursor"], [_about(each) for each in answer.body["data"]]
        return list(answer.body["data"])


def _readable(body: Mapping[str, Any]) -> ProviderTransaction:
    """Read a payment; raises TransactionUnreadable for one that bears its name and cannot be read otherwise."""
    about = _about(body)
    try:
        return _payment(body)
    except (msgspec.MsgspecError, ValueError) as unfit:
        raise TransactionUnreadable(f"{about.provider_payment_id}: {why(unfit)}") from unfit


def _about(body: Any) -> Observed:
    named = msgspec.convert(body, _Named)
    return Observed(provider_payment_id=named.id, reference=_uuid(named.reference), observations=None)


class _Named(msgspec.Struct, frozen=True):
    """All of a payment that is read before it is known whose it is; a reference of somebody else may be anything."""

    id: str
    reference: Any = None


class _Event(msgspec.Struct, frozen=True):
    data: dict[str, Any]


_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class _Operation(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    kind: Operation
    status: TransactionStatus
    amount: int
    reference: Any = None
    reason: str | None = None
    decline_code: str | None = None
    next_action: NextAction | None = None


class _Payment(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    currency: str
    operations: list[_Operation]
    reference: Any = None
    authorization_expires_at: _Moment | None = None


class _Made(_Payment, frozen=True, kw_only=True):
    created_at: _Moment


def _payment(body: Mapping[str, Any]) -> ProviderTransaction:
    payment = msgspec.convert(body, _Made)
    return ProviderTransaction(
        provider_payment_id=payment.id,
        reference=_uuid(payment.reference),
        observations=observations_of(body),
        created_at=payment.created_at,
    )


def observations_of(body: Mapping[str, Any]) -> tuple[Observation, ...]:
    """Read what a payment of the sandbox shows: one observation for each of its operations; raises msgspec.ValidationError, ValueError."""
    payment = msgspec.convert(body, _Payment)
    return tuple(_observation(payment, each, raw) for each, raw in zip(payment.operations, body["operations"], strict=True))


def _observation(payment: _Payment, operation: _Operation, raw: Mapping[str, Any]) -> Observation:
    return Observation(
        operation=operation.kind,
        status=operation.status,
        amount=operation.amount,
        currency=payment.currency,
        provider_payment_id=payment.id,
        provider_txn_id=operation.id,
        reference=_uuid(operation.reference),
        reason=operation.reason or "",
        decline_code=operation.decline_code,
        next_action=operation.next_action,
        authorization_expires_at=payment.authorization_expires_at,
        raw={key: value for key, value in raw.items() if key in AUDITED},
    )


def _refused(prepared: Prepared, status: int, error: ProviderError, reference: UUID) -> Observation:
    sent = msgspec.json.decode(prepared.body) if prepared.body else {}
    operation = Operation(prepared.operation)
    return Observation(
        operation=operation,
        status=TransactionStatus.FAILED,
        amount=sent.get("amount", 0),
        currency=sent.get("currency", ""),
        provider_payment_id="",
        provider_txn_id=None,
        reference=reference,
        decline_code=error.code,
        raw=told_back(
            {"error": {"code": error.code, "message": error.message}, "status": status},
            [str(sent.get("payment_method") or "")],
        ),
    )


def _uuid(value: Any) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None
