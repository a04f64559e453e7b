"""The sandbox provider: our own simulator over HTTP, which hangs, lies and repeats itself on request."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec

from services.payments.domain.intents import Observation, Operation, TransactionStatus
from services.payments.providers import (
    Ambiguous,
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
    Unreadable,
    VoidRequest,
)
from shared.contracts.payments import NextAction
from shared.http_client import Answer, ProviderClient, retry_after_seconds, told_back

REPLAY_WINDOW_SECONDS = 24 * 3600
PAGE_ROWS = 100
# Statuses and codes of the sandbox's errors that say that a request was not executed; whatever else is answered leaves that open.
MISSING = "resource_missing"
NOT_EXECUTED = frozenset(
    {MISSING, *("amount_invalid", "amount_too_large", "invalid_json", "nothing_to_void", "parameter_missing", "payment_method_unknown")}
)
REFUSING_STATUSES = frozenset({400, 404})

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
        left_out = ("provider_payment_id", "earlier")
        body = {key: value for key, value in msgspec.to_builtins(request).items() if key not in left_out and value is not None}
        return Prepared(operation=operation, method="POST", path=path, body=msgspec.json.encode(body))

    async def send(self, prepared: Prepared, *, idempotency_key: str, reference: UUID) -> tuple[Observation, ...]:
        """Make a call and say what it shows of the payment."""
        answer = await self._client.call(
            prepared.operation, prepared.method, prepared.path, body=prepared.body, headers={"Idempotency-Key": idempotency_key}
        )
        # A refused confirm does not say what became of the payment: the authorization began earlier.
        if _code(answer) in NOT_EXECUTED and prepared.operation != "confirm":
            return (_refused(prepared, answer.status, answer.body, reference),)
        return _shown(answer).observations

    async def get_transaction(self, provider_payment_id: str) -> ProviderTransaction | None:
        """Read a payment from the sandbox's books."""
        answer = await self._client.call("get_transaction", "GET", f"/v1/payments/{provider_payment_id}")
        return None if _code(answer) == MISSING else _shown(answer)

    async def find_by_reference(
        self, reference: UUID, *, operation: Operation, provider_payment_id: str | None, provider_txn_id: str | None = None
    ) -> ProviderTransaction | None:
        """Find the payment that one of our transactions made or changed."""
        if provider_payment_id is not None and provider_txn_id is not None:
            known = await self.get_transaction(provider_payment_id)
            return known if known is not None and known.shows(operation, reference, provider_txn_id) else None
        found = _page(await self._client.call("find_by_reference", "GET", "/v1/payments", query={"reference": str(reference)}))
        return found[0] if found else None

    async def list_transactions(self, *, since: datetime, until: datetime, cursor: str | None) -> TransactionPage:
        """Page through the sandbox's books by time of creation."""
        query = {"since": since.isoformat(), "until": until.isoformat(), "limit": str(PAGE_ROWS), "cursor": cursor or ""}
        answer = await self._client.call("list_transactions", "GET", "/v1/payments", query=query)
        return TransactionPage(transactions=_page(answer), next=answer.body["next_cursor"])

    async def is_strangers(self, provider_payment_id: str) -> bool:
        """Tell whether a payment is in the sandbox's books and bears no reference of ours."""
        found = await self.get_transaction(provider_payment_id)
        return found is not None and found.reference is None

    def observe(self, event_type: str, payload: bytes) -> Observed | None:
        """Read an event: the payment as it was when the event was made."""
        if not event_type.startswith("payment."):
            return None
        try:
            found = _payment(msgspec.json.decode(payload)["data"])
        except (msgspec.DecodeError, KeyError, TypeError, ValueError) as unfit:
            raise Unreadable(f"{type(unfit).__name__}: {unfit}") from unfit
        return Observed(provider_payment_id=found.provider_payment_id, reference=found.reference, observations=found.observations)


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


def _code(answer: Answer) -> str:
    error = answer.body.get("error")
    return str(error.get("code")) if answer.status in REFUSING_STATUSES and isinstance(error, dict) else ""


def _shown(answer: Answer) -> ProviderTransaction:
    """Read the payment of an answer; raises Ambiguous when it shows none."""
    with _legible(answer):
        return _payment(answer.body)


def _page(answer: Answer) -> tuple[ProviderTransaction, ...]:
    with _legible(answer):
        # Without a cursor it is some other list.
        _ = answer.body["next_cursor"]
        return tuple(_payment(each) for each in answer.body["data"])


@contextmanager
def _legible(answer: Answer) -> Iterator[None]:
    unclear = Ambiguous(f"sandbox answered {answer.status}", retry_after_seconds=retry_after_seconds(answer.headers))
    if answer.status not in (200, 201):
        raise unclear
    try:
        yield
    except (KeyError, TypeError, ValueError) as unfit:
        raise unclear from unfit


def _payment(body: Mapping[str, Any]) -> ProviderTransaction:
    return ProviderTransaction(
        provider_payment_id=body["id"],
        reference=_uuid(body.get("reference")),
        observations=observations_of(body),
        created_at=datetime.fromisoformat(body["created_at"]),
    )


def observations_of(body: Mapping[str, Any]) -> tuple[Observation, ...]:
    """Read what a payment of the sandbox shows: one observation for each of its operations."""
    return tuple(_observation(body, operation) for operation in body["operations"])


def _observation(payment: Mapping[str, Any], operation: Mapping[str, Any]) -> Observation:
    action = operation.get("next_action")
    expires = payment.get("authorization_expires_at")
    return Observation(
        operation=Operation(operation["kind"]),
        status=TransactionStatus(operation["status"]),
        amount=operation["amount"],
        currency=payment["currency"],
        provider_payment_id=payment["id"],
        provider_txn_id=operation["id"],
        reference=_uuid(operation.get("reference")),
        reason=operation.get("reason") or "",
        decline_code=operation.get("decline_code"),
        next_action=NextAction(type=action["type"], url=action["url"]) if action else None,
        authorization_expires_at=datetime.fromisoformat(expires) if expires else None,
        raw={key: value for key, value in operation.items() if key in AUDITED},
    )


def _refused(prepared: Prepared, status: int, body: Mapping[str, Any], reference: UUID) -> Observation:
    # A 4xx with an error of its own is proof that this request was not executed.
    error = body.get("error", {})
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
        decline_code=str(error.get("code", f"http_{status}")),
        raw=told_back(
            {"error": {"code": error.get("code"), "message": error.get("message")}, "status": status},
            [str(sent.get("payment_method") or "")],
        ),
    )


def _uuid(text: str | None) -> UUID | None:
    try:
        return UUID(text) if text else None
    except ValueError:
        return None
